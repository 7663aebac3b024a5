"""The wire contract between device and host, used by both: topics, payloads, chunks, receipts.

All topics lie under `stethopi/1/{fleet}/{device}/`:

| topic | payload | from | QoS |
|---|---|---|---|
| `state` (retained; also the last will) | `State` | device | 1 |
| `exam/{id}/result` | `Exam` | device | 1 |
| `exam/{id}/sound/{site}/{n}` | bare bytes of chunk n of that site's FLAC file | device | 1 |
| `exam/{id}/sound/{site}.ecg/{n}` | the same of the ECG that was heard beside it, if there is one | device
| 1 |
| `receipt` | `Receipt` | host | 1 |
| `live/wave`, `live/quality` | `LiveWave`, `LiveQuality` | device | 0 |
| `live/ecg` | `LiveEcg` | device | 0 |
| `live/window`, `live/exam` | `LiveWindow`, `LiveExam` | device | 0 |
| `health` | `Health` | device | 0 |
| `command` | `Command` | host | 1 |
| `answer` | `Answer` | device | 1 |

Delivery of one exam. The *hash of an exam* is the sha256 of the bytes of its `result` payload; these never
change once the exam is in the outbox, and they name the sha256 of every sound file, so the hash stands for
all of it.

1. The device publishes `result`, then every chunk of every site in order.
2. The host stores; when result and all sounds are there and every sha256 fits, and not before, it
   publishes a `Receipt` with status `stored` and the hash. A broker's PUBACK proves nothing.
3. No receipt after a while (the device backs off, 2 s to 5 min): the device publishes `result` again. To a
   result that it knows already the host answers at once: `stored`, or `missing` with a bitmap of the chunks
   it lacks for each site; the device sends just those. To a result that is new the host answers nothing but
   keeps what comes, except that it may answer `missing` at once when it already holds some of its chunks.
4. A sound whose chunks are all there but whose sha256 does not fit is thrown away and answered `missing`.
5. `refused` with a reason says that the host will never take it (unreadable, another exam under the same
   id): the device keeps the exam, marks it and does not try again by itself.

Whatever comes from the network goes through `parse_topic`, `read` and `check_chunk`, which raise
`BadMessage`; ids and file names are path-safe after that. The JSON Schemas in deploy/schemas are printed
from this module:

    python -I -m device.messages deploy/schemas        write them
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from device.wire import BadMessage, Many, OneOf, Real, Text, Whole, decode, encode, schema

__all__ = [
    "CHUNK_SIZE",
    "CLOCK_TRUST",
    "LABELS",
    "LEAD_WORDS",
    "MONITORS",
    "PREFIX",
    "PRESETS",
    "SCHEMA",
    "SITES",
    "Address",
    "Answer",
    "BadMessage",
    "Backlog",
    "Command",
    "Delay",
    "ECG_FULL_SCALE_MV",
    "EcgTrack",
    "Exam",
    "Finding",
    "Health",
    "Listen",
    "Listening",
    "LiveEcg",
    "LiveExam",
    "LiveQuality",
    "LiveWave",
    "LiveWindow",
    "Moment",
    "Receipt",
    "Site",
    "SoundFile",
    "StageLatency",
    "State",
    "Topic",
    "WindowRow",
    "bitmap",
    "check_chunk",
    "ecg_name",
    "files_of",
    "is_ecg",
    "chunk_count",
    "chunk_span",
    "encode",
    "exam_hash",
    "host_filters",
    "is_path_safe",
    "is_subject_code",
    "missing_chunks",
    "parse_topic",
    "read",
    "schemas",
    "site_code",
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

_ID = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_SITE = r"(AV|PV|TV|MV|other)(-[2-9])?"
_TRACK = _SITE + r"(\.ecg)?"
_SHA256 = r"[0-9a-f]{64}"
_FILE = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
_SUBJECT = r"[A-Za-z0-9][A-Za-z0-9-]{0,31}"
_MOST_CHUNKS = 65536
_MOST_SITES = 16
_MOST_SOUND = 64 * 1024 * 1024

_Id = Annotated[str, Text(64, _ID)]
_ExamId = Annotated[str, Text(36, _UUID), "UUID of the exam"]
_SiteName = Annotated[str, Text(7, _SITE), "AV, PV, TV, MV, other; `-2` and so on when recorded again"]
_Sha256 = Annotated[str, Text(64, _SHA256)]
_Version = Annotated[str, Text(64)]
_Says = Annotated[str, Text(300)]
_Share = Annotated[float, Real(0.0, 1.0)]
_Probability = Annotated[float, Real(0.0, 1.0), "of abnormal; null where the network was not asked"]
_Murmur = Annotated[float, Real(0.0, 1.0), "probability that a murmur is heard"]
_Index = Annotated[int, Whole(0, 2**53)]
_Count = Annotated[int, Whole(0, 2**53)]
_Seconds = Annotated[float, Real(0.0, 1e12)]
_Ms = Annotated[float, Real(0.0, 1e9)]
_Rate = Annotated[float, Real(10.0, 400.0), "heart rate in beats a minute; null when none could be told"]
_Reasons = Annotated[tuple[Annotated[str, Text(80)], ...], Many(20), "plain words why not better"]
_Spans = Annotated[tuple[tuple[_Index, _Index], ...], Many(1000), "[first, past the last] sample of each"]
_Schema = Annotated[int, Whole(SCHEMA, SCHEMA), "version of this payload"]


def is_path_safe(name: str) -> bool:
    """Whether an id of fleet or device may be used as a topic level and as a file name."""
    return re.fullmatch(_ID, name) is not None


def is_subject_code(text: str) -> bool:
    """Whether a pseudonymous code may stand in an exam."""
    return re.fullmatch(_SUBJECT, text) is not None


def ecg_name(site: str) -> str:
    """What stands for the ECG of a site in topics, receipts and files: `AV.ecg`."""
    return f"{site}.ecg"


def is_ecg(name: str) -> bool:
    """Whether a name is that of a site's ECG."""
    return name.endswith(".ecg")


