"""How the ECG denoiser comes to be; baselines beside it."""
