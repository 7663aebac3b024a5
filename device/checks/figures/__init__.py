"""Each stage tried alone on a recording: `python -I -m device.checks.figures.STAGE FILE` says."""