def site_code(site: str) -> str:
    """The bare code of a site: `AV-2` → `AV`."""
    return site.split("-")[0]


# ---- payloads


@dataclass(frozen=True)
class Moment:
    """One instant by the device's clocks. Order and distance come from (boot_id, monotonic_s)."""

    boot_id: Annotated[str, Text(64)]
    monotonic_s: _Seconds
    wall_s: Annotated[float, Real(-1e11, 1e11), "seconds since 1970 UTC as the device believed"]
    clock_trust: Annotated[str, OneOf(*CLOCK_TRUST)]


@dataclass(frozen=True)
class SoundFile:
    """The recording of one site: FLAC, 24 bit, at the working rate. Its bytes travel as chunks."""

    file: Annotated[str, Text(100, _FILE), "plain file name"]
    size: Annotated[int, Whole(1, _MOST_SOUND), "bytes"]
    sha256: _Sha256
    chunk_size: Annotated[int, Whole(1024, 1024 * 1024), "bytes in every chunk but the last"]
    chunks: Annotated[int, Whole(1, _MOST_CHUNKS)]

    def problem(self) -> str | None:
        if self.chunks != chunk_count(self.size, self.chunk_size):
            return f"{self.chunks} chunks of {self.chunk_size} bytes are not {self.size} bytes"
        return None


@dataclass(frozen=True)
class WindowRow:
    """One classified window of 5 s."""

    start: Annotated[int, Whole(0, 2**53), "first sample, counted from the start of the site's recording"]
    probability: _Probability | None
    quality: _Share
    reasons: _Reasons
    murmur: _Murmur | None = None


@dataclass(frozen=True)
class Finding:
    """The verdict. Unknown is null, never 0. It screens; it does not diagnose."""

    label: Annotated[str, OneOf(*LABELS)]
    probability: _Probability | None
    quality: _Share | None
    reasons: _Reasons
    murmur: _Murmur | None = None


_Marks = Annotated[
    tuple[Annotated[str, OneOf(*LEAD_WORDS)], ...], Many(7), "why there are gaps, the most frequent first"
]


@dataclass(frozen=True)
class EcgTrack:
    """The ECG beside one site's sound: FLAC of 24 bit, one lead, not denoised; ±1 is ±5 mV.

    Sample n belongs to second `start_s + n / true_rate_hz` of the site's sound. Both clocks were measured;
    no sample was moved. Gaps hold zeros: there the lead was off, or nothing came.
    """

    rate_hz: Annotated[int, Whole(50, 2000), "by name"]
    true_rate_hz: Annotated[float, Real(25.0, 4000.0), "samples in a second of the sound's clock"]
    start_s: Annotated[float, Real(-60.0, 60.0), "of its first sample, from the first of the site's sound"]
    spread_ms: Annotated[float, Real(0.0, 1e6), "of both clocks around their lines, nine of ten"] | None
    samples: _Count
    clipped: _Spans
    gaps: _Spans
    reasons: _Marks
    sound: SoundFile

    def problem(self) -> str | None:
        return _spans_inside(self)


