"""What every training shares: one loop, recipes, results, and where a figure comes from."""
