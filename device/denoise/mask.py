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

from device.arrays import AnyArray, Samples
from device.denoise.front_end import Heard
from device.errors import StethopiError
from device.rates import HOP

__all__ = ["MaskBlend", "Mask", "Shares", "mask_of", "widen"]


class Mask(Protocol):
    """A form of the answer. `outputs`: names of the net's outputs that it reads."""

    outputs: tuple[str, ...]

    def reset(self) -> None:
        """As before the first sample."""

    def process(self, heard: Heard, answers: Mapping[str, AnyArray]) -> tuple[Samples, Samples]:
        """The newest k hops and the net's answers to them, float32 (k, n) → the finished hops, float32
        (k, hop), as they came, and cleaned.
        """
        ...

    def snapshot(self) -> dict[str, Any]:
        """All that the next hop depends on, copied."""
        ...

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on from a snapshot."""


def mask_of(meta: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> Mask:
    """The form that a model's entry in the bundle names; the heart sound's where it names none."""
    kind = meta.get("form", {"kind": "shares"})["kind"]
    if kind == "shares":
        return Shares(arrays, int(meta["look_ahead"]))
    if kind == "blend":
        return MaskBlend(arrays, int(meta["hop"]), int(meta["look_ahead"]))
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
    """

    outputs: tuple[str, ...] = ("shares",)

    def __init__(self, arrays: Mapping[str, AnyArray], look_ahead: int) -> None:
        self._analysis, self._synthesis, self._spread, self._interpolation = (
            np.ascontiguousarray(arrays[k], dtype=np.float32)
            for k in ("analysis", "synthesis", "spread", "interpolation")
        )
        self._bands = self._spread.shape[1]
        self._look_ahead = look_ahead
        self._points = np.zeros(self._interpolation.shape[1], dtype=np.float32)
        self.reset()

    def reset(self) -> None:
        """As before the first sample."""
        self._sound = np.zeros(self._analysis.shape[1], dtype=np.float32)
        self._removed = np.zeros(self._synthesis.shape[0], dtype=np.float32)
        self._last_point = np.float32(0.0)

    def snapshot(self) -> dict[str, Any]:
        """All that the next hop depends on, copied."""
        return {
            "sound": self._sound.copy(),
            "removed": self._removed.copy(),
            "last_point": self._last_point,
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on from a snapshot."""
        self._sound, self._removed = kept["sound"].copy(), kept["removed"].copy()
        self._last_point = kept["last_point"]

    def process(self, heard: Heard, answers: Mapping[str, AnyArray]) -> tuple[Samples, Samples]:
        """What is finished with these hops: raw and clean, float32 (k, hop) each."""
        raw, clean = np.empty_like(heard.hops), np.empty_like(heard.hops)
        sound, removed, points = self._sound, self._removed, self._points
        for k, shares in enumerate(widen(answers["shares"])):
            _shift(sound, heard.hops[k])
            found = (self._analysis @ sound) * (self._spread @ shares[: self._bands])
            removed[:-HOP] = removed[HOP:]
            removed[-HOP:] = 0.0
            removed += self._synthesis @ found
            points[0] = self._last_point
            points[1:] = shares[self._bands :]
            self._last_point = points[-1]
            raw[k] = sound[-self._look_ahead - HOP : -self._look_ahead]
            clean[k] = (raw[k] - removed[:HOP]) * (np.float32(1.0) - self._interpolation @ points)
        return raw, clean


class MaskBlend:
    """clean = (1 - share) * (high-passed - level * baseline) + share * level * estimate.

    `baseline` (1 a hop) and `share` (a few a hop) are joined by straight lines, `estimate` has a value a
    sample; baseline and estimate are in levels. So the estimate's quantisation is heard only as far as the
    net distrusts the signal.
    """

    outputs: tuple[str, ...] = ("estimate", "share", "baseline")

    def __init__(self, arrays: Mapping[str, AnyArray], hop: int, look_ahead: int) -> None:
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

    def process(self, heard: Heard, answers: Mapping[str, AnyArray]) -> tuple[Samples, Samples]:
        """What is finished with these hops: raw and clean, float32 (k, hop) each."""
        raw, clean = np.empty_like(heard.hops), np.empty_like(heard.hops)
        shares, baselines = self._shares, self._baselines
        new_shares = widen(answers["share"])
        for k, hop in enumerate(heard.hops):
            _shift(self._sound, hop)
            _shift(self._passed, heard.passed[k])
            level = np.float32(heard.levels[k])
            shares[0] = shares[-1]
            shares[1:] = new_shares[k]
            baselines[0] = baselines[-1]
            baselines[1:] = answers["baseline"][k] * level
            kept = self._passed[: self._hop] - self._of_baseline @ baselines
            share = self._of_share @ shares
            raw[k] = self._sound[: self._hop]
            clean[k] = kept + share * (answers["estimate"][k] * level - kept)
        return raw, clean