@dataclass(frozen=True)
class Site:
    """One auscultation site of an exam."""

    site: _SiteName
    started: Moment
    start_index: Annotated[int, Whole(0, 2**53), "its first sample, counted since the source started"]
    rate_hz: Annotated[int, Whole(1000, 192000)]
    samples: _Count
    seconds: _Seconds
    ended: Annotated[str, OneOf("enough good windows", "longest", "stopped", "sound ended", "source gone")]
    good_windows: _Count
    heart_rate_bpm: _Rate | None
    clipped: _Spans
    gaps: _Spans
    windows: Annotated[tuple[WindowRow, ...], Many(2000)]
    sound: SoundFile
    ecg: Annotated[EcgTrack, "heard beside it; null where no lead was heard"] | None = None

    def problem(self) -> str | None:
        return _spans_inside(self)


def _spans_inside(track: Site | EcgTrack) -> str | None:
    for name in ("clipped", "gaps"):
        if any(not 0 <= a < b <= track.samples for a, b in getattr(track, name)):
            return f"{name}: a span lies outside the recording"
    return None


def files_of(exam: Exam) -> dict[str, SoundFile]:
    """Every file of an exam in the order of delivery: site → sound, `site.ecg` → its ECG."""
    found = {}
    for site in exam.sites:
        found[site.site] = site.sound
        if site.ecg is not None:
            found[ecg_name(site.site)] = site.ecg.sound
    return found


@dataclass(frozen=True)
class StageLatency:
    """Time of one stage's steps during the exam; null where it took no step."""

    stage: Annotated[str, Text(40)]
    budget_ms: _Ms
    count: _Count
    p50_ms: _Ms | None
    p99_ms: _Ms | None
    missed: Annotated[int, Whole(0, 2**53), "steps over the budget"]


@dataclass(frozen=True)
class Delay:
    """From a sample entering the decimator to its clean twin leaving the denoiser, in ms: all parts
    counted."""

    decimator_ms: _Ms
    hop_ms: _Ms
    look_ahead_ms: _Ms
    total_ms: _Ms


@dataclass(frozen=True)
class Exam:
    """The result of one examination. A screening aid, no diagnosis; pseudonymous at most."""

    id: _ExamId
    fleet: _Id
    device: _Id
    software: _Version
    bundle: Annotated[str, Text(64), "version of the model bundle; the clean sound is recomputed with it"]
    subject: Annotated[str, Text(32, _SUBJECT), "pseudonymous code, never a name"] | None
    source: Annotated[str, Text(200), "where the sound came from"]
    source_rate_hz: Annotated[int, Whole(1000, 400000)]
    started: Moment
    finished: Moment
    ended: Annotated[str, OneOf("complete", "stopped", "sound ended", "source gone")]
    verdict: Finding
    heart_rate_bpm: _Rate | None
    sites: Annotated[tuple[Site, ...], Many(_MOST_SITES, fewest=1)]
    delay: Delay
    latency: Annotated[tuple[StageLatency, ...], Many(40)]
    dropped: Annotated[dict[str, _Count], Many(40, keys=r"[a-z_ ]{1,40}"), "what queues or shedding left out"]
    ecg_source: Annotated[str, Text(200), "the lead that was to be heard; null for none"] | None = None
    schema: _Schema = SCHEMA

    def problem(self) -> str | None:
        names = [site.site for site in self.sites]
        files = [file.file for file in files_of(self).values()]
        if len(set(names)) != len(names) or len({*files}) != len(files):
            return "sites: a site or a file is named twice"
        return None


@dataclass(frozen=True)
class State:
    """Who and how; retained. The last will is the same with online false and `why` connection lost."""

    online: bool
    software: _Version
    bundle: _Version | None
    why: Annotated[str, OneOf("running", "stopped", "connection lost")]
    boot_id: Annotated[str, Text(64)]
    source: Annotated[str, Text(200)] | None = None
    schema: _Schema = SCHEMA


