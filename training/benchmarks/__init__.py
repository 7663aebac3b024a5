"""Measures; writes docs/results."""
