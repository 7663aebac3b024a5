"""The figures themselves: decibels, areas under curves, intervals."""
