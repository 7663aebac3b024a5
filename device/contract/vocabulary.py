"""The words, bounds and small types that all messages share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from device.contract.codec import Many, OneOf, Real, Text, Whole

__all__ = [
    "SCHEMA",
    "PREFIX",
    "CHUNK_SIZE",
    "SITES",
    "LABELS",
    "MONITORS",
    "PRESETS",
    "LEAD_WORDS",
    "ECG_FULL_SCALE_MV",
    "CLOCK_TRUST",
    "is_path_safe",
    "is_subject_code",
    "ecg_name",
    "is_ecg",
    "site_code",
    "Moment",
    "chunk_count",
    "chunk_span",
]


SCHEMA = 1
"""Version of every payload. A receiver ignores fields that it does not know; anything else is a new
version."""


PREFIX = "stethopi/1"


CHUNK_SIZE = 64 * 1024
"""Bytes in one chunk of sound, unless the result says otherwise."""


SITES = ("AV", "PV", "TV", "MV", "other")
"""Auscultation sites: aortic, pulmonary, tricuspid, mitral, any other."""


LABELS = ("normal", "abnormal", "unsure")


MONITORS = ("raw", "clean")


PRESETS = ("none", "bell", "diaphragm", "extended")


LEAD_WORDS = ("on", "lead off", "flat line", "no numbers", "samples lost", "gone", "unknown")
"""How the ECG's lead is: believed; why it is not; its converter cannot be reached; nothing came yet."""


ECG_FULL_SCALE_MV = 5.0
"""±1 of full scale in an ECG's file, 32767 in a live message."""


CLOCK_TRUST = ("none", "set", "synchronised")
"""What wall time is worth: nothing is known; set by hand, RTC or a former run; kept by a time server."""


ID = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"


UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


_SITE = r"(AV|PV|TV|MV|other)(-[2-9])?"


TRACK = _SITE + r"(\.ecg)?"


SHA256 = r"[0-9a-f]{64}"


FILE = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"


SUBJECT = r"[A-Za-z0-9][A-Za-z0-9-]{0,31}"


MOST_CHUNKS = 65536


MOST_SITES = 16


MOST_SOUND = 64 * 1024 * 1024


Id = Annotated[str, Text(64, ID)]


ExamId = Annotated[str, Text(36, UUID), "UUID of the exam"]


SiteName = Annotated[str, Text(7, _SITE), "AV, PV, TV, MV, other; `-2` and so on when recorded again"]


Sha256 = Annotated[str, Text(64, SHA256)]


Version = Annotated[str, Text(64)]


Says = Annotated[str, Text(300)]


Share = Annotated[float, Real(0.0, 1.0)]


Probability = Annotated[float, Real(0.0, 1.0), "of abnormal; null where the network was not asked"]


Murmur = Annotated[float, Real(0.0, 1.0), "probability that a murmur is heard"]


Index = Annotated[int, Whole(0, 2**53)]


Count = Annotated[int, Whole(0, 2**53)]


Seconds = Annotated[float, Real(0.0, 1e12)]


Ms = Annotated[float, Real(0.0, 1e9)]


Rate = Annotated[float, Real(10.0, 400.0), "heart rate in beats a minute; null when none could be told"]


Reasons = Annotated[tuple[Annotated[str, Text(80)], ...], Many(20), "plain words why not better"]


Spans = Annotated[tuple[tuple[Index, Index], ...], Many(1000), "[first, past the last] sample of each"]


Schema = Annotated[int, Whole(SCHEMA, SCHEMA), "version of this payload"]


def is_path_safe(name: str) -> bool:
    """Whether an id of fleet or device may be used as a topic level and as a file name."""
    return re.fullmatch(ID, name) is not None


def is_subject_code(text: str) -> bool:
    """Whether a pseudonymous code may stand in an exam."""
    return re.fullmatch(SUBJECT, text) is not None


def ecg_name(site: str) -> str:
    """What stands for the ECG of a site in topics, receipts and files: `AV.ecg`."""
    return f"{site}.ecg"


def is_ecg(name: str) -> bool:
    """Whether a name is that of a site's ECG."""
    return name.endswith(".ecg")


def site_code(site: str) -> str:
    """The bare code of a site: `AV-2` → `AV`."""
    return site.split("-")[0]


@dataclass(frozen=True)
class Moment:
    """One instant by the device's clocks. Order and distance come from (boot_id, monotonic_s)."""

    boot_id: Annotated[str, Text(64)]
    monotonic_s: Seconds
    wall_s: Annotated[float, Real(-1e11, 1e11), "seconds since 1970 UTC as the device believed"]
    clock_trust: Annotated[str, OneOf(*CLOCK_TRUST)]


def chunk_count(size: int, chunk_size: int = CHUNK_SIZE) -> int:
    """Chunks that `size` bytes make."""
    return -(-size // chunk_size)


def chunk_span(n: int, size: int, chunk_size: int = CHUNK_SIZE) -> tuple[int, int]:
    """(first byte, past the last) of chunk `n`; ValueError when there is no such chunk."""
    if not 0 <= n < chunk_count(size, chunk_size):
        raise ValueError(f"chunk {n} of {chunk_count(size, chunk_size)}")
    return n * chunk_size, min(size, (n + 1) * chunk_size)
