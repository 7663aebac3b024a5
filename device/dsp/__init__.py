"""Arithmetic on blocks of samples, without a thought of what they mean: resampling, IIR, mel bands, level."""
