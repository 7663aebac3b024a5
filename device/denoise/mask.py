"""What a denoiser's answer does to the unquantised sound, in float32: the form that the bundle names.

    shares   heart sound: shares to remove, 0 to 1, of bands of the frame that ends here, and in time
    blend    ECG: how far the baseline is off, an estimate of the clean signal, and the share of it in the
             result

Both finish the hop that lies the look-ahead behind the newest one. Where the net finds nothing to remove,
the sound passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from device.arrays import AnyArray, Int8Array, Samples
from device.denoise.front_end import MOST_HOPS, FrontEnd
from device.errors import StethopiError
from device.inference.interpreter import dequantise
from device.rates import HOP

__all__ = ["MaskBlend", "Mask", "Shares", "mask_of", "widen"]


class Mask(Protocol):
    """A form of the answer. `outputs`: names of the net's outputs that it reads."""

    outputs: tuple[str, ...]

    def reset(self) -> None:
        """As before the first sample."""

    def steps(
        self, hops: Samples, heard: FrontEnd, answers: Mapping[str, Int8Array]
    ) -> tuple[Samples, Samples]:
        """The newest hops (k, hop) and the net's answers (k, size) → the finished hops as they came, and
        cleaned, both float32 (k, hop).
        """
        ...

    def snapshot(self) -> dict[str, Any]:
        """All that the next hop depends on, copied."""

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on from a snapshot."""


def mask_of(
    meta: Mapping[str, Any], arrays: Mapping[str, AnyArray], scales: Mapping[str, tuple[float, int]]
) -> Mask:
    """The form that a model's entry in the bundle names; the heart sound's where it names none.

    scales: scale and zero point of the net's outputs, by name.
    """
    kind = meta.get("form", {"kind": "shares"})["kind"]
    if kind == "shares":
        return Shares(arrays, int(meta["look_ahead"]), *scales["shares"])
    if kind == "blend":
        return MaskBlend(arrays, int(meta["hop"]), int(meta["look_ahead"]), scales)
    raise StethopiError(f"the bundle's answers are of the form {kind!r}; update stethopi")


def widen(shares: Any) -> Any:
    """The net's answer in 0 … 1 slightly widened, so that both ends (keep all, remove all) are exactly
    reached.
    """
    return (shares * 1.04 - 0.02).clip(0.0, 1.0)


def _shift(history: Samples, hop: Samples) -> None:
    history[: -len(hop)] = history[len(hop) :]
    history[-len(hop) :] = hop


class Shares:
    """frame that ends here ── analysis ── times shares of the bands ── synthesis ── taken from the sound;
    finished hop ── less the share in time.

    Of all hops at once, since calls are what it costs. A product for each hop, never one for all of them, so
    that the bits do not depend on how many there are.
    """

    outputs: tuple[str, ...] = ("shares",)

    def __init__(
        self, arrays: Mapping[str, AnyArray], look_ahead: int, scale: float, zero_point: int
    ) -> None:
        self._analysis, self._synthesis, self._spread, self._interpolation = (
            np.ascontiguousarray(arrays[k], dtype=np.float32)
            for k in ("analysis", "synthesis", "spread", "interpolation")
        )
        frame, self._bands = self._analysis.shape[1], self._spread.shape[1]
        self._parts = self._synthesis.shape[0] // HOP
        self._look_ahead, self._frame = look_ahead, frame
        # every int8 as a share; a negative one counts from the end
        every = np.arange(256, dtype=np.uint8).view(np.int8)
        self._share_of = np.asarray(widen(dequantise(every, scale, zero_point)), dtype=np.float32)
        self._sound = np.zeros(frame - HOP + MOST_HOPS * HOP, dtype=np.float32)
        self._frames = [self._sound[HOP * n : HOP * n + frame] for n in range(MOST_HOPS)]
        self._removed = np.zeros((self._parts - 1 + MOST_HOPS, self._parts * HOP), dtype=np.float32)
        """What each of the last hops, and of those at hand, takes away from the hops it reaches."""
        self._shares, self._found, self._spreaded, self._points, self._curve = (
            np.zeros((MOST_HOPS, size), dtype=np.float32)
            for size in (
                self._bands + self._interpolation.shape[1] - 1,
                self._analysis.shape[0],
                self._spread.shape[0],
                self._interpolation.shape[1],
                HOP,
            )
        )
        self._ones = np.ones((MOST_HOPS, HOP), dtype=np.float32)
        """Made once: a number beside an array costs as much as ten of such sums."""
        self._rows = list(
            zip(
                self._frames,
                self._shares[:, : self._bands],
                self._spreaded,
                self._found,
                self._removed[self._parts - 1 :],
                self._points,
                self._curve,
                strict=True,
            )
        )
        self.reset()

    def reset(self) -> None:
        """As before the first sample."""
        self._sound[:] = 0.0
        self._removed[:] = 0.0
        self._last_point = np.float32(0.0)

    def snapshot(self) -> dict[str, Any]:
        """All that the next hop depends on, copied."""
        return {
            "sound": self._sound[: self._frame - HOP].copy(),
            "removed": self._removed[: self._parts - 1].copy(),
            "last_point": self._last_point,
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on from a snapshot."""
        self._sound[: self._frame - HOP] = kept["sound"]
        self._removed[: self._parts - 1] = kept["removed"]
        self._last_point = kept["last_point"]

    def steps(
        self, hops: Samples, heard: FrontEnd, answers: Mapping[str, Int8Array]
    ) -> tuple[Samples, Samples]:
        """The newest hops and `shares` → the finished hops as they came, and cleaned."""
        k, bands, parts, before = len(hops), self._bands, self._parts, self._frame - HOP
        sound, removed = self._sound, self._removed
        sound[before : before + HOP * k] = hops.reshape(-1)
        shares, points, found = self._shares[:k], self._points[:k], self._found[:k]
        self._share_of.take(answers["shares"], None, shares, "wrap")
        points[:, 1:] = shares[:, bands:]
        points[1:, 0] = shares[:-1, -1]
        points[0, 0] = self._last_point
        self._last_point = shares[-1, -1]
        rows = self._rows[:k]
        for frame, share, spreaded, one, _, point, curve in rows:
            self._analysis.dot(frame, one)
            self._spread.dot(share, spreaded)
            self._interpolation.dot(point, curve)
        np.multiply(found, self._spreaded[:k], found)
        for _, _, _, one, taken_by_it, _, _ in rows:
            self._synthesis.dot(one, taken_by_it)
        taken: Samples = removed[:k, -HOP:]
        for part in range(1, parts):
            start = HOP * (parts - 1 - part)
            taken = taken + removed[part : part + k, start : start + HOP]
        first = self._frame - HOP - self._look_ahead
        raw = sound[first : first + HOP * k].reshape(k, HOP).copy()
        clean: Samples = (raw - taken) * (self._ones[:k] - self._curve[:k])
        items = sound.data
        items[:before] = items[HOP * k : HOP * k + before]
        removed[: parts - 1] = removed[k : k + parts - 1].copy()
        return raw, clean


