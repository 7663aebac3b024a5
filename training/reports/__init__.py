"""Tables, cards and plots from docs/results; measures nothing."""
