"""A split that leaks, as in the publications behind the models that ours is compared with; named so wherever
it is told.

Windows are split by chance, not patients, so that the test holds other windows, even overlapping ones, of the
very recordings that were trained on; and copies of training recordings are scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Leaky", "leaky"]


@dataclass(frozen=True)
class Leaky:
    """A split that leaks, as in the publications: for comparison with what they print, and named so."""

    train: dict[str, list[int]]
    """Record → its windows that are trained on."""
    test: dict[str, list[int]]
    """Record → its other windows. Most of these recordings are trained on too."""
    copies: list[str]
    """Recordings that are trained on and scored as if they were a test set."""


def leaky(
    counts: Mapping[str, int], seed: int = 1, test_share: float = 0.2, copies_share: float = 0.1
) -> Leaky:
    """Split windows by chance, whoever they are from. counts: record → how many windows it has.

    copies_share: share of the recordings, all of whose windows stay in training, that serve as "test" once
    more (the 301 recordings of the Challenge 2016's validation folder are copies of training recordings).
    """
    rng = np.random.default_rng([seed, 2016])
    records = sorted(counts)
    copies = sorted(rng.choice(records, max(1, round(copies_share * len(records))), replace=False).tolist())
    kept = set(copies)
    split = Leaky({}, {}, copies)
    for record in records:
        drawn = rng.random(counts[record]) < test_share
        if record in kept:
            drawn[:] = False
        for into, mask in ((split.train, ~drawn), (split.test, drawn)):
            if mask.any():
                into[record] = np.flatnonzero(mask).tolist()
    return split
