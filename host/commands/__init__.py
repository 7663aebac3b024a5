"""What `stethopi` can be asked to do: serve, demo, doctor, subjects."""
