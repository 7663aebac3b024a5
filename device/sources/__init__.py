"""Where sound comes from: microphone, file, synthetic heart. One protocol, chosen by name.

file:PATH                              a WAV or FLAC recording
synthetic                              a synthetic heart
synthetic:rate=70,murmur=systolic      … with settings; a bare word is a murmur: synthetic:systolic
microphone                             the default microphone, through PyAudio
microphone:NAME                        the first whose name contains NAME
arecord, arecord:NAME                  the same through ALSA's arecord; or an ALSA name: arecord:hw:CARD=U1
"""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device.errors import BadInput
from device.sources.base import Block, Gap, Source

if TYPE_CHECKING:
    from device.sources.synthetic import HeartSettings

__all__ = [
    "KINDS",
    "LIVE",
    "Block",
    "Gap",
    "Source",
    "check_spec",
    "heart_settings",
    "is_live",
    "open_source",
]

KINDS = ("file", "synthetic", "microphone", "arecord")
LIVE = ("microphone", "arecord")
"""Kinds that hear what happens now, and may be unplugged."""


def is_live(spec: str) -> bool:
    """Whether a source of that name hears what happens now."""
    return spec.partition(":")[0] in LIVE


def check_spec(spec: str) -> tuple[str, str]:
    """(kind, what follows the colon) of a source's name. BadInput when it can name no source; nothing is
    opened."""
    kind, _, rest = spec.partition(":")
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, 1)
        remedy = f'Did you mean "{near[0]}"?' if near else "Use file:PATH, synthetic, microphone or arecord."
        raise BadInput(f"source {spec}: no such kind of source. {remedy}")
    if kind == "file" and not rest:
        raise BadInput(f"source {spec}: names no file. Use file:PATH.")
    if kind == "synthetic":
        heart_settings(rest)
    return kind, rest


def heart_settings(text: str) -> HeartSettings:
    """`rate=70,murmur=systolic` → settings of a synthetic heart. Raises BadInput naming the key."""
    from device.sources.synthetic import MURMURS, HeartSettings

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


def open_source(spec: str, *, pace: str = "real", rate_hz: int = 0, channel: str = "left") -> Source:
    """The source of that name, not yet started.

    `pace`: "real" or "fast" (files and synthetic hearts as fast as they are read). `rate_hz`: of a
    microphone; 0: the first that it offers; `channel`: left or right, of one that has two. Raises BadInput
    for a name or a file that cannot be used.
    """
    kind, rest = check_spec(spec)
    if kind == "file":
        from device.sources.files import read_sound
        from device.sources.replay import Replay

        return Replay(read_sound(Path(rest).expanduser()), pace=pace)
    if kind == "synthetic":
        from device.sources.synthetic import SyntheticSource

        return SyntheticSource(heart_settings(rest), pace=pace)
    if kind == "arecord":
        from device.sources.arecord import Arecord

        return Arecord(rest, rate_hz=rate_hz, channel=channel)
    from device.sources.microphone import Microphone

    return Microphone(rest, rate_hz=rate_hz, channel=channel)
