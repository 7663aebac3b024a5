"""Where the ECG comes from: a converter behind an AD8232, a recording, a heart that is not there.

none                                       no lead
mcp3008, mcp3008:BUS.DEVICE                MCP3008 by SPI (default 0.0)
ads1115, ads1115:BUS.ADDRESS               ADS1115 by I2C (default 1.0x48)
file:PATH                                  a WFDB record, a WAV or FLAC (±1 is ±5 mV), a CSV
synthetic, synthetic:rate=70,off_after_s=5 made from a seed; beats with the synthetic heart of that rate and
seed
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from device.errors import BadInput
from device.sources.base import Block
from device.sources.replay import Pacer

if TYPE_CHECKING:
    from device.settings import EcgSettings
    from device.sources.ecg_files import Ecg

__all__ = [
    "KINDS",
    "EcgBlock",
    "EcgReplay",
    "EcgSource",
    "SyntheticEcg",
    "SyntheticLead",
    "check_ecg_spec",
    "open_ecg",
]

KINDS = ("none", "mcp3008", "ads1115", "file", "synthetic")

_BLOCK_S = 0.025


@dataclass(frozen=True)
class EcgBlock(Block):
    """Samples in mV, float32 (n,); not a number where the converter gave none. `monotonic_s` is when the
    last
    of them was taken."""

    off: np.ndarray | None = None
    """bool (n,): the amplifier says that an electrode is off; None where it is not asked."""


class EcgSource(Protocol):
    """As device.sources.base.Source, for one lead."""

    rate_hz: int
    name: str
    rails_mv: tuple[float, float] | None
    """The ends of its range: an electrode that is off drives it there."""
    played: bool
    """A recording: its first sample belongs to the first one of the sound."""

    def start(self) -> None:
        """Begin. Raises StethopiError when it cannot, with the remedy."""

    def read(self) -> EcgBlock | None:
        """The next block; None when it has ended. Raises SourceGone when it vanished."""

    def stop(self) -> None:
        """End. Safe to call twice, and from another thread."""


class _Played(ABC):
    """What recording and synthetic lead share: samples by index, in time or as fast as they are read."""

    played = True

    def __init__(self, rate_hz: int, pace: str, monotonic: Callable[[], float]) -> None:
        self.rate_hz = rate_hz
        self._pacer = Pacer(rate_hz, pace, monotonic)
        self._index = 0
        self._zero_s: float | None = None
        self._stopped = threading.Event()

    def begin_at(self, monotonic_s: float) -> None:
        """Sample 0 belongs to this instant."""
        self._zero_s = monotonic_s

    def start(self) -> None:
        self._pacer.begin(self._index)
        if self._zero_s is not None:
            self._pacer.begin_at(self._zero_s)
        self._stopped.clear()

    def read(self) -> EcgBlock | None:
        size = max(round(_BLOCK_S * self.rate_hz), 1)
        end = min(self._index + size, self._end())
        if end <= self._index or not self._pacer.wait(end - 1, self._stopped):
            return None
        start, self._index = self._index, end
        x, off = self._samples(start, end)
        return EcgBlock(x, start, self._pacer.monotonic(), off=off)

    def stop(self) -> None:
        self._stopped.set()

    @abstractmethod
    def _end(self) -> int:
        """Samples that there are."""

    @abstractmethod
    def _samples(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Those from `start` to `end`, as in EcgBlock: what was measured, and where an electrode was off."""


