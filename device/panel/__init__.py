"""Hand and lamp: button, light, keypad, and what a press does."""
