"""What the sound means: mel features, quality, classifier, verdict and heart rate."""
