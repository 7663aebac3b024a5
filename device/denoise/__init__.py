"""Noisy sound to clean sound: front end, mask, and the streaming step around the network."""
