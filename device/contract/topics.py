"""Topics: who may say what where, and how large it may be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

from device.contract.chunks import Receipt
from device.contract.codec import BadMessage, decode
from device.contract.control import Answer, Command, Health, State
from device.contract.exam import Exam
from device.contract.live import LIVE, LiveEcg, LiveExam, LiveQuality, LiveWave, LiveWindow
from device.contract.vocabulary import ID, PREFIX, TRACK, UUID, is_path_safe

__all__ = ["read", "Topic", "parse_topic", "Address", "host_filters"]

T = TypeVar("T")


_KB, _MB = 1024, 1024 * 1024


_MOST_BYTES: dict[type, int] = {
    Exam: _MB,
    State: 4 * _KB,
    Receipt: 256 * _KB,
    LiveWave: 32 * _KB,
    LiveEcg: 32 * _KB,
    LiveQuality: 8 * _KB,
    LiveWindow: 8 * _KB,
    LiveExam: 8 * _KB,
    Health: 16 * _KB,
    Command: 32 * _KB,
    Answer: 8 * _KB,
}


def read(cls: type[T], payload: bytes) -> T:
    """A checked payload from the network's bytes: `read(Exam, message.payload)`. Raises BadMessage."""
    return decode(cls, payload, _MOST_BYTES[cls])


@dataclass(frozen=True)
class Topic:
    """A topic taken apart. `kind`: state, result, sound, receipt, live, health, command, answer."""

    fleet: str
    device: str
    kind: str
    exam: str | None = None
    site: str | None = None
    """Of a chunk; `AV.ecg` for the ECG beside it."""
    chunk: int | None = None
    live: str | None = None

    @property
    def address(self) -> Address:
        """Whose it is."""
        return Address(self.fleet, self.device)

    @property
    def payload_type(self) -> type | None:
        """The payload's class; None for a chunk of sound."""
        if self.kind == "live":
            return LIVE[self.live or ""]
        kinds = {
            "state": State,
            "result": Exam,
            "receipt": Receipt,
            "health": Health,
            "command": Command,
            "answer": Answer,
        }
        return kinds.get(self.kind)


_TOPIC = re.compile(
    rf"{PREFIX}/(?P<fleet>{ID})/(?P<device>{ID})/(?:"
    rf"(?P<kind>state|receipt|health|command|answer)"
    rf"|live/(?P<live>wave|ecg|quality|window|exam)"
    rf"|exam/(?P<result>{UUID})/result"
    rf"|exam/(?P<exam>{UUID})/sound/(?P<site>{TRACK})/(?P<chunk>0|[1-9][0-9]{{0,4}})"
    r")"
)


def parse_topic(topic: str) -> Topic:
    """Take a topic apart; BadMessage for one that is not of this contract. Its parts are path-safe."""
    found = _TOPIC.fullmatch(topic)
    if found is None:
        raise BadMessage(f"topic {topic!r:.120}: not of {PREFIX}")
    fleet, device = found["fleet"], found["device"]
    if found["kind"]:
        return Topic(fleet, device, found["kind"])
    if found["live"]:
        return Topic(fleet, device, "live", live=found["live"])
    if found["result"]:
        return Topic(fleet, device, "result", exam=found["result"])
    return Topic(fleet, device, "sound", exam=found["exam"], site=found["site"], chunk=int(found["chunk"]))


@dataclass(frozen=True)
class Address:
    """One device of one fleet: builds its topics. ValueError for ids that are no path-safe topic levels."""

    fleet: str
    device: str

    def __post_init__(self) -> None:
        for name, value in (("fleet", self.fleet), ("device", self.device)):
            if not is_path_safe(value):
                raise ValueError(f"{name} {value!r}: use up to 64 letters, digits, - _ ., no dot first")

    @property
    def root(self) -> str:
        """What all topics of this device begin with."""
        return f"{PREFIX}/{self.fleet}/{self.device}"

    @property
    def state(self) -> str:
        """Topic of who and how it is, retained; also of its will."""
        return f"{self.root}/state"

    @property
    def receipt(self) -> str:
        """Topic of what the host has of an exam."""
        return f"{self.root}/receipt"

    @property
    def health(self) -> str:
        """Topic of its counters."""
        return f"{self.root}/health"

    @property
    def command(self) -> str:
        """Topic of what it is asked to do."""
        return f"{self.root}/command"

    @property
    def answer(self) -> str:
        """Topic of what it answers to a command."""
        return f"{self.root}/answer"

    def live(self, name: str) -> str:
        """`name`: wave, ecg, quality, window or exam."""
        if name not in LIVE:
            raise ValueError(f"live/{name}: none of {', '.join(LIVE)}")
        return f"{self.root}/live/{name}"

    def result(self, exam: str) -> str:
        """Topic of an exam's result."""
        return f"{self.root}/exam/{exam}/result"

    def sound(self, exam: str, site: str, chunk: int) -> str:
        """Topic of one chunk of a site's sound."""
        return f"{self.root}/exam/{exam}/sound/{site}/{chunk}"


def host_filters(fleet: str = "+") -> list[tuple[str, int]]:
    """What ingest and dashboard subscribe to: (topic filter, QoS)."""
    root = f"{PREFIX}/{fleet}/+"
    return [
        (f"{root}/state", 1),
        (f"{root}/exam/+/result", 1),
        (f"{root}/exam/+/sound/+/+", 1),
        (f"{root}/answer", 1),
        (f"{root}/health", 0),
        (f"{root}/live/+", 0),
    ]
