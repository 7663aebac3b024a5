"""The raw sound of one site on disk: spooled while it is heard, FLAC (24 bit, 2 kHz) when it ends.

While a recording runs, its samples stand in `<name>.partial`, a WAV file whose header is not finished.
`finish` turns it into `<name>.flac`: written under a temporary name, fsynced, renamed, folder fsynced.
After a crash `rescue` finds what was left over, says how many seconds it holds and moves it to the folder
`partial/`, where a person can listen to it. Nothing is deleted, and nothing of it is ever taken for an
exam.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

from device.durable import fsync_file, fsync_folder, make_folder, move_into, replacing, sha256_of
from device.errors import BadInput, StethopiError
from device.rates import HIGHEST_RATE_HZ, HOP, WORKING_RATE_HZ
from device.sources.files import read_sound, soundfile, wav_header
from device.spans import CLIPPED_AT, Gap, clipped_spans, merged

__all__ = ["MOST_SPANS", "Partial", "Recorder", "RecordingFile", "rescue", "write_recording"]

MOST_SPANS = 1000
"""A recording lists at most so many clipped stretches, and so many gaps; near ones are joined to keep to
it."""

_HEADER = 44
_BYTES = 3
_FULL = 2.0**23
_SPOOL_EVERY = WORKING_RATE_HZ // 2
_COPY = 1 << 16


@dataclass(frozen=True)
class RecordingFile:
    """A finished recording."""

    path: Path
    size: int
    """Bytes."""
    sha256: str
    samples: int
    rate_hz: int = WORKING_RATE_HZ
    clipped: list[list[int]] = field(default_factory=list)
    """[start, end) of stretches at full scale, samples from the recording's start."""
    gaps: list[list[int]] = field(default_factory=list)
    """[start, end) of stretches that were not heard; zeros stand there."""

    @property
    def seconds(self) -> float:
        return self.samples / self.rate_hz


@dataclass(frozen=True)
class Partial:
    """A recording that a crash left without an exam."""

    path: Path
    """Where it is kept now."""
    seconds: float

    def __str__(self) -> str:
        return f"partial recording of {self.seconds:.1f} s found, kept as {self.path}"


def _few(spans: Iterable[tuple[int, int]], samples: int) -> list[list[int]]:
    """Spans cut to the recording, sorted, joined until there are no more than MOST_SPANS."""
    cut = [(max(start, 0), min(end, samples)) for start, end in spans]
    distance = 0
    result = merged(cut)
    while len(result) > MOST_SPANS:
        distance = max(2 * distance, HOP)
        result = merged(cut, distance)
    return [[start, end] for start, end in result]


def _troubled(path: Path, error: OSError) -> StethopiError:
    return StethopiError(
        f"{path}: the recording cannot be written ({error.strerror or error}); "
        f"free space on the card or choose another state folder"
    )


