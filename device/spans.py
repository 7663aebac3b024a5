"""Stretches of sound by sample index: gaps, clipped samples, and what joins them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from device.arrays import AnyArray

__all__ = ["merged", "clipped_spans", "Gap"]


CLIPPED_AT = 1.0 - 2.0**-12
"""Share of full scale that counts as full: converters and their drivers do not all reach the very last
step."""


def merged(spans: Iterable[tuple[int, int]], distance: int = 0) -> list[Gap]:
    """The spans sorted, with those that touch, or lie up to `distance` samples apart, made one. Empty ones
    go.
    """
    result: list[Gap] = []
    for start, end in sorted(span for span in spans if span[1] > span[0]):
        if result and start <= result[-1].end + distance:
            result[-1] = Gap(result[-1].start, max(result[-1].end, end))
        else:
            result.append(Gap(start, end))
    return result


def clipped_spans(x: AnyArray) -> list[Gap]:
    """Where sound, float (n,), sticks at full scale for two samples or more. One sample may be a mere
    peak. bool (n,): where it is at full scale.
    """
    full = x if x.dtype == bool else np.abs(x) >= CLIPPED_AT
    if not full.any():
        return []
    edges = np.flatnonzero(np.diff(np.concatenate([[False], full, [False]])))
    pairs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return [Gap(start, end) for start, end in pairs if end - start >= 2]


class Gap(NamedTuple):
    """A stretch [start, end) of samples that were not heard. Whose samples, says the one who holds it."""

    start: int
    end: int
