"""Groups (subjects) drawn with replacement, for intervals (Efron 1979)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["resampled"]


def resampled(groups: Sequence[str] | np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Row numbers of as many groups as there are, drawn anew each time, for ever; group
    after group. groups: of each row its group."""
    names, of, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    by_group = np.argsort(of, kind="stable")
    starts = np.cumsum(counts) - counts
    rng = np.random.default_rng(seed)
    while True:
        drawn = rng.integers(len(names), size=len(names))
        many = counts[drawn]
        before = np.cumsum(many) - many
        yield by_group[np.repeat(starts[drawn] - before, many) + np.arange(many.sum())]
