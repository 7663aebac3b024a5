"""Recordings on disk: the one reader for replay, `denoise` and `classify`, and the writer that keeps the
format.

WAV (8, 16, 24, 32 bit, float 32 and 64, WAVE_FORMAT_EXTENSIBLE, RF64) is read here with NumPy, so that a file
whose end is missing gives what is there; FLAC goes through soundfile. Whatever is done to a sound on the way
in is said in `Sound.notes`, in sentences fit for stderr.

Source of the format: Microsoft, "Multiple Channel Audio Data and WAVE Files"; EBU Tech 3306 (RF64).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from device.arrays import AnyArray
from device.dsp.resample import to_working, working_length
from device.durable import whole_file
from device.errors import BadInput, StethopiError
from device.rates import HIGHEST_RATE_HZ, LOWEST_RATE_HZ
from device.spans import Gap

__all__ = ["SUFFIXES", "Sound", "read_sound", "write_sound", "read_working_rate"]

SUFFIXES = (".wav", ".wave", ".flac")
"""What a folder is searched for."""

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_UNKNOWN_SIZE = 0xFFFFFFFF
_FLAC_BLOCK = 1 << 16
_USUAL_HZ = (4000, 500)
"""To resample to: of heart sounds, of an ECG."""


@dataclass(frozen=True)
class Sound:
    """One channel of a recording, and what it was made of."""

    samples: AnyArray
    """float32 (n,), ±1 full scale, at rate_hz. 0 inside gaps."""
    rate_hz: int
    channels: int = 1
    """In the file; the first is used."""
    bits: int = 16
    """Of one sample in the file."""
    notes: list[str] = field(default_factory=list)
    """What a person should be told: further channels left out, end missing, gaps."""
    states: Any = None
    """The true S1, systole, S2, diastole where they are known (synthetic hearts), else None."""
    gaps: list[Gap] = field(default_factory=list)
    """Samples that were no numbers in the file, at rate_hz."""
    container: str = "WAV"
    """WAV or FLAC."""
    floating: bool = False
    """The file's samples are floating-point numbers."""
    path: Path | None = None

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return len(self.samples) / self.rate_hz

    @property
    def working_gaps(self) -> list[Gap]:
        """The gaps at the working rate, each widened to whole samples."""
        length = working_length(len(self.samples), self.rate_hz)
        spans = (to_working(gap.start, gap.end, self.rate_hz) for gap in self.gaps)
        return [Gap(start, min(end, length)) for start, end in spans]


def read_sound(path: Path | str, rates_hz: tuple[int, int] = (LOWEST_RATE_HZ, HIGHEST_RATE_HZ)) -> Sound:
    """The first channel of a WAV or FLAC file of 2 to 192 kHz, or of other `rates_hz`, lowest and highest.

    What is missing at the end of a truncated file is said in `notes`; samples that are no numbers become 0
    and are listed in `gaps`. Raises BadInput, one line with the remedy, when there is no sound to be had.
    """
    path = Path(path)
    if path.is_dir():
        raise BadInput(f"{path}: is a folder; give a WAV or FLAC file")
    if path.exists() and not path.is_file():
        raise BadInput(f"{path}: is no regular file (a pipe or a device); save the sound to a file first")
    try:
        with path.open("rb") as file:
            magic = file.read(12)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; check the name") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if not magic:
        raise BadInput(f"{path}: is empty; record or copy it again")
    if magic[:4] in (b"RIFF", b"RF64") and magic[8:12] == b"WAVE":
        sound = _read_wav(path, rates_hz)
    elif magic[:4] == b"fLaC" or magic[:3] == b"ID3":
        sound = _read_flac(path, rates_hz)
    else:
        raise BadInput(
            f"{path}: is neither a WAV nor a FLAC file, whatever its name says; convert it, for example: "
            f"ffmpeg -i IN out.wav"
        )
    if not len(sound.samples):
        raise BadInput(f"{path}: holds a header but no sound; record or copy it again")
    return sound


