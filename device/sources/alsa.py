"""What ALSA says of its cards: names, and the parameters that a running stream really has.

Read from /proc/asound, which needs no library; there is none of it on a machine without sound hardware.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ASOUND", "Card", "HwParams", "capturing", "cards", "parse_setup"]

ASOUND = Path("/proc/asound")

_CARD = re.compile(r"^\s*(\d+)\s*\[(\S+)\s*\]:\s*(.*?)\s+-\s+(.*)$")


@dataclass(frozen=True)
class Card:
    """A sound card. `id` stays the same over reboots; `number` does not."""

    number: int
    id: str
    driver: str
    name: str

    def matches(self, part: str) -> bool:
        """Whether its id or name contains `part`, capitals or not."""
        return part.casefold() in self.id.casefold() or part.casefold() in self.name.casefold()


@dataclass(frozen=True)
class HwParams:
    """What a stream of a card has been set to."""

    card: int | None
    format: str
    channels: int
    rate_hz: int
    bits: int | None = None
    """Of a sample that carry sound, where the driver says so."""

    def __str__(self) -> str:
        bits = f", {self.bits} bits of it sound" if self.bits is not None else ""
        return f"{self.format}{bits}, {self.channels} channels, {self.rate_hz} Hz"


def cards(root: Path = ASOUND) -> list[Card]:
    """The cards that are there now; none where ALSA has none."""
    try:
        lines = (root / "cards").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    found = (_CARD.match(line) for line in lines)
    return [Card(int(m[1]), m[2], m[3], m[4].strip()) for m in found if m]


def parse_setup(text: str, card: int | None = None) -> HwParams | None:
    """From `key: value` lines, as /proc/asound/…/hw_params and `arecord -v` write them; None while closed."""
    pairs = (line.partition(":") for line in text.splitlines())
    values = {key.strip(): value.strip() for key, colon, value in pairs if colon}
    try:
        bits = int(values["msbits"]) if "msbits" in values else None
        return HwParams(card, values["format"], int(values["channels"]), int(values["rate"].split()[0]), bits)
    except (KeyError, ValueError, IndexError):
        return None


def capturing(root: Path = ASOUND) -> list[HwParams]:
    """Of every stream that records from a card now."""
    found = []
    for path in sorted(root.glob("card[0-9]*/pcm*c/sub*/hw_params")):
        try:
            params = parse_setup(path.read_text("ascii", "replace"), int(path.parts[-4][4:]))
        except (OSError, ValueError):
            continue
        if params is not None:
            found.append(params)
    return found
