"""The commands of `stethopi` that train, prune, export, release, measure and draw, a file for each group."""
