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
from device.denoise.front_end import FrontEnd
from device.errors import StethopiError
from device.rates import HOP

__all__ = ["MaskBlend", "Mask", "Shares", "mask_of", "widen"]


class Mask(Protocol):
    """A form of the answer. `outputs`: names of the net's outputs that it reads."""

    outputs: tuple[str, ...]

    def reset(self) -> None: ...
    def step(self, hop: Samples, heard: FrontEnd, answers: Mapping[str, Samples]) -> tuple[Samples, Samples]:
        """The newest hop and the net's answers (float32, flat) → the finished hop as it came, and cleaned."""
        ...

    def snapshot(self) -> dict[str, Any]: ...
    def restore(self, kept: Mapping[str, Any]) -> None: ...


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
    reached."""
    return (shares * 1.04 - 0.02).clip(0.0, 1.0)


def _shift(history: Samples, hop: Samples) -> None:
    history[: -len(hop)] = history[len(hop) :]
    history[-len(hop) :] = hop


class Shares:
    """frame that ends here ── analysis ── times shares of the bands ── synthesis ── taken from the sound;
    finished hop ── less the share in time."""

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
        self._sound = np.zeros(self._analysis.shape[1], dtype=np.float32)
        self._removed = np.zeros(self._synthesis.shape[0], dtype=np.float32)
        self._last_point = np.float32(0.0)

    def snapshot(self) -> dict[str, Any]:
        return {
            "sound": self._sound.copy(),
            "removed": self._removed.copy(),
            "last_point": self._last_point,
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        self._sound, self._removed = kept["sound"].copy(), kept["removed"].copy()
        self._last_point = kept["last_point"]

    def step(self, hop: Samples, heard: FrontEnd, answers: Mapping[str, Samples]) -> tuple[Samples, Samples]:
        shares = widen(answers["shares"])
        sound = self._sound
        _shift(sound, hop)
        found = (self._analysis @ sound) * (self._spread @ shares[: self._bands])
        removed = self._removed
        removed[:-HOP] = removed[HOP:]
        removed[-HOP:] = 0.0
        removed += self._synthesis @ found
        points = self._points
        points[0] = self._last_point
        points[1:] = shares[self._bands :]
        self._last_point = points[-1]
        raw = sound[-self._look_ahead - HOP : -self._look_ahead]
        clean = (raw - removed[:HOP]) * (np.float32(1.0) - self._interpolation @ points)
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
        self._sound = np.zeros(self._look_ahead + self._hop, dtype=np.float32)
        self._passed = np.zeros(self._look_ahead + self._hop, dtype=np.float32)
        self._shares = np.zeros(self._of_share.shape[1], dtype=np.float32)
        self._baselines = np.zeros(self._of_baseline.shape[1], dtype=np.float32)

    def snapshot(self) -> dict[str, Any]:
        return {
            "sound": self._sound.copy(),
            "passed": self._passed.copy(),
            "shares": self._shares.copy(),
            "baselines": self._baselines.copy(),
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        self._sound, self._passed = kept["sound"].copy(), kept["passed"].copy()
        self._shares, self._baselines = kept["shares"].copy(), kept["baselines"].copy()

    def step(self, hop: Samples, heard: FrontEnd, answers: Mapping[str, Samples]) -> tuple[Samples, Samples]:
        _shift(self._sound, hop)
        _shift(self._passed, heard.passed)
        level = np.float32(heard.level)
        shares, baselines = self._shares, self._baselines
        shares[0] = shares[-1]
        shares[1:] = widen(answers["share"])
        baselines[0] = baselines[-1]
        baselines[1:] = answers["baseline"] * level
        kept: Samples = self._passed[: self._hop] - self._of_baseline @ baselines
        share: Samples = self._of_share @ shares
        clean: Samples = kept + share * (answers["estimate"] * level - kept)
        return self._sound[: self._hop].copy(), clean
