"""How the denoiser comes to be: training, loss, pruning, int8, export; baselines beside it."""
