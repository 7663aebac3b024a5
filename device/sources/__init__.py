"""Where sound comes from: microphone, file, synthetic heart. One protocol, chosen by name."""
