"""How the models come to be: data, recipes, training, pruning, quantisation, export, benchmarks."""