def _checked_rate(path: Path, rate_hz: int, rates_hz: tuple[int, int]) -> int:
    lowest_hz, highest_hz = rates_hz
    if not lowest_hz <= rate_hz <= highest_hz:
        better_hz = next((hz for hz in _USUAL_HZ if lowest_hz <= hz <= highest_hz), highest_hz)
        raise BadInput(
            f"{path}: its rate of {rate_hz} Hz is not from {lowest_hz} to {highest_hz} Hz; "
            f"resample it, for example: sox {path.name} out.wav rate {better_hz}"
        )
    return rate_hz


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _finished(
    path: Path,
    x: AnyArray,
    notes: list[str],
    rate_hz: int,
    channels: int,
    bits: int,
    container: str,
    floating: bool,
) -> Sound:
    """Gaps for samples that are no numbers, notes, float32."""
    gaps: list[Gap] = []
    if floating:
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)  # what float32 cannot hold becomes infinite, and so a gap
        bad = ~np.isfinite(x)
        if bad.any():
            edges = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]])))
            gaps = [Gap(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]
            x = np.where(bad, np.float32(0.0), x)
            notes.append(
                f"{path}: {_count(int(bad.sum()), 'sample')} in {_count(len(gaps), 'place')} "
                f"are no numbers; treated as gaps"
            )
    if channels > 1:
        notes.insert(0, f"{path}: has {channels} channels; the first is used")
    samples = np.ascontiguousarray(x, dtype=np.float32)
    return Sound(samples, rate_hz, channels, bits, notes, None, gaps, container, floating, path)


def _read_wav(path: Path, rates_hz: tuple[int, int]) -> Sound:
    data = np.memmap(path, dtype=np.uint8, mode="r")
    form: bytes | None = None
    start = size = -1
    long_size: int | None = None
    at = 12
    while at + 8 <= len(data):
        name = data[at : at + 4].tobytes()
        size = int.from_bytes(data[at + 4 : at + 8].tobytes(), "little")
        if name == b"data":
            start = at + 8
            break
        if name == b"fmt ":
            form = data[at + 8 : at + 8 + size].tobytes()
        elif name == b"ds64" and at + 24 <= len(data):
            long_size = int.from_bytes(data[at + 16 : at + 24].tobytes(), "little")
        at += 8 + size + size % 2
    if start < 0 or form is None or len(form) < 16:
        raise BadInput(f"{path}: its WAV header is cut off or damaged; record or copy it again")
    code, channels, rate_hz, _, frame_bytes, bits = struct.unpack("<HHIIHH", form[:16])
    if code == _EXTENSIBLE and len(form) >= 26:
        code = struct.unpack("<H", form[24:26])[0]
    known = (code == _PCM and bits in (8, 16, 24, 32)) or (code == _FLOAT and bits in (32, 64))
    if not known:
        raise BadInput(
            f"{path}: holds WAV format {code} with {bits} bits, which is not read here; "
            f"convert it, for example: ffmpeg -i {path.name} -c:a pcm_s16le out.wav"
        )
    if channels == 0 or frame_bytes != channels * bits // 8:
        raise BadInput(
            f"{path}: its WAV header is damaged (frames of {frame_bytes} bytes for "
            f"{_count(channels, 'channel')} of {bits} bits); record or copy it again"
        )
    _checked_rate(path, rate_hz, rates_hz)

    notes: list[str] = []
    there = len(data) - start
    riff_size = int.from_bytes(data[4:8].tobytes(), "little")
    if size == _UNKNOWN_SIZE and long_size is not None:
        size = long_size
    if size == _UNKNOWN_SIZE or (size == 0 and there > 0 and riff_size in (0, _UNKNOWN_SIZE)):
        size = there  # written to a pipe, or the recorder stopped before it finished the header
        found = there // frame_bytes / rate_hz
        notes.append(f"{path}: its header was never finished; all {found:.3f} s that follow it are used")
    if size > there:
        promised, found = size // frame_bytes / rate_hz, there // frame_bytes / rate_hz
        notes.append(
            f"{path}: is truncated: {found:.3f} s of the promised {promised:.3f} s are there and are used"
        )
        size = there
    frames = size // frame_bytes
    raw = np.asarray(data[start : start + frames * frame_bytes]).reshape(frames, frame_bytes)
    first = np.ascontiguousarray(raw[:, : bits // 8])
    return _finished(path, _decoded(first, code, bits), notes, rate_hz, channels, bits, "WAV", code == _FLOAT)


def _decoded(raw: AnyArray, code: int, bits: int) -> AnyArray:
    """Bytes (n, bits / 8), little endian → numbers (n,) in ±1."""
    if code == _FLOAT:
        return raw.view("<f4" if bits == 32 else "<f8")[:, 0]
    if bits == 8:  # the only unsigned one
        return (raw[:, 0].astype(np.float32) - 128.0) / 128.0
    wide = np.zeros((len(raw), 4), np.uint8)
    wide[:, 4 - bits // 8 :] = raw
    return (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)


def soundfile() -> Any:
    """The soundfile module; StethopiError with the remedy where it is missing."""
    try:
        import soundfile as module
    except (ImportError, OSError) as error:
        raise StethopiError(f"FLAC needs soundfile ({error}); run: pip install 'stethopi[device]'") from None
    return module


def _read_flac(path: Path, rates_hz: tuple[int, int]) -> Sound:
    module = soundfile()
    notes: list[str] = []
    blocks: list[AnyArray] = []
    damage = ""
    try:
        file = module.SoundFile(path)
    except module.LibsndfileError as error:
        raise BadInput(
            f"{path}: its FLAC header is cut off or damaged ({_said(error)}); record or copy it again"
        ) from None
    with file:
        rate_hz, channels = _checked_rate(path, file.samplerate, rates_hz), file.channels
        promised = file.frames
        bits = int("".join(c for c in file.subtype if c.isdigit()) or 16)
        while True:
            # where the decoder gives up within a block, the samples before stand in the array all the same
            room = np.full((_FLAC_BLOCK, channels), np.nan, np.float32)
            try:
                block = file.read(out=room)
            except module.LibsndfileError as error:
                damage = _said(error)
                block = room[: int(np.argmax(np.isnan(room[:, -1]))) if np.isnan(room[-1, -1]) else len(room)]
            blocks.append(block[:, 0].copy())
            if damage or len(block) < _FLAC_BLOCK:
                break
    x = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if damage or (0 < promised < 1 << 62 and len(x) < promised):
        of = f" of the promised {promised / rate_hz:.3f} s" if 0 < promised < 1 << 62 else ""
        notes.append(f"{path}: is truncated or damaged: {len(x) / rate_hz:.3f} s{of} are there and are used")
    return _finished(path, x, notes, rate_hz, channels, bits, "FLAC", False)


def _said(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).rstrip(". ")


def write_sound(path: Path | str, samples: AnyArray, rate_hz: int, like: Sound | None = None) -> Path:
    """Write one channel, float (n,) in ±1, as WAV or FLAC by the name's suffix (else as `like`), whole or not
    at all.

    `like` gives the bit depth, as far as the format can hold it: FLAC ends at 24 bit and has no floating
    point. Without it 16 bit are written. Beyond full scale, whole-number formats are clipped.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    container = {".wav": "WAV", ".wave": "WAV", ".flac": "FLAC"}.get(
        suffix, like.container if like and not suffix else ""
    )
    if not container:
        raise BadInput(f"{path}: sound is written as .wav or .flac; choose one of these names")
    bits, floating = (like.bits, like.floating) if like else (16, False)
    x = np.asarray(samples)
    if container == "FLAC":
        subtype = "PCM_S8" if bits == 8 and not floating else "PCM_16" if bits <= 16 else "PCM_24"
        module = soundfile()
        if rate_hz > 65535 and rate_hz % 10:  # a frame's header has no room for it (RFC 9639, section 9.1.2)
            raise BadInput(
                f"{path}: FLAC cannot hold a rate of {rate_hz} Hz; choose a name that ends in .wav"
            )
        with whole_file(path) as temporary:
            try:
                module.write(temporary, np.clip(x, -1.0, 1.0), rate_hz, subtype=subtype, format="FLAC")
            except module.LibsndfileError as error:
                raise StethopiError(f"{path}: cannot be written ({_said(error)})") from None
    else:
        with whole_file(path) as temporary, temporary.open("wb") as file:
            payload = _encoded(x, bits, floating)
            file.write(wav_header(len(x), rate_hz, bits, floating))
            file.write(payload)
            file.write(b"\0" * (len(payload) % 2))
    return path


def wav_header(frames: int, rate_hz: int, bits: int, floating: bool = False) -> bytes:
    """The 44 bytes (58 for floating point) before the samples of a WAV file with one channel."""
    size = frames * bits // 8
    code = _FLOAT if floating else _PCM
    form = struct.pack("<HHIIHH", code, 1, rate_hz, rate_hz * bits // 8, bits // 8, bits)
    more = b""
    if floating:  # formats other than PCM need the size of their extension, and the count of frames
        form += struct.pack("<H", 0)
        more = b"fact" + struct.pack("<II", 4, frames)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + more + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", len(body) + size + size % 2) + body


def _encoded(x: AnyArray, bits: int, floating: bool) -> bytes:
    if floating:
        return bytes(x.astype("<f4" if bits == 32 else "<f8").tobytes())
    full = 2.0 ** (bits - 1)
    whole = np.clip(np.rint(x.astype(np.float64) * full), -full, full - 1).astype("<i4")
    if bits == 8:
        return bytes((whole + 128).astype(np.uint8).tobytes())
    return bytes(np.ascontiguousarray(whole.view(np.uint8).reshape(-1, 4)[:, : bits // 8]).tobytes())


def read_working_rate(path: str | Path) -> tuple[AnyArray, list[Any]]:
    """A file's sound at 2 kHz and its gaps, by the reader and the decimator of the live path."""
    from device.dsp.resample import Decimator
    from device.sources.files import read_sound

    sound = read_sound(Path(path))
    decimator = Decimator(sound.rate_hz)
    x = np.concatenate([decimator.process(sound.samples), decimator.flush()])
    return x, list(sound.working_gaps)
