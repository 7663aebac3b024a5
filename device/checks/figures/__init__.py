"""Each stage tried alone on a recording: `python -m device.checks.figures.STAGE FILE` prints its figures."""
