"""Recordings and folders of them through the device's stages, and their plots."""