class Recorder:
    """One recording while it runs.

    `append` takes working-rate sound, or an ECG at its `rate_hz`, in ±1; `mark_gap` and `mark_clipped` take
    spans counted from the recording's start, and `finish` gives the FLAC file. Leaving it otherwise
    (`close`, a crash) leaves a `.partial` behind for `rescue`; only `discard` removes it. Raises
    StethopiError when the disk does not take it.
    """

    def __init__(self, folder: Path, name: str, rate_hz: int = WORKING_RATE_HZ) -> None:
        self.rate_hz = rate_hz
        self._target = folder / f"{name}.flac"
        self._spool = folder / f"{name}.partial"
        self._samples = 0
        self._waiting: list[np.ndarray] = []
        self._waiting_samples = 0
        self._gaps: list[tuple[int, int]] = []
        self._clipped: list[Gap] = []
        self._last = np.zeros(0, np.float32)
        try:
            make_folder(folder)
            if self._target.exists():
                raise FileExistsError
            # unbuffered: what was written is in the kernel's hands, and outlives this process
            self._file = self._spool.open("xb", buffering=0)
            # a header that never ends its promise, so that the file can be listened to even as it stands
            self._file.write(wav_header(0, rate_hz, 24)[:40] + b"\xff\xff\xff\xff")
        except FileExistsError:
            raise StethopiError(f"{self._spool}: there is a recording of this name already") from None
        except OSError as error:
            raise _troubled(self._spool, error) from error

    @property
    def samples(self) -> int:
        """So far."""
        return self._samples

    @property
    def seconds(self) -> float:
        return self._samples / self.rate_hz

    def append(self, x: np.ndarray) -> None:
        """Add sound, float32 (n,). Beyond full scale it is clipped, and listed as such."""
        x = np.asarray(x, dtype=np.float32)
        if not len(x):
            return
        if (np.abs(x) >= CLIPPED_AT).any():
            self._list_clipped(x)
        self._last = x[-1:].copy()
        steps = np.clip(np.rint(x.astype(np.float64) * _FULL), -_FULL, _FULL - 1).astype("<i4")
        self._waiting.append(steps)
        self._waiting_samples += len(steps)
        self._samples += len(steps)
        if self._waiting_samples >= _SPOOL_EVERY:
            self._write()

    def _list_clipped(self, x: np.ndarray) -> None:
        # two samples make a clipped stretch, and they may come in two pieces
        at = self._samples - len(self._last)
        found = clipped_spans(np.concatenate([self._last, x]))
        self._clipped += [Gap(at + start, at + end) for start, end in found]
        if len(self._clipped) > 2 * MOST_SPANS:
            self._clipped = merged(self._clipped, HOP)

    def mark_gap(self, start: int, end: int) -> None:
        """Say that samples [start, end) were not heard."""
        self._gaps.append((start, end))

    def mark_clipped(self, start: int, end: int) -> None:
        """Say that the source was at full scale within [start, end)."""
        self._clipped.append(Gap(start, end))

    def _write(self) -> None:
        if not self._waiting:
            return
        steps = np.concatenate(self._waiting)
        payload = memoryview(np.ascontiguousarray(steps.view(np.uint8).reshape(-1, 4)[:, :_BYTES]).tobytes())
        try:
            # by place, so that a second try after a full disk does not repeat half of the first
            self._file.seek(_HEADER + _BYTES * (self._samples - self._waiting_samples))
            while payload:
                payload = payload[self._file.write(payload) :]
        except OSError as error:
            raise _troubled(self._spool, error) from error
        self._waiting, self._waiting_samples = [], 0

    def finish(self, samples: int | None = None) -> RecordingFile:
        """Write the FLAC file, safe against a power cut, and let the spool go. `samples`: keep only so many,
        where the recording turned out to have ended before. Raises BadInput when nothing was heard.
        """
        if not self._samples or samples == 0:
            self.discard()
            raise BadInput(f"{self._target}: nothing was recorded; check the microphone and record again")
        self._write()
        self._file.close()
        raw = np.memmap(self._spool, np.uint8, "r", offset=_HEADER).reshape(-1, _BYTES)
        steps = np.zeros((len(raw), 4), np.uint8)
        steps[:, 1:] = raw  # left justified in 32 bits, of which soundfile takes the upper 24
        found = write_recording(
            self._target,
            steps.view("<i4")[:samples, 0],
            gaps=self._gaps,
            clipped=self._clipped,
            rate_hz=self.rate_hz,
        )
        del raw
        self._spool.unlink()
        return found

    def close(self) -> None:
        """Stop without finishing: what was heard stays as a partial recording."""
        if not self._file.closed:
            with contextlib.suppress(StethopiError):
                self._write()
            self._file.close()

    def discard(self) -> None:
        """Stop and throw away what was heard."""
        self._file.close()
        self._spool.unlink(missing_ok=True)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_recording(
    path: Path,
    samples: np.ndarray,
    gaps: Iterable[tuple[int, int]] = (),
    clipped: Iterable[tuple[int, int]] | None = None,
    rate_hz: int = WORKING_RATE_HZ,
) -> RecordingFile:
    """Write sound as FLAC of 24 bit, durable.

    `samples`: float (n,) in ±1, or int32 (n,) left justified. `clipped` None: found here. Raises
    StethopiError.
    """
    if samples.dtype.kind == "f":
        clipped = clipped_spans(samples) if clipped is None else clipped
        whole = np.clip(np.rint(samples.astype(np.float64) * _FULL), -_FULL, _FULL - 1)
        samples = whole.astype(np.int32) * 256
    module = soundfile()
    try:
        make_folder(path.parent)
        with replacing(path) as temporary:
            with module.SoundFile(
                temporary, "w", samplerate=rate_hz, channels=1, format="FLAC", subtype="PCM_24"
            ) as file:
                for at in range(0, len(samples), _COPY):
                    file.write(np.ascontiguousarray(samples[at : at + _COPY]))
            size, digest = temporary.stat().st_size, sha256_of(temporary)
    except OSError as error:
        raise _troubled(path, error) from error
    except module.LibsndfileError as error:
        raise StethopiError(
            f"{path}: the recording cannot be written ({error}); free space on the card"
        ) from error
    n = len(samples)
    return RecordingFile(path, size, digest, n, rate_hz, _few(clipped or (), n), _few(gaps, n))


