"""The last steps before the ear: which of two sounds, what band, how loud, and the queue before a card.

Blend    raw or clean of two aligned sounds; a change is a fade of 20 ms
Loudness what is loud for longer than a beat is turned down
Shaper   preset, gain, loudness, soft limiter, fades where sound begins, ends or is torn
Lane     shaped sound that waits for a card and leaves at its rate
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from device.arrays import Samples
from device.dsp.resample import Interpolator
from device.listening.shaper import Shaper
from device.rates import HOP
from device.timing import StageTimer

__all__ = ["BLOCK_BUDGET_S", "PlaybackQueue"]


BLOCK_BUDGET_S = 0.015
"""From a capture block being complete to its first sample leaving in an output block: at most so long."""


_TRIM_EVERY_S = 2.0
_TRIM_ABOVE_S = 0.005
_TRIM_TO_S = 0.0025


class PlaybackQueue:
    """Sound that waits for a card. `put` by the thread that has sound, `next` by the card's.

    It begins when `prefill` samples wait, and again after it ran out. `most` samples may wait; when more
    come, what is oldest is dropped and counted. A lean lane lets no more wait than the unevenness of both
    sides asks for: what lay there unused for two seconds, because two clocks differ or a server woke late, is
    cut out in a fade.

    open → (waiting ⇄ playing) → end, cut → parked → open
    """

    def __init__(
        self,
        shaper: Shaper,
        card_rate_hz: int,
        prefill: int,
        most: int,
        *,
        lean: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shaper = shaper
        self.dropped = 0
        self.underruns = 0
        self.trimmed = 0
        """Samples that a lean lane cut out."""
        self.parked = True
        self.waited = StageTimer("monitor", BLOCK_BUDGET_S)
        """From the instants that `put` was told to the output block that holds the sound's first sample."""
        self._interpolator = (
            Interpolator(card_rate_hz, sharp=False) if card_rate_hz != shaper.rate_hz else None
        )
        self._prefill, self._most, self._lean = prefill, most, lean
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._queue: deque[tuple[Samples, float | None, bool]] = deque()
        self._queued = 0
        self._torn = False
        self._waiting = True
        self._ending = False
        self._faded_out = False
        self._ready = np.zeros(0, np.float32)  # at the card's rate
        self.lead = 0
        """Samples still to leave before the first one that sounds; negative afterwards."""
        self._fade = card_rate_hz // 100
        self._cut_at: int | None = None  # of the fade after `cut`
        self._least = most
        self._since_trim = 0

    @property
    def filter_s(self) -> float:
        """What the way to the card's rate costs."""
        return self._interpolator.delay_s if self._interpolator else 0.0

    @property
    def playing(self) -> bool:
        """Whether what left last held sound of this lane."""
        return not (self.parked or self._waiting) and self.lead < 0

    def open(self) -> None:
        """Take sound from now on."""
        with self._lock:
            self._queue.clear()
            self._queued = 0
            self._torn = self._ending = self._faded_out = False
            self._waiting = True
            self._cut_at = None
            self._least, self._since_trim = self._most, 0
            self.parked = False

    def end(self) -> None:
        """What waits is played, then it fades and parks."""
        with self._lock:
            self._ending = True

    def cut(self) -> None:
        """Fade within 10 ms, whatever waits, and park. By the card's thread."""
        if self._waiting:
            self._park()
        elif self._cut_at is None:
            self._cut_at = 0

    def _park(self) -> None:
        with self._lock:
            self._queue.clear()
            self._queued = 0
            self._cut_at = None
            self.parked = True
        self._ready = np.zeros(0, np.float32)
        self.shaper.tail()
        if self._interpolator:  # what it holds must not be heard when this lane is opened again
            self._interpolator.process(np.zeros(4 * HOP, np.float32))

    def put(self, x: Samples, at_s: float | None = None, torn: bool = False) -> None:
        """The next sound, float32 (n,). at_s: when it was there, monotonic; torn: something is missing before
        it. Returns at once.
        """
        with self._lock:
            if self.parked or self._ending:
                return
            if self._queued + len(x) > self._most:
                # the card was late: what is old goes, else all that comes would be late for ever
                while self._queue and self._queued + len(x) > self._prefill:
                    self._drop_first()
                self._torn = not self._queue
            self._queue.append((np.array(x, dtype=np.float32), at_s, torn or self._torn))
            self._queued += len(x)
            self._torn = False

    def _drop_first(self) -> None:
        x, _, _ = self._queue.popleft()
        self._queued -= len(x)
        self.dropped += len(x)
        if self._queue:
            rest, at_s, _ = self._queue[0]
            self._queue[0] = (rest, at_s, True)

    def next(self, frames: int) -> Samples:
        """Exactly `frames` samples at the card's rate, float32."""
        if self._lean and not self.parked:
            self._trim(frames)
        while len(self._ready) < frames:
            if self.parked:
                return np.concatenate([self._ready, np.zeros(frames - len(self._ready), np.float32)])
            y = self._more(frames)
            if self._interpolator:
                y = self._interpolator.process(y)
            self._ready = np.concatenate([self._ready, y])
        now, self._ready = self._ready[:frames], self._ready[frames:]
        self.lead -= frames
        if self._cut_at is not None:
            at = np.minimum(np.arange(self._cut_at + 1, self._cut_at + 1 + frames), self._fade)
            now = now * (0.5 + 0.5 * np.cos(np.pi * at / self._fade)).astype(np.float32)
            self._cut_at += frames
            if self._cut_at >= self._fade:
                self._park()
        return now

    def _more(self, frames: int) -> Samples:
        with self._lock:
            if self._waiting and (self._queued >= self._prefill or self._ending):
                self._waiting = False
                self.lead = len(self._ready)
                if self._interpolator:
                    self.lead += self._interpolator.held
                while self._lean and self._queue and self._queued - len(self._queue[0][0]) >= self._prefill:
                    # nothing sounds yet: what came in one heap is not worth the delay
                    self._queued -= len(self._queue.popleft()[0])
            item = None if self._waiting or not self._queue else self._queue.popleft()
            self._queued -= 0 if item is None else len(item[0])
        if item is not None:
            x, at_s, torn = item
            if at_s is not None:
                self.waited.add(self._monotonic() - at_s)
            tail = self.shaper.tail() if torn else x[:0]
            return np.concatenate([tail, self.shaper.process(x)])
        if self._ending and not self._faded_out:
            self._faded_out = True
            rest = 4 * HOP if self._interpolator else 0  # and what the filter holds of it
            return np.concatenate([self.shaper.tail(), np.zeros(rest, np.float32)])
        if self._ending:
            self.parked = True
        elif not self._waiting:
            self.underruns += self._cut_at is None
            self._waiting = True
            return self.shaper.tail()
        return np.zeros(HOP if self._interpolator else frames, np.float32)

    def _trim(self, frames: int) -> None:
        """Cut out what has lain unused in every moment of the last two seconds."""
        rate_hz = self.shaper.rate_hz
        with self._lock:
            if not self._waiting:
                self._least = min(self._least, self._queued + len(self._ready) - frames)
            self._since_trim += frames
            if self._since_trim < _TRIM_EVERY_S * rate_hz:
                return
            surplus, self._least, self._since_trim = self._least, self._most, 0
            fade = self.shaper.fade
            surplus -= round(_TRIM_TO_S * rate_hz)
            if self._waiting or surplus < round((_TRIM_ABOVE_S - _TRIM_TO_S) * rate_hz):
                return
            surplus = min(surplus, self._queued - fade)
            if surplus <= 0 or any(torn for _, _, torn in self._queue):
                return
            x = np.concatenate([piece for piece, _, _ in self._queue])
            share = (0.5 - 0.5 * np.cos(np.pi * np.arange(1, fade + 1) / fade)).astype(np.float32)
            joint = x[:fade] + share * (x[surplus : surplus + fade] - x[:fade])
            kept = np.concatenate([joint, x[surplus + fade :]])
            self._queue = deque([(kept, None, False)])
            self._queued = len(kept)
            self.trimmed += surplus