class EcgReplay(_Played):
    """The first lead of a recording. What is not known in the file is not a number here."""

    def __init__(
        self, ecg: Ecg, *, pace: str = "real", monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(ecg.rate_hz, pace, monotonic)
        lead = next(lead for lead in ecg.leads if lead.voltage)
        named = f", lead {lead.name}" if len(ecg.leads) > 1 else ""
        self.name = f"{ecg.path.name if ecg.path else 'recording'}{named}"
        self.notes = list(ecg.notes)
        self.rails_mv = lead.rails_mv
        self._x = np.array(lead.samples, np.float32)
        for gap in lead.gaps:
            self._x[gap.start : gap.end] = np.nan

    def _end(self) -> int:
        return len(self._x)

    def _samples(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray | None]:
        return self._x[start:end], None


@dataclass(frozen=True)
class SyntheticLead:
    """What a synthetic lead does; the keys of `synthetic:key=value,…`."""

    rate: float = 70.0
    """Heart rate in beats a minute, 30 to 220."""
    seed: int = 1
    level_mv: float = 1.0
    """Height of the R peak."""
    noise_mv: float = 0.02
    """Noise, root mean square."""
    wander_mv: float = 0.15
    """Baseline that wanders with the breath."""
    off_after_s: float = inf
    """When an electrode comes off."""
    off_for_s: float = inf
    """How long it is off."""
    seconds: float = inf
    """When the lead ends."""
    rate_hz: int = 360

    def __post_init__(self) -> None:
        for name, low, high in (("rate", 30, 220), ("rate_hz", 100, 1000), ("seed", 0, 2**31)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise BadInput(f"synthetic: {name}={value:g}: not from {low} to {high}")


_R_BEFORE_S1_S = 0.04
"""From the R peak to the onset of S1, about: the mitral valve closes when the pressure has risen."""

# (mV at an R peak of 1, seconds from the R peak, width in s) of P, Q, R, S, T
_WAVES = (
    (0.12, -0.16, 0.022),
    (-0.12, -0.022, 0.008),
    (1.0, 0.0, 0.011),
    (-0.22, 0.026, 0.010),
    (0.28, 0.24, 0.045),
)


class SyntheticEcg(_Played):
    """A lead that beats with the synthetic heart of the same rate and seed."""

    rails_mv: tuple[float, float] | None = (-5.0, 5.0)

    def __init__(
        self, settings: SyntheticLead, *, pace: str = "real", monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        from device.sources.synthetic import Heart, HeartSettings

        super().__init__(settings.rate_hz, pace, monotonic)
        self.settings = settings
        self.name = f"synthetic lead, {settings.rate:g}/min"
        self._heart = Heart(HeartSettings(rate=settings.rate, seed=settings.seed, level=0.0))

    def r_peaks_s(self, start_s: float, end_s: float) -> list[float]:
        """The truth."""
        beats = self._heart.beats(max(start_s, 0.0), end_s + 1.0)
        return [b.s1 - _R_BEFORE_S1_S for b in beats if start_s <= b.s1 - _R_BEFORE_S1_S < end_s]

    def _end(self) -> int:
        return round(min(self.settings.seconds * self.rate_hz, 2.0**52))

    def _samples(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray | None]:
        chosen = self.settings
        t = np.arange(start, end) / self.rate_hz
        y = np.zeros(len(t))
        for at in self.r_peaks_s(max(t[0] - 1.0, 0.0), t[-1] + 1.0):
            for height, after, width in _WAVES:
                y += chosen.level_mv * height * np.exp(-(((t - at - after) / width) ** 2) / 2)
        y += chosen.wander_mv * np.sin(2 * np.pi * 0.25 * t)
        noise = np.random.default_rng([chosen.seed, start]).standard_normal(len(t))
        y += chosen.noise_mv * noise
        off = (t >= chosen.off_after_s) & (t < chosen.off_after_s + chosen.off_for_s)
        return np.where(off, 5.0, y).astype(np.float32), off


# ---- by name


def check_ecg_spec(spec: str) -> tuple[str, str]:
    """(kind, what follows the colon). BadInput when it can name no lead; nothing is opened."""
    kind, _, rest = spec.partition(":")
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, 1)
        remedy = f'Did you mean "{near[0]}"?' if near else f"Use {', '.join(KINDS[:-1])} or {KINDS[-1]}."
        raise BadInput(f"ecg {spec}: no such kind of lead. {remedy}")
    if kind == "file" and not rest:
        raise BadInput(f"ecg {spec}: names no file. Use file:PATH.")
    if kind == "synthetic":
        _lead_settings(rest)
    elif kind in ("mcp3008", "ads1115"):
        from device.sources.ecg_adc import parse_bus

        parse_bus(kind, rest)
    return kind, rest


def _lead_settings(text: str) -> SyntheticLead:
    known = {each.name: each for each in fields(SyntheticLead)}
    values: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals or name not in known:
            near = get_close_matches(name, known, 1)
            remedy = f'Did you mean "{near[0]}"?' if near else f"Keys: {', '.join(known)}."
            raise BadInput(f"synthetic: {item}: no such key. {remedy}")
        default: Any = known[name].default
        try:
            values[name] = type(default)(value)
        except ValueError:
            raise BadInput(f"synthetic: {name}={value}: must be a number") from None
    return SyntheticLead(**values)


def open_ecg(settings: EcgSettings, *, pace: str = "real") -> EcgSource | None:
    """The lead that `[ecg]` asks for, not yet started; None for none. BadInput for a name or a file that
    cannot be used."""
    kind, rest = check_ecg_spec(settings.spec)
    if kind == "none":
        return None
    if kind == "file":
        from device.sources.ecg_files import read_ecg

        return EcgReplay(read_ecg(Path(rest).expanduser()), pace=pace)
    if kind == "synthetic":
        return SyntheticEcg(_lead_settings(rest), pace=pace)
    if pace == "fast":
        raise BadInput(
            f"[ecg] spec = {settings.spec}: a converter gives samples in real time only; "
            f'set [source] pace = "real"'
        )
    from device.sources.ecg_adc import AdcSource, converter

    return AdcSource(converter(kind, rest, settings), settings)
