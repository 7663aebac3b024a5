"""Sounds as pages and exports ask for them."""
