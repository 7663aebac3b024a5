"""Recordings, noise and ECG as trainings read them."""
