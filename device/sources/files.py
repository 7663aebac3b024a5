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

from device.dsp.resample import to_working, working_length
from device.durable import whole_file
from device.errors import BadInput, StethopiError
from device.rates import HIGHEST_RATE_HZ, LOWEST_RATE_HZ
from device.spans import Gap

__all__ = ["SUFFIXES", "Sound", "read_sound", "write_sound", "read_working_rate"]

SUFFIXES = (".wav", ".wave", ".flac")
"""What a folder is searched for."""

Channel = int | str
"""Which channel: 1 and on, or "loudest"."""

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_UNKNOWN_SIZE = 0xFFFFFFFF
_FLAC_BLOCK = 1 << 16
_USUAL_HZ = (4000, 500)
"""To resample to: of heart sounds, of an ECG."""


@dataclass(frozen=True)
class Sound:
    """One channel of a recording, and what it was made of."""

    samples: np.ndarray
    """float32 (n,), ±1 full scale, at rate_hz. 0 inside gaps."""
    rate_hz: int
    channels: int = 1
    """In the file; one is used."""
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
        return len(self.samples) / self.rate_hz

    @property
    def working_gaps(self) -> list[Gap]:
        """The gaps at the working rate, each widened to whole samples."""
        length = working_length(len(self.samples), self.rate_hz)
        spans = (to_working(gap.start, gap.end, self.rate_hz) for gap in self.gaps)
        return [Gap(start, min(end, length)) for start, end in spans]


