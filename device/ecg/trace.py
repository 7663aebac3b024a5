"""The ECG for the eye: short messages of peaks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from device.arrays import Samples
from device.contract.live import LiveEcg
from device.ecg.base import FULL_MV
from device.ecg.lead import not_cleaned
from device.ecg.track import Track
from device.rates import ECG_RATE_HZ
from device.stream.aligned import AlignedStream, Cleaner

__all__ = ["Trace"]


_WAVE = ECG_RATE_HZ // 10


_MOST_AT_ONCE = 2 * ECG_RATE_HZ


class Trace:
    """Cuts the ECG into messages of 100 ms for the eye, raw and (where something cleans it) denoised."""

    def __init__(self, track: Track, cleaner: Cleaner | None, tell: Callable[[LiveEcg], None]) -> None:
        self._track = track
        self._cleaned = cleaner is not None
        self._twin = AlignedStream(cleaner) if cleaner is not None else None
        self._tell = tell
        self._index = 0
        self._taken = 0
        self._raw = np.zeros(0, np.float32)
        self._clean = np.zeros(0, np.float32)

    def process(self, x: Samples, exam: str | None, *, shed: bool = False, silent: bool = False) -> None:
        """Take what reached the ring last, float32 (n,). shed: do not denoise; silent: tell nothing."""
        begins = self._track.ring.end - len(x)
        if begins != self._taken:  # a long hole was jumped over
            if self._twin is not None:
                self._twin.flush()
            self._raw = self._clean = np.zeros(0, np.float32)
            self._index = begins
        self._taken = begins + len(x)
        if self._twin is None:
            raw = clean = x
        else:
            heard = np.array(x, np.float32)
            for gap in self._track.ring.gaps(begins, begins + len(x)):
                heard[gap.start - begins : gap.end - begins] = np.nan
            raw, clean = self._twin.process(heard, shed)
        self._raw = np.concatenate([self._raw, raw])
        self._clean = np.concatenate([self._clean, clean])
        surplus = max(len(self._raw) - _MOST_AT_ONCE, 0) // _WAVE * _WAVE
        self._cut(surplus)
        while len(self._raw) >= _WAVE:
            if exam is not None and not silent:
                self._tell(self._message(exam, shed))
            self._cut(_WAVE)

    def word(self, exam: str | None) -> LiveEcg:
        """How the lead is, without a sample: while none comes."""
        return LiveEcg(self._index, ECG_RATE_HZ, None, (), (), (), (), self._track.state, exam)

    def _message(self, exam: str, shed: bool) -> LiveEcg:
        start = self._index
        gaps = [(g.start - start, g.end - start) for g in self._track.ring.gaps(start, start + _WAVE)]
        clean = self._clean[:_WAVE].copy()
        near = self._track.ring.gaps(max(start - ECG_RATE_HZ, 0), start + _WAVE)
        hidden = [
            (max(a - start, 0), min(b - start, _WAVE)) for a, b in not_cleaned(near, ECG_RATE_HZ) if b > start
        ]
        for a, b in hidden:
            clean[a:b] = 0.0  # what a net makes of nothing is no ECG
        at = self._track.sound_of(start)
        return LiveEcg(
            index=start,
            rate_hz=ECG_RATE_HZ,
            at=None if at is None else round(at, 2),
            raw=_display(self._raw[:_WAVE]),
            clean=_display(clean) if self._cleaned and not shed else (),
            gaps=tuple(gaps),
            clean_gaps=tuple(hidden),
            lead=self._track.state,
            exam=exam,
        )

    def _cut(self, n: int) -> None:
        self._raw, self._clean = self._raw[n:], self._clean[n:]
        self._index += n


def _display(x: Samples) -> tuple[int, ...]:
    whole = np.clip(np.rint(np.nan_to_num(x).astype(np.float64) * (32767.0 / FULL_MV)), -32768, 32767)
    return tuple(int(v) for v in whole)