class MaskBlend:
    """clean = (1 - share) * (high-passed - level * baseline) + share * level * estimate.

    `baseline` (1 a hop) and `share` (a few a hop) are joined by straight lines, `estimate` has a value a
    sample; baseline and estimate are in levels. So the estimate's quantisation is heard only as far as the
    net distrusts the signal.
    """

    outputs: tuple[str, ...] = ("estimate", "share", "baseline")

    def __init__(
        self,
        arrays: Mapping[str, AnyArray],
        hop: int,
        look_ahead: int,
        scales: Mapping[str, tuple[float, int]],
    ) -> None:
        self._scales = scales
        self._of_share = np.ascontiguousarray(arrays["of_share"], dtype=np.float32)
        self._of_baseline = np.ascontiguousarray(arrays["of_baseline"], dtype=np.float32)
        self._hop, self._look_ahead = hop, look_ahead
        self.reset()

    def reset(self) -> None:
        """As before the first sample."""
        self._sound = np.zeros(self._look_ahead + self._hop, dtype=np.float32)
        self._passed = np.zeros(self._look_ahead + self._hop, dtype=np.float32)
        self._shares = np.zeros(self._of_share.shape[1], dtype=np.float32)
        self._baselines = np.zeros(self._of_baseline.shape[1], dtype=np.float32)

    def snapshot(self) -> dict[str, Any]:
        """All that the next hop depends on, copied."""
        return {
            "sound": self._sound.copy(),
            "passed": self._passed.copy(),
            "shares": self._shares.copy(),
            "baselines": self._baselines.copy(),
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on from a snapshot."""
        self._sound, self._passed = kept["sound"].copy(), kept["passed"].copy()
        self._shares, self._baselines = kept["shares"].copy(), kept["baselines"].copy()

    def steps(
        self, hops: Samples, heard: FrontEnd, answers: Mapping[str, Int8Array]
    ) -> tuple[Samples, Samples]:
        """The newest hops and the three answers → the finished hops as they came, and cleaned."""
        raw, clean = np.empty(hops.shape, dtype=np.float32), np.empty(hops.shape, dtype=np.float32)
        real = {name: dequantise(answers[name], *self._scales[name]) for name in self.outputs}
        for k, hop in enumerate(hops):
            answer = {name: values[k] for name, values in real.items()}
            raw[k], clean[k] = self._step(hop, heard.passed[k], heard.level[k], answer)
        return raw, clean

    def _step(
        self, hop: Samples, passed: Samples, level: np.float32, answers: Mapping[str, Samples]
    ) -> tuple[Samples, Samples]:
        _shift(self._sound, hop)
        _shift(self._passed, passed)
        shares, baselines = self._shares, self._baselines
        shares[0] = shares[-1]
        shares[1:] = widen(answers["share"])
        baselines[0] = baselines[-1]
        baselines[1:] = answers["baseline"] * level
        kept: Samples = self._passed[: self._hop] - self._of_baseline @ baselines
        share: Samples = self._of_share @ shares
        clean: Samples = kept + share * (answers["estimate"] * level - kept)
        return self._sound[: self._hop], clean