def read_sound(
    path: Path | str,
    rates_hz: tuple[int, int] = (LOWEST_RATE_HZ, HIGHEST_RATE_HZ),
    channel: Channel = 1,
) -> Sound:
    """One channel (1 and on, or "loudest") of a WAV or FLAC file of 2 to 192 kHz, or of other `rates_hz`,
    lowest and highest.

    Where header and bytes disagree, what is there is used, and `notes` say so; samples that are no numbers
    become 0 and are listed in `gaps`; floating point at a whole-number scale is brought to ±1. The offset
    stays: the stages that it would disturb take it out themselves (device.dsp.offset). Raises BadInput, one
    line with the remedy, when there is no sound to be had.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise BadInput(f"{path}: is a folder; give a WAV or FLAC file")
        if path.exists() and not path.is_file():
            raise BadInput(f"{path}: is no regular file (a pipe or a device); save the sound to a file first")
        with path.open("rb") as file:
            magic = file.read(12)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; check the name") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if not magic:
        raise BadInput(f"{path}: is empty; record or copy it again")
    if magic[:4] in (b"RIFF", b"RF64", b"BW64") and magic[8:12] == b"WAVE":
        sound = _read_wav(path, rates_hz, channel)
    elif magic[:4] == b"fLaC" or magic[:3] == b"ID3":
        sound = _read_flac(path, rates_hz, channel)
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


_SILENT_PEAK = 1e-4
"""Peak of a channel, less its offset, below which it holds nothing: three steps of 16 bit."""
_SILENT_SHARE = 0.01
"""Or below which it holds nothing beside the loudest: 40 dB under it."""


def _level(x: np.ndarray) -> float:
    """Root mean square of a channel, float (n,), less its offset; 0 where it holds nothing."""
    x = x[np.isfinite(x)]
    if not len(x) or float(x.max()) - float(x.min()) < 2 * _SILENT_PEAK:
        return 0.0
    return float(np.std(x, dtype=np.float64))


def _channel_of(path: Path, channel: Channel, levels: list[float], notes: list[str]) -> int:
    """The channel to use, from 0, out of their levels; what is to be said of it."""
    count = len(levels)
    loudest = int(np.argmax(levels))
    if isinstance(channel, str):
        taken = loudest
    elif 1 <= channel <= count:
        taken = channel - 1
    else:
        raise BadInput(
            f"{path}: has {_count(count, 'channel')}, and no channel {channel}; "
            f"give one of 1 to {count}, or loudest"
        )
    if count > 1:
        which = "the first" if taken == 0 else f"channel {taken + 1}"
        notes.insert(0, f"{path}: has {count} channels; {which} is used")
        if levels[taken] <= _SILENT_SHARE * levels[loudest]:
            notes.insert(
                1,
                f"{path}: channel {taken + 1} is silent, channel {loudest + 1} is not; "
                f"give --channel {loudest + 1} or --channel loudest",
            )
    return taken


_OVER = 8.0
"""Share of full scale that floating point may reach beyond it (18 dB); more is another scale."""
_SCALES = ((16, 2.0**15), (24, 2.0**23), (32, 2.0**31))


def _in_full_scale(path: Path, x: np.ndarray, notes: list[str]) -> np.ndarray:
    """Floating point (n,) as shares of full scale: a whole-number scale is recognised, never clipped. Not a
    number where a few samples lie far beyond all others. BadInput for a scale that is none."""
    size = np.abs(np.where(np.isfinite(x), x, 0.0))
    peak = float(size.max(initial=0.0))
    if peak <= 1.0:
        return x
    if peak <= _OVER:
        notes.append(f"{path}: reaches {peak:.2f} of full scale; nothing is clipped")
        return x
    wild = size > _OVER
    if wild.mean() < 0.001 and float(size[~wild].max(initial=0.0)) <= 1.0:
        return np.where(wild, np.float32(np.nan), x)
    for bits, scale in _SCALES:
        if peak <= scale:
            notes.append(f"{path}: its numbers reach {peak:.6g}; taken as the scale of {bits}-bit samples")
            return x / np.float32(scale)
    raise BadInput(
        f"{path}: its numbers reach {peak:.3g}, which is no scale of sound; "
        f"write it with full scale at 1, for example: sox {path.name} out.wav norm"
    )


def _finished(
    path: Path,
    x: np.ndarray,
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
        x = _in_full_scale(path, x, notes)
        bad = ~np.isfinite(x)
        if bad.any():
            edges = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]])))
            gaps = [Gap(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]
            x = np.where(bad, np.float32(0.0), x)
            notes.append(
                f"{path}: {_count(int(bad.sum()), 'sample')} in {_count(len(gaps), 'place')} "
                f"are no numbers; treated as gaps"
            )
    samples = np.ascontiguousarray(x, dtype=np.float32)
    return Sound(samples, rate_hz, channels, bits, notes, None, gaps, container, floating, path)


@dataclass(frozen=True)
class _WavForm:
    """What the format chunk says, weighed."""

    code: int
    """PCM or floating point."""
    channels: int
    rate_hz: int
    bits: int
    width: int
    """Bytes of one sample of one channel."""

    @property
    def frame_bytes(self) -> int:
        return self.channels * self.width


_TAIL = 256
"""Bytes behind the sound, in no chunk, that need no word: a tag, padding."""

_CHUNKS = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"cue ", b"smpl", b"fact", b"PEAK", b"JUNK", b"data")
"""What stands behind sound, or is sound: believed even where the file ends within it."""

_PLACEHOLDER = 0x7FFF0000
"""Sizes from here on were written before the size was known."""


def _wav_form(path: Path, form: bytes, notes: list[str]) -> _WavForm:
    """Channels, rate and width that fit together. BadInput where there are none."""
    code, channels, rate_hz, byte_rate, frame_bytes, bits = struct.unpack("<HHIIHH", form[:16])
    if code == _EXTENSIBLE and len(form) >= 26:
        code = struct.unpack("<H", form[24:26])[0]
    known = (code == _PCM and 1 <= bits <= 32) or (code == _FLOAT and bits in (32, 64))
    if not known:
        raise BadInput(
            f"{path}: holds WAV format {code} with {bits} bits, which is not read here; "
            f"convert it, for example: ffmpeg -i {path.name} -c:a pcm_s16le out.wav"
        )
    width = -(-bits // 8)
    channels = channels or frame_bytes // width
    if not channels:
        raise BadInput(f"{path}: its WAV header is damaged (no channels); record or copy it again")
    stated, rest = divmod(frame_bytes, channels)
    if not rest and code == _PCM and bits > 16 and stated == 4:
        width = 4  # 24 bits in 4 bytes and their like
    elif frame_bytes != channels * width:
        notes.append(
            f"{path}: its header states frames of {_count(frame_bytes, 'byte')}; read as {channels * width}, "
            f"for {_count(channels, 'channel')} of {bits} bits"
        )
    if not rate_hz:
        rate_hz = byte_rate // (channels * width)
    return _WavForm(code, channels, rate_hz, bits, width)


def _is_chunk(data: np.ndarray, at: int) -> bool:
    """Whether a chunk can begin here: four letters, and a size that the file has room for."""
    name = data[at : at + 4].tobytes()
    size = int.from_bytes(data[at + 4 : at + 8].tobytes(), "little")
    # four letters alone come about by chance
    return (
        len(name) == 4
        and name[:1].isalpha()
        and all(32 <= c < 127 for c in name)
        and (at + 8 + size <= len(data) + 1 or name in _CHUNKS)
    )


def _wav_chunks(data: np.ndarray) -> tuple[bytes | None, list[tuple[int, int]], int | None]:
    """The format, (start, stated size) of each data chunk, and the size of the sound by a ds64 chunk."""
    form: bytes | None = None
    sounds: list[tuple[int, int]] = []
    long_size: int | None = None
    at = 12
    while at + 8 <= len(data):
        name = data[at : at + 4].tobytes()
        size = int.from_bytes(data[at + 4 : at + 8].tobytes(), "little")
        if name == b"data":
            if size == _UNKNOWN_SIZE and long_size:
                size = long_size
            sounds.append((at + 8, size))
        elif name == b"fmt " and form is None:
            form = data[at + 8 : at + 8 + size].tobytes()
        elif name == b"ds64" and at + 24 <= len(data):
            long_size = int.from_bytes(data[at + 16 : at + 24].tobytes(), "little")
        at += 8 + size
        # the byte that makes a size even is left out by some
        if size % 2 and not (at < len(data) and data[at] and _is_chunk(data, at)):
            at += 1
        if sounds and not _is_chunk(data, at):
            break
    return form, sounds, long_size


def _searched(data: np.ndarray) -> tuple[bytes | None, list[tuple[int, int]]]:
    """Format and sound by their names, where the sizes of the chunks before lead nowhere."""
    head = data[: 1 << 16].tobytes()
    found = head.find(b"fmt ", 12)
    form = head[found + 8 : found + 8 + 40] if found > 0 else None
    at = head.find(b"data", max(found, 12))
    if at < 0 or at + 8 > len(head):
        return form, []
    return form, [(at + 8, int.from_bytes(head[at + 4 : at + 8], "little"))]


def _read_wav(path: Path, rates_hz: tuple[int, int], channel: Channel) -> Sound:
    data = np.memmap(path, dtype=np.uint8, mode="r")
    chunk, sounds, _ = _wav_chunks(data)
    if not sounds or chunk is None or len(chunk) < 16:
        chunk, sounds = _searched(data)
    if not sounds or chunk is None or len(chunk) < 16:
        raise BadInput(f"{path}: its WAV header is cut off or damaged; record or copy it again")
    notes: list[str] = []
    form = _wav_form(path, chunk, notes)
    _checked_rate(path, form.rate_hz, rates_hz)
    pieces = _wav_sound(path, data, sounds, form, notes)
    raw = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    raw = raw.reshape(-1, form.channels, form.width)

    def one(n: int) -> np.ndarray:
        return _decoded(np.ascontiguousarray(raw[:, n]), form.code, form.bits)

    levels = [_level(one(n)) for n in range(form.channels)] if form.channels > 1 else [0.0]
    taken = _channel_of(path, channel, levels, notes)
    whole_bits = -(-form.bits // 8) * 8
    return _finished(
        path, one(taken), notes, form.rate_hz, form.channels, whole_bits, "WAV", form.code == _FLOAT
    )


def _wav_sound(
    path: Path, data: np.ndarray, sounds: list[tuple[int, int]], form: _WavForm, notes: list[str]
) -> list[np.ndarray]:
    """The bytes of the sound, whole frames, weighed against what the header states of them."""
    frame_bytes, rate_hz = form.frame_bytes, form.rate_hz

    def seconds(size: int) -> str:
        return f"{size // frame_bytes / rate_hz:.3f} s"

    pieces = []
    for start, size in sounds[:-1]:
        pieces.append((start, size))
    start, size = sounds[-1]
    there = len(data) - start
    rest = there - size
    if size >= _PLACEHOLDER and size > there:
        notes.append(f"{path}: its header was never finished; all {seconds(there)} that follow it are used")
        size = there
    elif size > there:
        notes.append(
            f"{path}: is truncated: {seconds(there)} of the promised {seconds(size)} are there and are used"
        )
        size = there
    elif rest > _TAIL or (not size and rest >= frame_bytes):
        behind = start + size + size % 2
        if not (_is_chunk(data, behind) or _is_chunk(data, start + size)):
            if size:
                notes.append(
                    f"{path}: its header states {seconds(size)}, but {seconds(there)} follow it; all are used"
                )
            else:
                notes.append(
                    f"{path}: its header was never finished; all {seconds(there)} that follow it are used"
                )
            size = there
    pieces.append((start, size))
    pieces = [(start, size // frame_bytes * frame_bytes) for start, size in pieces if size >= frame_bytes]
    if len(pieces) > 1:
        notes.append(f"{path}: holds its sound in {len(pieces)} pieces; they are joined")
    return [np.asarray(data[start : start + size]) for start, size in pieces] or [np.zeros(0, np.uint8)]


def _decoded(raw: np.ndarray, code: int, bits: int) -> np.ndarray:
    """Bytes (n, width), little endian → numbers (n,) in ±1."""
    width = raw.shape[1]
    if code == _FLOAT:
        return raw.view("<f4" if bits == 32 else "<f8")[:, 0]
    if width == 1:  # the only unsigned one
        return (raw[:, 0].astype(np.float32) - 128.0) / 128.0
    wide = np.zeros((len(raw), 4), np.uint8)
    wide[:, 4 - width :] = raw
    x = wide.view("<i4")[:, 0]
    spare = 8 * width - bits
    if spare >= 8 and not _left_justified(x, spare):
        x = x << spare
    return (x / 2.0**31).astype(np.float32)


def _left_justified(x: np.ndarray, spare: int) -> bool:
    """Whether a sample's bits stand at the top of its bytes, as the format asks, and not at the bottom with
    the sign before them, as some write it."""
    low = x & ((1 << spare) - 1)
    top = x >> (31 - spare)
    return not low.any() or not bool(np.isin(top, (0, -1)).all())


def soundfile() -> Any:
    """The soundfile module; StethopiError with the remedy where it is missing."""
    try:
        import soundfile as module
    except (ImportError, OSError) as error:
        raise StethopiError(f"FLAC needs soundfile ({error}); run: pip install 'stethopi[device]'") from None
    return module


def _read_flac(path: Path, rates_hz: tuple[int, int], channel: Channel) -> Sound:
    module = soundfile()
    notes: list[str] = []
    blocks: list[np.ndarray] = []
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
            blocks.append(block.copy())
            if damage or len(block) < _FLAC_BLOCK:
                break
    every = np.concatenate(blocks)
    levels = [_level(every[:, n]) for n in range(channels)] if channels > 1 else [0.0]
    x = every[:, _channel_of(path, channel, levels, notes)]
    if damage or (0 < promised < 1 << 62 and len(x) < promised):
        of = f" of the promised {promised / rate_hz:.3f} s" if 0 < promised < 1 << 62 else ""
        notes.append(f"{path}: is truncated or damaged: {len(x) / rate_hz:.3f} s{of} are there and are used")
    return _finished(path, x, notes, rate_hz, channels, bits, "FLAC", False)


def _said(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).rstrip(". ")


def write_sound(path: Path | str, samples: np.ndarray, rate_hz: int, like: Sound | None = None) -> Path:
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


def _encoded(x: np.ndarray, bits: int, floating: bool) -> bytes:
    if floating:
        return x.astype("<f4" if bits == 32 else "<f8").tobytes()
    full = 2.0 ** (bits - 1)
    whole = np.clip(np.rint(x.astype(np.float64) * full), -full, full - 1).astype("<i4")
    if bits == 8:
        return (whole + 128).astype(np.uint8).tobytes()
    return np.ascontiguousarray(whole.view(np.uint8).reshape(-1, 4)[:, : bits // 8]).tobytes()


def read_working_rate(path: str | Path) -> tuple[np.ndarray, list[Any]]:
    """A file's sound at 2 kHz and its gaps, by the reader and the decimator of the live path."""
    from device.dsp.resample import Decimator
    from device.sources.files import read_sound

    sound = read_sound(Path(path))
    decimator = Decimator(sound.rate_hz)
    x = np.concatenate([decimator.process(sound.samples), decimator.flush()])
    return x, list(sound.working_gaps)
