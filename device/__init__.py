"""What runs on the Pi: microphone → clean sound → verdict → exam → delivered."""

__version__ = "0.3.0"
