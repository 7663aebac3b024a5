"""How long each stage takes: p50, p99, worst, missed budgets, in memory that does not grow.

    timer = StageTimer("denoise", budget_s=0.002)
    with timer:
        step()
    timer.p99, timer.missed

Times fall into a logarithmic histogram from 1 µs to 100 s whose bins are 2 % wide, so a quantile is within
1 % of the true one, whether it is taken over a second or a season.
"""

from __future__ import annotations

import math
import time
from array import array
from dataclasses import dataclass
from types import TracebackType

__all__ = ["StageFigures", "StageTimer"]

_SHORTEST_S = 1e-6
_LONGEST_S = 100.0
_STEP = math.log(1.02)
_BINS = math.ceil(math.log(_LONGEST_S / _SHORTEST_S) / _STEP) + 1


@dataclass(frozen=True)
class StageFigures:
    """What a timer has seen. Times in seconds; None where there was nothing to time."""

    stage: str
    budget_s: float
    count: int
    missed: int
    """Times over the budget."""
    total_s: float
    p50: float | None
    p99: float | None
    p999: float | None
    worst: float | None


class StageTimer:
    """Times one stage. Used by one thread; another may read the figures.

    `budget_s` is what one step may take (DESIGN §2: a quarter of the hop for a stage in the streaming path);
    more counts as missed.
    """

    def __init__(self, name: str, budget_s: float) -> None:
        if not budget_s > 0:
            raise ValueError(f"{name}: budget {budget_s} s; must be above 0")
        self.name = name
        self.budget_s = budget_s
        self._started = 0.0
        self.reset()

    def reset(self) -> None:
        """Forget everything seen so far."""
        self._bins = array("q", bytes(8 * _BINS))  # a list would grow by an int for each bin past 256
        self.count = 0
        self.missed = 0
        self.total_s = 0.0
        self.worst_s = 0.0

    def copy(self) -> StageTimer:
        """What it has seen until now, to be compared with later: `since`."""
        twin = StageTimer(self.name, self.budget_s)
        twin._bins = self._bins[:]
        twin.count, twin.missed = self.count, self.missed
        twin.total_s, twin.worst_s = self.total_s, self.worst_s
        return twin

    def since(self, earlier: StageTimer) -> StageTimer:
        """What it has seen after `earlier`, a copy of it. The worst is known to 1 % only."""
        rest = self.copy()
        rest._bins = array("q", (now - then for now, then in zip(rest._bins, earlier._bins, strict=True)))
        rest.count -= earlier.count
        rest.missed -= earlier.missed
        rest.total_s -= earlier.total_s
        highest = max((n for n, many in enumerate(rest._bins) if many > 0), default=-1)
        rest.worst_s = (
            min(self.worst_s, _SHORTEST_S * math.exp((highest + 1) * _STEP)) if highest >= 0 else 0.0
        )
        return rest

    def add(self, seconds: float, steps: int = 1) -> None:
        """Count one step, or several alike, that took `seconds` each."""
        if seconds > _SHORTEST_S:
            position = min(_BINS - 1, int(math.log(seconds / _SHORTEST_S) / _STEP))
        else:
            position = 0
        self._bins[position] += steps
        self.count += steps
        self.total_s += seconds * steps
        if seconds > self.budget_s:
            self.missed += steps
        if seconds > self.worst_s:
            self.worst_s = seconds

    def __enter__(self) -> StageTimer:
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.add(time.perf_counter() - self._started)

    def quantile(self, share: float) -> float | None:
        """The time in seconds that `share` (0…1) of the steps stayed within, to 1 %; None before the first
        step.
        """
        bins = self._bins[:]
        count = sum(bins)
        if not count:
            return None
        wanted = max(1, math.ceil(share * count))
        seen = 0
        for position, many in enumerate(bins):
            seen += many
            if seen >= wanted:
                return min(_SHORTEST_S * math.exp((position + 0.5) * _STEP), self.worst_s)
        return self.worst_s

    @property
    def p50(self) -> float | None:
        """Median step in seconds; None before the first."""
        return self.quantile(0.5)

    @property
    def p99(self) -> float | None:
        """99th percentile of the steps in seconds; None before the first."""
        return self.quantile(0.99)

    @property
    def figures(self) -> StageFigures:
        """Everything at once, as it goes into an exam or a bench table."""
        return StageFigures(
            stage=self.name,
            budget_s=self.budget_s,
            count=self.count,
            missed=self.missed,
            total_s=self.total_s,
            p50=self.quantile(0.5),
            p99=self.quantile(0.99),
            p999=self.quantile(0.999),
            worst=self.worst_s if self.count else None,
        )
