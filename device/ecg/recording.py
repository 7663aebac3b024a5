"""What an ECG recording is, whatever file it came from."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from device.arrays import Flags, Samples
from device.errors import BadInput
from device.spans import Gap

__all__ = [
    "FULL_SCALE_MV",
    "HIGHEST_RATE_HZ",
    "LOWEST_RATE_HZ",
    "Ecg",
    "Lead",
    "checked_rate",
    "is_other_signal",
    "many",
    "mv_of",
    "spans",
]

FULL_SCALE_MV = 5.0
"""What ±1 of full scale means in WAV and FLAC."""

LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 100, 1000

_MV_OF = {
    "nv": 1e-6,
    "nanovolt": 1e-6,
    "uv": 1e-3,
    "uvolt": 1e-3,
    "microvolt": 1e-3,
    "mv": 1.0,
    "mvolt": 1.0,
    "millivolt": 1.0,
    "v": 1e3,
    "volt": 1e3,
}

_OTHER_SIGNAL = re.compile(
    r"(^|[^a-z])(pleth\w*|ppg|resp\w*|breath\w*|airflow|flow|abp|art|bp|nibp|cvp|pap|icp|co2|etco2|"
    r"s[pa]o2|o2|eeg|eog|emg|gsr|eda|temp\w*|acc\w*|gyro\w*|mag[xyz]?|pcg|phono\w*|snore|pulse|hr|rr|ibi)"
    r"($|[^a-z])",
    re.IGNORECASE,
)


def mv_of(unit: str) -> float | None:
    """mV of one unit; None for what is no voltage. Both Greek letters, and u, are micro."""
    plain = unicodedata.normalize("NFKC", unit.strip()).replace("\u03bc", "u").casefold()
    plain = plain.replace("\u03bc", "u")
    return _MV_OF.get(plain.removesuffix("s"))


def is_other_signal(name: str) -> bool:
    """Whether a signal's name says that it is no ECG: a pulse wave, breathing, a pressure, a brain wave."""
    return _OTHER_SIGNAL.search(name.replace("_", " ")) is not None


@dataclass(frozen=True)
class Lead:
    """One lead."""

    name: str
    samples: Samples
    """float32 (n,), mV; 0 inside gaps."""
    gaps: list[Gap] = field(default_factory=list)
    """Samples that are not known."""
    rails_mv: tuple[float, float] | None = None
    """The lowest and the highest voltage that the recorder could tell; None where that is not known."""
    step_mv: float = 0.0
    """One step of the recorder; 0: not known."""
    voltage: bool = True
    """False for what is no ECG (pressure, breathing): it is handed on as it is."""


@dataclass(frozen=True)
class Ecg:
    """A recording with one or more leads of one length and rate."""

    leads: list[Lead]
    rate_hz: int
    kind: str
    """WFDB, WAV, FLAC, CSV or EDF."""
    notes: list[str] = field(default_factory=list)
    """What a person should be told, in sentences fit for stderr."""
    path: Path | None = None
    form: Any = None
    """What the writer needs to keep the kind."""

    @property
    def samples(self) -> int:
        """Of each lead."""
        return len(self.leads[0].samples) if self.leads else 0

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.samples / self.rate_hz


def checked_rate(path: Path, rate_hz: float) -> int:
    """A rate as a whole number of Hz. BadInput where it is none, or none of an ECG."""
    whole = round(rate_hz)
    if not LOWEST_RATE_HZ <= whole <= HIGHEST_RATE_HZ:
        raise BadInput(
            f"{path}: its rate of {rate_hz:g} Hz is not from {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz; "
            f"resample it, or correct the rate that the file names"
        )
    if abs(rate_hz - whole) > 0.005 * whole:
        raise BadInput(f"{path}: its rate of {rate_hz:g} Hz is no whole number; resample it to 250 or 360 Hz")
    return whole


def spans(bad: Flags) -> list[Gap]:
    """Where a bool (n,) is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]])))
    return [Gap(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def many(bad: Flags) -> str:
    """`3 samples in 2 places`, of a bool (n,)."""
    places = len(spans(bad))
    count = int(bad.sum())
    return f"{count} sample{'s' * (count != 1)} in {places} place{'s' * (places != 1)}"
