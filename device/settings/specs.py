"""How a source is named in settings and on the command line; nothing is opened here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import inf
from typing import Any

from device.errors import BadInput
from device.rates import check_rate

__all__ = [
    "KINDS",
    "LIVE",
    "is_live",
    "check_spec",
    "heart_settings",
    "ECG_KINDS",
    "SyntheticLead",
    "check_ecg_spec",
    "parse_bus",
    "MURMURS",
    "NOISES",
    "HeartSettings",
]


LIVE = {"microphone": "Microphone", "arecord": "Arecord"}
"""Kinds that hear what happens now, and may be unplugged → their class in the module device.sources.KIND,
made with `(name, rate_hz=…, channel=…)`. A new one is a line here and that module."""

KINDS = ("file", "synthetic", *LIVE)


def is_live(spec: str) -> bool:
    """Whether a source of that name hears what happens now."""
    return spec.partition(":")[0] in LIVE


def check_spec(spec: str) -> tuple[str, str]:
    """(kind, what follows the colon) of a source's name. BadInput when it can name no source; nothing is
    opened.
    """
    kind, _, rest = spec.partition(":")
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, 1)
        all_kinds = ", ".join(("file:PATH", *KINDS[1:-1]))
        remedy = f'Did you mean "{near[0]}"?' if near else f"Use {all_kinds} or {KINDS[-1]}."
        raise BadInput(f"source {spec}: no such kind of source. {remedy}")
    if kind == "file" and not rest:
        raise BadInput(f"source {spec}: names no file. Use file:PATH.")
    if kind == "synthetic":
        heart_settings(rest)
    return kind, rest


def heart_settings(text: str) -> HeartSettings:
    """`rate=70,murmur=systolic` → settings of a synthetic heart. Raises BadInput naming the key."""
    known = {field.name: field for field in fields(HeartSettings)}
    values: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals and name in MURMURS:
            name, value = "murmur", name
        elif not equals:
            raise BadInput(f"synthetic: {item}: not a key=value. Keys: {', '.join(known)}.")
        if name not in known:
            near = get_close_matches(name, known, 1)
            remedy = f'Did you mean "{near[0]}"?' if near else f"Keys: {', '.join(known)}."
            raise BadInput(f"synthetic: {name}: no such key. {remedy}")
        default: Any = known[name].default
        try:
            values[name] = type(default)(value)
        except ValueError:
            kind = "a whole number" if isinstance(default, int) else "a number"
            raise BadInput(f"synthetic: {name}={value}: must be {kind}") from None
    return HeartSettings(**values)


ECG_KINDS = ("none", "mcp3008", "ads1115", "file", "synthetic")


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


def check_ecg_spec(spec: str) -> tuple[str, str]:
    """(kind, what follows the colon). BadInput when it can name no lead; nothing is opened."""
    kind, _, rest = spec.partition(":")
    if kind not in ECG_KINDS:
        near = get_close_matches(kind, ECG_KINDS, 1)
        remedy = (
            f'Did you mean "{near[0]}"?' if near else f"Use {', '.join(ECG_KINDS[:-1])} or {ECG_KINDS[-1]}."
        )
        raise BadInput(f"ecg {spec}: no such kind of lead. {remedy}")
    if kind == "file" and not rest:
        raise BadInput(f"ecg {spec}: names no file. Use file:PATH.")
    if kind == "synthetic":
        lead_settings(rest)
    elif kind in ("mcp3008", "ads1115"):
        parse_bus(kind, rest)
    return kind, rest


def lead_settings(text: str) -> SyntheticLead:
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


def _number(text: str) -> int:
    return int(text, 0)


def parse_bus(kind: str, text: str) -> tuple[int, int]:
    """(bus, device or address) of `mcp3008:0.1` or `ads1115:1.0x48`. BadInput when it is none."""
    usual = (0, 0) if kind == "mcp3008" else (1, 0x48)
    if not text:
        return usual
    bus, _, rest = text.partition(".")
    try:
        found = _number(bus), _number(rest) if rest else usual[1]
    except ValueError:
        found = (-1, -1)
    allowed = (0, 1) if kind == "mcp3008" else tuple(range(0x48, 0x4C))
    if found[0] < 0 or found[1] not in allowed:
        what = "BUS.DEVICE, device 0 or 1" if kind == "mcp3008" else "BUS.ADDRESS, address 0x48 to 0x4b"
        raise BadInput(f"ecg {kind}:{text}: not {what}; for example {kind}:{usual[0]}.{usual[1]:#x}")
    return found


MURMURS = ("none", "systolic", "diastolic")


NOISES = ("white", "hum", "breath", "rub")


@dataclass(frozen=True)
class HeartSettings:
    """What a synthetic heart does; the keys of `synthetic:key=value,…`."""

    rate: float = 70.0
    """Heart rate in beats a minute, 30 to 220."""
    murmur: str = "none"
    """none, systolic or diastolic."""
    grade: int = 3
    """Loudness of the murmur, 1 (hardly to be heard) to 6 (as loud as the beats): 6 dB a grade."""
    noise: str = "white"
    """white, hum (mains, 50 Hz), breath or rub."""
    noise_db: float = 30.0
    """How far the noise lies under the heart sound, in dB by rms; inf: none."""
    level: float = 0.3
    """Peak of the heart sound, share of full scale."""
    seconds: float = inf
    """When the sound ends."""
    seed: int = 1
    rate_hz: int = 2000
    """Samples a second, 2000 to 192000."""
    gone_after_s: float = inf
    """When the source unplugs itself."""
    gone_times: int = 1
    """How often it does so: each time so long after it came back."""
    gone_for_s: float = 0.0
    """How long it cannot be started again after that."""
    freeze_after_s: float = inf
    """From when on it lives but gives nothing, until it is started again: the silent stop."""

    def __post_init__(self) -> None:
        _within("rate", self.rate, 30, 220)
        _within("grade", self.grade, 1, 6)
        _within("level", self.level, 0.0, 1.0)
        _within("seed", self.seed, 0, 2**31)
        _within("gone_times", self.gone_times, 0, 1_000_000)
        for name, value, known in (("murmur", self.murmur, MURMURS), ("noise", self.noise, NOISES)):
            if value not in known:
                raise BadInput(f"synthetic: {name}={value}: not one of {', '.join(known)}")
        for name in ("seconds", "gone_after_s", "gone_for_s", "freeze_after_s"):
            if not getattr(self, name) >= 0:
                raise BadInput(f"synthetic: {name}={getattr(self, name):g}: must not be below 0")
        check_rate(self.rate_hz, "synthetic: rate_hz")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise BadInput(f"synthetic: {name}={value:g}: not from {low:g} to {high:g}")
