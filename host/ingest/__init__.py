"""From the broker into the store; also the broker that needs no installation."""