def rescue(folder: Path, known: Collection[str] = ()) -> list[Partial]:
    """Find what a crash left in `folder` and move it to `folder/partial`. To be called before recordings
    begin.

    Left over are spools, and finished FLAC files that no exam speaks of: `known` holds the file names that
    exams in the outbox have. The temporary file of an interrupted `finish` is kept only where a power cut
    took the spool that it was made from. Each one found is given once, with its seconds; str() of it is a
    line for the log.
    """
    if not folder.is_dir():
        return []
    kept = folder / "partial"
    found: list[Partial] = []
    spools = {path for path in folder.glob("*.partial") if path.stat().st_size > _HEADER}
    # spools first: they are compared with the FLAC files of their names
    for path in sorted(folder.iterdir(), key=lambda path: (path.suffix != ".partial", path.name)):
        if path.name.startswith(".") and path.name.endswith(".part"):
            original = folder / f"{path.name[1:].split('.')[0]}.partial"
            if not path.stat().st_size or original in spools:
                path.unlink()
            else:
                found.append(_keep(path, kept, f"{original.stem}.flac"))
            continue
        spool = path.suffix == ".partial"
        if not path.is_file() or not (spool or (path.suffix == ".flac" and path.name not in known)):
            continue
        if spool and path.with_suffix(".flac").exists():
            path.unlink()  # its FLAC file is whole and holds the same: the crash came between the two
            continue
        found.append(_keep(path, kept, f"{path.stem}.wav" if spool else path.name))
    if found:
        fsync_folder(folder)
    return found


def _keep(path: Path, kept: Path, name: str) -> Partial:
    """Move what a crash left to the folder `kept`, under this name or, where there is one, the next."""
    seconds = _finish_header(path) if path.suffix == ".partial" else _seconds(path)
    return Partial(move_into(kept, path, name), seconds)


def _finish_header(spool: Path) -> float:
    """Give a spool the header of a finished WAV file; seconds of sound in it. The sound itself is not
    touched."""
    frames = max(spool.stat().st_size - _HEADER, 0) // _BYTES
    rate_hz = WORKING_RATE_HZ
    with spool.open("r+b") as file:
        if spool.stat().st_size >= _HEADER:
            rate_hz = int.from_bytes(file.read(_HEADER)[24:28], "little") or rate_hz
            file.seek(0)
            file.write(wav_header(frames, rate_hz, 24))
    fsync_file(spool)
    return frames / rate_hz


def _seconds(path: Path) -> float:
    try:
        return read_sound(path, (1, HIGHEST_RATE_HZ)).seconds
    except StethopiError:
        return 0.0
