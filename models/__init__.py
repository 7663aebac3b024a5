"""What the networks are: PyTorch definitions, and models/released, the bundle that ships."""