@dataclass(frozen=True)
class Receipt:
    """What ingest has of an exam. Made by `of_stored`, `of_missing`, `of_refused`."""

    exam: _ExamId
    status: Annotated[str, OneOf("stored", "missing", "refused")]
    sha256: Annotated[str, Text(64, _SHA256), "hash of the exam: sha256 of the result payload"]
    missing: (
        Annotated[
            dict[str, Annotated[str, Text(4 * (_MOST_CHUNKS // 8 // 3 + 1), r"[A-Za-z0-9+/]*={0,2}")]],
            Many(2 * _MOST_SITES, fewest=1, keys=_TRACK),
            "site, or site.ecg → base64 of a bitmap; bit n (lowest first) set: chunk n is missing",
        ]
        | None
    ) = None
    why: _Says | None = None
    schema: _Schema = SCHEMA

    def problem(self) -> str | None:
        if (self.status == "missing") != (self.missing is not None):
            return "missing: belongs to status missing, and to no other"
        if self.status == "refused" and not self.why:
            return "why: a refusal says why"
        return None

    @classmethod
    def of_stored(cls, exam: str, sha256: str) -> Receipt:
        return cls(exam=exam, status="stored", sha256=sha256)

    @classmethod
    def of_missing(cls, exam: str, sha256: str, missing: Mapping[str, tuple[Iterable[int], int]]) -> Receipt:
        """`missing`: site → (numbers of the missing chunks, chunks of that site in all)."""
        maps = {site: bitmap(numbers, chunks) for site, (numbers, chunks) in missing.items()}
        return cls(exam=exam, status="missing", sha256=sha256, missing=maps)

    @classmethod
    def of_refused(cls, exam: str, sha256: str, why: str) -> Receipt:
        return cls(exam=exam, status="refused", sha256=sha256, why=why[:300])


_Display = Annotated[tuple[Annotated[int, Whole(-32768, 32767)], ...], Many(1000), "full scale is 32767"]


@dataclass(frozen=True)
class LiveWave:
    """About 100 ms of the waveform, for the eye only: of each group of samples the one with the largest
    magnitude. `raw` and `clean` speak of the same instants; `clean` is empty while denoising is shed."""

    index: Annotated[int, Whole(0, 2**53), "first entry: 2-kHz sample since the source started"]
    every: Annotated[int, Whole(1, 2000), "working-rate samples from one entry to the next"]
    raw: _Display
    clean: _Display
    exam: _ExamId | None = None
    kind: Annotated[str, OneOf("wave")] = "wave"
    schema: _Schema = SCHEMA


@dataclass(frozen=True)
class LiveEcg:
    """About 100 ms of the ECG; 32767 is 5 mV. `raw` and `clean` speak of the same instants; `clean` is
    empty
    where nothing cleans it. No sample at all: only `lead` is told."""

    index: Annotated[int, Whole(0, 2**53), "first entry: sample since the lead started"]
    rate_hz: Annotated[int, Whole(50, 2000), "samples a second"]
    at: (
        Annotated[float, Real(-1e12, 1e15), "2-kHz sample of the sound that the first entry belongs to"]
        | None
    )
    raw: _Display
    clean: _Display
    gaps: Annotated[
        tuple[tuple[_Index, _Index], ...], Many(200), "[first, past the last] entry of what is no ECG"
    ]
    clean_gaps: Annotated[
        tuple[tuple[_Index, _Index], ...], Many(200), "the same of `clean`, until its denoiser has settled"
    ]
    lead: Annotated[str, OneOf(*LEAD_WORDS)]
    exam: _ExamId | None = None
    kind: Annotated[str, OneOf("ecg")] = "ecg"
    schema: _Schema = SCHEMA


@dataclass(frozen=True)
class LiveQuality:
    """Contact feedback on about the last second or more."""

    index: _Index
    quality: _Share | None
    reasons: _Reasons
    level_db: Annotated[float, Real(-200.0, 20.0), "root mean square against full scale"] | None
    heart_rate_bpm: _Rate | None = None
    exam: _ExamId | None = None
    kind: Annotated[str, OneOf("quality")] = "quality"
    schema: _Schema = SCHEMA


@dataclass(frozen=True)
class LiveWindow:
    """One classified window, as it comes."""

    exam: _ExamId
    site: _SiteName
    start: Annotated[int, Whole(0, 2**53), "first sample, counted from the start of the site's recording"]
    probability: _Probability | None
    quality: _Share
    reasons: _Reasons
    good: Annotated[bool, "counts for the verdict"]
    murmur: _Murmur | None = None
    kind: Annotated[str, OneOf("window")] = "window"
    schema: _Schema = SCHEMA


@dataclass(frozen=True)
class LiveExam:
    """Where the exam stands. `finished` means: safely in the outbox."""

    exam: _ExamId
    state: Annotated[str, OneOf("recording", "site done", "finished", "cancelled", "partial")]
    site: _SiteName | None
    position: Annotated[int, Whole(0, _MOST_SITES), "number of this site, from 0"]
    sites: Annotated[int, Whole(1, _MOST_SITES)]
    seconds: Annotated[float, Real(0.0, 1e12), "of this site so far"]
    good_windows: _Count
    needed_windows: _Count
    verdict: Finding | None = None
    kind: Annotated[str, OneOf("exam")] = "exam"
    schema: _Schema = SCHEMA


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

    exams: _Count
    bytes: _Count
    refused: Annotated[int, Whole(0, 2**53), "exams that the host will not take"]
    oldest_s: _Seconds | None


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
    disk_free_bytes: _Count | None
    memory_bytes: Annotated[int, Whole(0, 2**53), "resident"] | None
    temperature_c: Annotated[float, Real(-100.0, 200.0)] | None
    battery: Annotated[float, Real(0.0, 1.0), "charge"] | None
    shed: Annotated[str, OneOf("nothing", "waveform", "classification", "denoising"), "left out now"]
    missed: Annotated[dict[str, _Count], Many(40, keys=r"[a-z_ ]{1,40}"), "missed budgets by stage"]
    dropped: Annotated[dict[str, _Count], Many(40, keys=r"[a-z_ ]{1,40}"), "what queues left out, by name"]
    listening: Listening | None = None
    trouble: (
        Annotated[str, Text(300), "why no exam can be kept now: no room, or a disk that fails"] | None
    ) = None
    schema: _Schema = SCHEMA


@dataclass(frozen=True)
class Command:
    """A wish of the host. Names that devices know: start (args site or
    sites `AV,MV`, subject), next, stop, status, subject (arg code: whose the next exam is, empty to take it
    back), listen (what to hear is in `listen`)."""

    id: Annotated[str, Text(64, _ID)]
    name: Annotated[str, Text(32, r"[a-z][a-z_]*")]
    expires_s: Annotated[float, Real(0.0, 1e11), "seconds since 1970 UTC after which it must not be obeyed"]
    args: Annotated[dict[str, Annotated[str, Text(1000)]], Many(20, keys=r"[a-z_]{1,32}")] = field(
        default_factory=dict
    )
    schema: _Schema = SCHEMA
    listen: Listen | None = None

    def problem(self) -> str | None:
        if (self.name == "listen") != (self.listen is not None):
            return "listen: belongs to the command listen, and to no other"
        return None


@dataclass(frozen=True)
class Answer:
    """What came of a command."""

    command: Annotated[str, Text(64, _ID), "id of the command"]
    name: Annotated[str, Text(32)]
    ok: bool
    says: _Says
    exam: _ExamId | None = None
    schema: _Schema = SCHEMA
    listening: Annotated[Listening, "after the command listen"] | None = None


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
_LIVE: dict[str, type] = {
    "wave": LiveWave,
    "ecg": LiveEcg,
    "quality": LiveQuality,
    "window": LiveWindow,
    "exam": LiveExam,
}

T = TypeVar("T")


def read(cls: type[T], payload: bytes) -> T:
    """A checked payload from the network's bytes: `read(Exam, message.payload)`. Raises BadMessage."""
    return decode(cls, payload, _MOST_BYTES[cls])


def exam_hash(result: bytes) -> str:
    """What a receipt names: hex sha256 of the bytes of the `result` payload."""
    return hashlib.sha256(result).hexdigest()


# ---- topics


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
        return Address(self.fleet, self.device)

    @property
    def payload_type(self) -> type | None:
        """The payload's class; None for a chunk of sound."""
        if self.kind == "live":
            return _LIVE[self.live or ""]
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
    rf"{PREFIX}/(?P<fleet>{_ID})/(?P<device>{_ID})/(?:"
    rf"(?P<kind>state|receipt|health|command|answer)"
    rf"|live/(?P<live>wave|ecg|quality|window|exam)"
    rf"|exam/(?P<result>{_UUID})/result"
    rf"|exam/(?P<exam>{_UUID})/sound/(?P<site>{_TRACK})/(?P<chunk>0|[1-9][0-9]{{0,4}})"
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
        return f"{PREFIX}/{self.fleet}/{self.device}"

    @property
    def state(self) -> str:
        return f"{self.root}/state"

    @property
    def receipt(self) -> str:
        return f"{self.root}/receipt"

    @property
    def health(self) -> str:
        return f"{self.root}/health"

    @property
    def command(self) -> str:
        return f"{self.root}/command"

    @property
    def answer(self) -> str:
        return f"{self.root}/answer"

    def live(self, name: str) -> str:
        """`name`: wave, ecg, quality, window or exam."""
        if name not in _LIVE:
            raise ValueError(f"live/{name}: none of {', '.join(_LIVE)}")
        return f"{self.root}/live/{name}"

    def result(self, exam: str) -> str:
        return f"{self.root}/exam/{exam}/result"

    def sound(self, exam: str, site: str, chunk: int) -> str:
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


# ---- chunks


def chunk_count(size: int, chunk_size: int = CHUNK_SIZE) -> int:
    """Chunks that `size` bytes make."""
    return -(-size // chunk_size)


def chunk_span(n: int, size: int, chunk_size: int = CHUNK_SIZE) -> tuple[int, int]:
    """(first byte, past the last) of chunk `n`; ValueError when there is no such chunk."""
    if not 0 <= n < chunk_count(size, chunk_size):
        raise ValueError(f"chunk {n} of {chunk_count(size, chunk_size)}")
    return n * chunk_size, min(size, (n + 1) * chunk_size)


def check_chunk(sound: SoundFile, n: int, payload: bytes) -> None:
    """BadMessage unless `payload` has just the length that chunk `n` of `sound` must have."""
    if not 0 <= n < sound.chunks:
        raise BadMessage(f"chunk {n}: {sound.file} has {sound.chunks}")
    first, past = chunk_span(n, sound.size, sound.chunk_size)
    if len(payload) != past - first:
        raise BadMessage(f"chunk {n} of {sound.file}: {len(payload)} bytes, must be {past - first}")


def bitmap(numbers: Iterable[int], chunks: int) -> str:
    """Base64 of the bitmap of `numbers` out of `chunks`: bit n % 8 (lowest first) of byte n // 8."""
    bits = bytearray(-(-chunks // 8))
    for n in numbers:
        if not 0 <= n < chunks:
            raise ValueError(f"chunk {n} of {chunks}")
        bits[n // 8] |= 1 << n % 8
    return base64.b64encode(bytes(bits)).decode("ascii")


def missing_chunks(text: str, chunks: int) -> list[int]:
    """The numbers in a bitmap, rising; BadMessage unless it is one for just `chunks` chunks."""
    try:
        bits = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BadMessage(f"bitmap: {error}") from None
    if len(bits) != -(-chunks // 8):
        raise BadMessage(f"bitmap: {len(bits)} bytes for {chunks} chunks")
    numbers = [n for n in range(len(bits) * 8) if bits[n // 8] >> n % 8 & 1]
    if numbers and numbers[-1] >= chunks:
        raise BadMessage(f"bitmap: chunk {numbers[-1]} of {chunks}")
    return numbers


# ---- schemas


def schemas() -> dict[str, dict[str, Any]]:
    """File name → JSON Schema (draft 2020-12) of every payload, as it stands in deploy/schemas."""
    return {
        "exam.schema.json": schema("stethopi exam result", Exam),
        "receipt.schema.json": schema("stethopi receipt", Receipt),
        "state.schema.json": schema("stethopi device state", State),
        "health.schema.json": schema("stethopi device health", Health),
        "live.schema.json": schema("stethopi live messages", *_LIVE.values()),
        "command.schema.json": schema("stethopi command", Command),
        "answer.schema.json": schema("stethopi answer to a command", Answer),
    }


def _main() -> int:
    import json
    import sys
    from pathlib import Path

    if len(sys.argv) != 2:
        print("usage: python -I -m device.messages FOLDER    write the JSON Schemas", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in schemas().items():
        (folder / name).write_text(json.dumps(made, indent=2) + "\n", "utf-8")
        print(folder / name)
    return 0


if __name__ == "__main__":
    raise SystemExit(_main())
