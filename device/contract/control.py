"""State, health, commands and their answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from device.contract.codec import Many, OneOf, Real, Text, Whole
from device.contract.vocabulary import (
    ID,
    MONITORS,
    PRESETS,
    SCHEMA,
    Count,
    ExamId,
    Moment,
    Says,
    Schema,
    Seconds,
    Version,
)

__all__ = ["State", "Listen", "Listening", "Backlog", "Health", "Command", "Answer"]


@dataclass(frozen=True)
class State:
    """Who and how; retained. The last will is the same with online false and `why` connection lost."""

    online: bool
    software: Version
    bundle: Version | None
    why: Annotated[str, OneOf("running", "stopped", "connection lost")]
    boot_id: Annotated[str, Text(64)]
    source: Annotated[str, Text(200)] | None = None
    schema: Schema = SCHEMA


_Monitor = Annotated[str, OneOf(*MONITORS), "which sound is heard"]


_Preset = Annotated[str, OneOf(*PRESETS), "band that is let through"]


_Strength = Annotated[float, Real(0.0, 1.0), "of denoising; 0: raw, delayed to match"]


_Gain = Annotated[float, Real(-40.0, 40.0), "dB; the device's limiter stays"]


@dataclass(frozen=True)
class Listen:
    """What to hear from now on; null: as it is. Lasts until the device is started again."""

    monitor: _Monitor | None = None
    strength: _Strength | None = None
    preset: _Preset | None = None
    gain_db: _Gain | None = None


@dataclass(frozen=True)
class Listening:
    """What the device sends to the ear."""

    monitor: _Monitor
    strength: _Strength
    preset: _Preset
    gain_db: _Gain
    output: Annotated[str, OneOf("none", "device", "file"), "where it goes"]


@dataclass(frozen=True)
class Backlog:
    """What waits in the outbox."""

    exams: Count
    bytes: Count
    refused: Annotated[int, Whole(0, 2**53), "exams that the host will not take"]
    oldest_s: Seconds | None


@dataclass(frozen=True)
class Health:
    """Counters of the device; null is unknown."""

    now: Moment
    uptime_s: Annotated[float, Real(0.0, 1e12), "of the daemon"]
    source: Annotated[str, OneOf("running", "gone", "ended", "starting")]
    sample_age_s: Annotated[float, Real(0.0, 1e12), "since the last sample came"] | None
    samples: Annotated[int, Whole(0, 2**53), "working-rate samples since the start"]
    lost_samples: Annotated[int, Whole(0, 2**53), "samples that the source says it lost, at its own rate"]
    exams: Annotated[int, Whole(0, 2**53), "put in the outbox since the start"]
    backlog: Backlog
    partials: Annotated[int, Whole(0, 2**53), "recordings that a crash cut off, kept on the device"]
    disk_free_bytes: Count | None
    memory_bytes: Annotated[int, Whole(0, 2**53), "resident"] | None
    temperature_c: Annotated[float, Real(-100.0, 200.0)] | None
    battery: Annotated[float, Real(0.0, 1.0), "charge"] | None
    shed: Annotated[str, OneOf("nothing", "waveform", "classification", "denoising"), "left out now"]
    missed: Annotated[dict[str, Count], Many(40, keys=r"[a-z_ ]{1,40}"), "missed budgets by stage"]
    dropped: Annotated[dict[str, Count], Many(40, keys=r"[a-z_ ]{1,40}"), "what queues left out, by name"]
    listening: Listening | None = None
    trouble: (
        Annotated[str, Text(300), "why no exam can be kept now: no room, or a disk that fails"] | None
    ) = None
    schema: Schema = SCHEMA


@dataclass(frozen=True)
class Command:
    """A wish of the host. Names that devices know: start (args site or sites `AV,MV`, subject), next, stop,
    status, subject (arg code: whose the next exam is, empty to take it back), listen (what to hear is in
    `listen`).
    """

    id: Annotated[str, Text(64, ID)]
    name: Annotated[str, Text(32, r"[a-z][a-z_]*")]
    expires_s: Annotated[float, Real(0.0, 1e11), "seconds since 1970 UTC after which it must not be obeyed"]
    args: Annotated[dict[str, Annotated[str, Text(1000)]], Many(20, keys=r"[a-z_]{1,32}")] = field(
        default_factory=dict
    )
    schema: Schema = SCHEMA
    listen: Listen | None = None

    def problem(self) -> str | None:
        """What fields say against each other; None when they agree."""
        if (self.name == "listen") != (self.listen is not None):
            return "listen: belongs to the command listen, and to no other"
        return None


@dataclass(frozen=True)
class Answer:
    """What came of a command."""

    command: Annotated[str, Text(64, ID), "id of the command"]
    name: Annotated[str, Text(32)]
    ok: bool
    says: Says
    exam: ExamId | None = None
    schema: Schema = SCHEMA
    listening: Annotated[Listening, "after the command listen"] | None = None
