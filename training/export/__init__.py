"""From PyTorch to int8 TFLite: pruning, conversion, and proof that they agree."""
