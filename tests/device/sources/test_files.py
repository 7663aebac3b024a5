"""The one reader and writer of recordings: what is read, what is said, what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from device.durable import whole_file
from device.errors import BadInput, StethopiError
from device.sources.files import read_sound, wav_header, write_sound
from device.spans import Gap

RATE = 4000


def noise(n: int = 8000, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, n).astype(np.float32)


FORMATS = [
    ("wav", "PCM_U8", 8),
    ("wav", "PCM_16", 16),
    ("wav", "PCM_24", 24),
    ("wav", "PCM_32", 32),
    ("wav", "FLOAT", 32),
    ("wav", "DOUBLE", 64),
    ("flac", "PCM_S8", 8),
    ("flac", "PCM_16", 16),
    ("flac", "PCM_24", 24),
]


@pytest.mark.parametrize(("suffix", "subtype", "bits"), FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_is_read_and_kept(
    tmp_path: Path, suffix: str, subtype: str, bits: int, channels: int
) -> None:
    """Against libsndfile: what it wrote is read to the bit, and what is written here it reads the same."""
    path = tmp_path / f"in.{suffix}"
    soundfile.write(path, np.stack([noise(seed=c) for c in range(channels)], axis=1), RATE, subtype=subtype)
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0][:, 0]
    sound = read_sound(path)
    assert np.array_equal(sound.samples, expected) and sound.samples.dtype == np.float32
    assert (sound.rate_hz, sound.channels, sound.bits, sound.seconds) == (RATE, channels, bits, 2.0)
    assert sound.notes == ([f"{path}: has 3 channels; the first is used"] if channels == 3 else [])

    out = write_sound(tmp_path / f"out.{suffix}", sound.samples, sound.rate_hz, like=sound)
    info = soundfile.info(out)
    assert (info.subtype, info.frames, info.samplerate, info.channels) == (subtype, 8000, RATE, 1)
    assert np.array_equal(soundfile.read(out, dtype="float32")[0], expected)
    assert np.array_equal(read_sound(out).samples, expected)


@pytest.mark.parametrize("rate", [2000, 44100, 191_999, 192_000])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_odd_rates_and_lengths(tmp_path: Path, rate: int, suffix: str) -> None:
    if (rate, suffix) == (191_999, "flac"):
        with pytest.raises(
            BadInput, match="FLAC cannot hold a rate of 191999 Hz; choose a name that ends in"
        ):
            write_sound(tmp_path / "x.flac", noise(999), rate)
        return
    path = write_sound(tmp_path / f"x.{suffix}", noise(999), rate)
    sound = read_sound(path)
    assert (sound.rate_hz, len(sound.samples), sound.bits) == (rate, 999, 16)
    assert np.abs(sound.samples - noise(999)).max() < 2**-15


def test_the_extensible_header_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, np.stack([noise(), noise()], axis=1), RATE, format="WAVEX", subtype="PCM_24")
    assert path.read_bytes()[20:22] == b"\xfe\xff"
    assert np.abs(read_sound(path).samples - noise()).max() < 2**-22
    soundfile.write(path, noise(), RATE, format="RF64", subtype="PCM_16")
    assert len(read_sound(path).samples) == 8000


def test_chunks_before_the_sound_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, noise(100), RATE, subtype="PCM_16")
    data = path.read_bytes()
    path.write_bytes(data[:12] + b"LIST" + struct.pack("<I", 3) + b"abc\0" + data[12:] + b"LIST\x02\0\0\0xx")
    assert len(read_sound(path).samples) == 100


def test_of_a_truncated_wav_what_is_there_is_used(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "x.wav", noise(), RATE)
    path.write_bytes(path.read_bytes()[: 44 + 4001])  # a byte of a sample too
    sound = read_sound(path)
    assert len(sound.samples) == 2000
    assert sound.notes == [
        f"{path}: is truncated: 0.500 s of the promised 2.000 s are there and are used",
    ]


@pytest.mark.parametrize("share", [0.9, 0.66, 0.4])
def test_of_a_truncated_flac_what_is_there_is_used(tmp_path: Path, share: float) -> None:
    x = noise(40000)
    path = write_sound(tmp_path / "x.flac", x, RATE)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    sound = read_sound(path)
    assert share - 0.11 < len(sound.samples) / 40000 <= share
    assert np.abs(sound.samples - x[: len(sound.samples)]).max() < 2**-15
    (note,) = sound.notes
    assert str(path) in note and "truncated" in note and "of the promised 10.000 s" in note


def test_of_a_damaged_flac_what_stands_before_is_used(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "x.flac", noise(40000), RATE)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    sound = read_sound(path)
    assert 12000 < len(sound.samples) < 20001 and "damaged" in sound.notes[0]
    assert np.abs(sound.samples - noise(40000)[: len(sound.samples)]).max() < 2**-15


@pytest.mark.parametrize("promised", [0, 0xFFFFFFFF])
def test_a_header_that_was_never_finished(tmp_path: Path, promised: int) -> None:
    path = write_sound(tmp_path / "x.wav", noise(), RATE)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = struct.pack("<I", promised)
    path.write_bytes(data)
    sound = read_sound(path)
    assert len(sound.samples) == 8000
    assert "never finished; all 2.000 s that follow it are used" in sound.notes[0]


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_what_is_no_number_is_a_gap(tmp_path: Path, subtype: str) -> None:
    x = noise().astype(np.float64)
    x[10:20] = np.nan
    x[300] = np.inf
    x[7999] = -np.inf if subtype == "FLOAT" else 1e300  # more than float32 can hold
    path = tmp_path / "x.wav"
    soundfile.write(path, x, RATE, subtype=subtype)
    sound = read_sound(path)
    assert sound.gaps == [Gap(10, 20), Gap(300, 301), Gap(7999, 8000)]
    assert sound.working_gaps == [Gap(5, 10), Gap(150, 151), Gap(3999, 4000)]
    assert np.isfinite(sound.samples).all() and not sound.samples[10:20].any()
    assert sound.notes == [f"{path}: 12 samples in 3 places are no numbers; treated as gaps"]


def bad(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read_sound(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "; " in message and "\n" not in message
    return message


def test_what_is_refused_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    assert bad(path) == f"{path}: no such file; check the name"
    assert bad(tmp_path) == f"{tmp_path}: is a folder; give a WAV or FLAC file"
    path.touch()
    assert bad(path) == f"{path}: is empty; record or copy it again"
    path.write_text("lub dub\n" * 50)
    assert "neither a WAV nor a FLAC file, whatever its name says; convert it" in bad(path)
    for rate in (1000, 1999, 192_001, 384_000):
        soundfile.write(path, noise(), rate)
        assert f"its rate of {rate} Hz is not from 2000 to 192000 Hz; resample it" in bad(path)
        assert bad(path).endswith("sox x.wav out.wav rate 4000")
    soundfile.write(path, noise(), RATE, subtype="ULAW")
    assert "holds WAV format 7 with 8 bits, which is not read here; convert it" in bad(path)
    path.write_bytes(wav_header(0, RATE, 16))
    assert bad(path) == f"{path}: holds a header but no sound; record or copy it again"
    path.write_bytes(wav_header(0, RATE, 16)[:30])
    assert "its WAV header is cut off or damaged" in bad(path)
    header = bytearray(wav_header(100, RATE, 16))
    header[32] = 3
    path.write_bytes(header + bytes(200))
    assert read_sound(path).notes == [
        f"{path}: its header states frames of 3 bytes; read as 2, for 1 channel of 16 bits"
    ]
    flac = write_sound(tmp_path / "x.flac", noise(), RATE)
    flac.write_bytes(flac.read_bytes()[:20])
    assert "its FLAC header is cut off or damaged" in bad(flac)
    soundfile.write(flac, noise(), 1000)
    assert "its rate of 1000 Hz" in bad(flac)


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_a_wav_cut_anywhere_is_read_or_refused_but_never_a_traceback(tmp_path: Path, cut: int) -> None:
    path = write_sound(tmp_path / "x.wav", noise(100), RATE)
    path.write_bytes(path.read_bytes()[:cut])
    try:
        assert 0 < len(read_sound(path).samples) <= 8
    except BadInput:
        assert cut < 46


def test_formats_that_cannot_hold_it_get_the_nearest(tmp_path: Path) -> None:
    wide = read_sound(write_sound(tmp_path / "a.wav", noise(), RATE))
    assert wide.bits == 16
    soundfile.write(tmp_path / "f.wav", noise(), RATE, subtype="FLOAT")
    like = read_sound(tmp_path / "f.wav")
    out = write_sound(tmp_path / "o.flac", like.samples, RATE, like=like)
    assert soundfile.info(out).subtype == "PCM_24"
    assert np.abs(read_sound(out).samples - like.samples).max() < 2**-23


def test_beyond_full_scale_is_clipped_not_wrapped(tmp_path: Path) -> None:
    for name in ("x.wav", "x.flac"):
        y = read_sound(write_sound(tmp_path / name, np.array([1.5, -1.5, 0.5], np.float32), RATE)).samples
        assert y[0] > 0.99 and y[1] == -1.0 and y[2] == 0.5


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"x.mp3: sound is written as .wav or .flac; choose one"):
        write_sound(tmp_path / "x.mp3", noise(), RATE)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "x.wav"
    with pytest.raises(RuntimeError), whole_file(target) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    target.write_text("old")
    with whole_file(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and list(tmp_path.iterdir()) == [target]
    (tmp_path / "in-the-way").touch()
    with pytest.raises(StethopiError, match="cannot be written"):
        write_sound(tmp_path / "in-the-way" / "x.wav", noise(), RATE)


# ---- headers weighed against the bytes


def riff(*chunks: tuple[bytes, int | None, bytes], size: int | None = None, kind: bytes = b"RIFF") -> bytes:
    """A WAV of chunks (name, stated size, bytes); None: the true size."""
    body = b"WAVE" + b"".join(
        name + struct.pack("<I", len(data) if stated is None else stated) + data + b"\0" * (len(data) % 2)
        for name, stated, data in chunks
    )
    return kind + struct.pack("<I", len(body) if size is None else size) + body


def form(bits: int = 16, channels: int = 1, code: int = 1, frame: int | None = None) -> bytes:
    frame = channels * bits // 8 if frame is None else frame
    return struct.pack("<HHIIHH", code, channels, RATE, RATE * frame, frame, bits)


SOUND = np.rint(noise() * 32767).astype("<i2")
EXPECTED = SOUND / np.float32(32768)


@pytest.mark.parametrize("stated", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 2048])
@pytest.mark.parametrize("riff_size", [0, 8, 36, 0xFFFFFFFF, 7])
def test_a_size_that_was_never_put_right_loses_nothing(tmp_path: Path, stated: int, riff_size: int) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(riff((b"fmt ", None, form()), (b"data", stated, SOUND.tobytes()), size=riff_size))
    sound = read_sound(path)
    assert np.array_equal(sound.samples, EXPECTED)
    assert len(sound.notes) == 1 and "2.000 s" in sound.notes[0] and "used" in sound.notes[0]


@pytest.mark.parametrize(
    "tail",
    [
        (b"LIST", None, b"INFOISFT" + bytes(600)),
        (b"id3 ", None, bytes(999)),
        (b"LIST", 5000, bytes(600)),  # cut off
        (b"data", 0, b""),
    ],
)
def test_chunks_behind_the_sound_are_no_sound(tmp_path: Path, tail: tuple[bytes, int | None, bytes]) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(riff((b"fmt ", None, form()), (b"data", None, SOUND.tobytes()), tail, size=0))
    assert np.array_equal(read_sound(path).samples, EXPECTED) and not read_sound(path).notes


def test_a_tag_without_a_chunk_is_no_sound(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(riff((b"fmt ", None, form()), (b"data", None, SOUND.tobytes())) + b"TAG" + bytes(125))
    assert np.array_equal(read_sound(path).samples, EXPECTED) and not read_sound(path).notes


@pytest.mark.parametrize("last", [None, 0, 0xFFFFFFFF])
def test_several_data_chunks_are_joined_and_said(tmp_path: Path, last: int | None) -> None:
    path = tmp_path / "x.wav"
    raw = SOUND.tobytes()
    path.write_bytes(
        riff(
            (b"fmt ", None, form()),
            (b"data", None, raw[:6000]),
            (b"LIST", None, bytes(301)),
            (b"data", last, raw[6000:]),
        )
    )
    sound = read_sound(path)
    assert np.array_equal(sound.samples, EXPECTED)
    assert sound.notes[-1] == f"{path}: holds its sound in 2 pieces; they are joined"


def test_chunks_whose_sizes_lead_nowhere_are_searched(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    junk = (b"JUNK", 70_000_000, bytes(28))
    path.write_bytes(riff(junk, (b"fmt ", None, form()), (b"data", None, SOUND.tobytes())))
    assert np.array_equal(read_sound(path).samples, EXPECTED)


@pytest.mark.parametrize("frame", [0, 1, 3, 4, 8])
def test_a_wrong_block_align_is_put_right_and_said(tmp_path: Path, frame: int) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(riff((b"fmt ", None, form(frame=frame)), (b"data", None, SOUND.tobytes())))
    sound = read_sound(path)
    assert np.array_equal(sound.samples, EXPECTED) and sound.bits == 16
    assert len(sound.notes) == 1 and f"frames of {frame} byte" in sound.notes[0]


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("channels", [1, 2])
def test_24_bits_in_4_bytes_stand_on_either_side(tmp_path: Path, left: bool, channels: int) -> None:
    x = np.rint(noise() * 2**23).astype("<i4")
    frames = np.stack([x << 8 if left else x] * channels, axis=1)
    path = tmp_path / "x.wav"
    path.write_bytes(
        riff((b"fmt ", None, form(24, channels, frame=4 * channels)), (b"data", None, frames.tobytes()))
    )
    sound = read_sound(path)
    np.testing.assert_array_equal(sound.samples, x / np.float32(2**23))
    assert sound.bits == 24
    assert np.array_equal(
        read_sound(write_sound(tmp_path / "o.wav", sound.samples, RATE, like=sound)).samples, sound.samples
    )


# ---- floating point beyond full scale


@pytest.mark.parametrize(("bits", "scale"), [(16, 9400.0), (16, 30.0), (24, 3e6), (32, 9e8)])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floating_point_at_another_scale_is_recognised(
    tmp_path: Path, bits: int, scale: float, subtype: str
) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, noise() * scale, RATE, subtype=subtype)
    sound = read_sound(path)
    np.testing.assert_allclose(sound.samples, noise() * scale / 2 ** (bits - 1), rtol=1e-5)
    assert len(sound.notes) == 1 and f"{bits}-bit" in sound.notes[0]


def test_floating_point_a_little_beyond_is_kept_and_said(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, noise() * 2, RATE, subtype="FLOAT")
    sound = read_sound(path)
    assert np.array_equal(sound.samples, noise() * 2) and "nothing is clipped" in sound.notes[0]


def test_a_scale_that_is_none_is_refused_and_wild_samples_are_gaps(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, noise() * 1e20, RATE, subtype="FLOAT")
    assert "which is no scale of sound" in bad(path)
    x = noise()
    x[[100, 101, 5000]] = 1e30
    soundfile.write(path, x, RATE, subtype="FLOAT")
    sound = read_sound(path)
    assert sound.gaps == [Gap(100, 102), Gap(5000, 5001)] and np.abs(sound.samples).max() < 1


# ---- channels


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_channel_is_chosen_and_a_silent_first_one_said(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    silent = np.full(8000, 0.25, np.float32)  # an offset is no sound
    soundfile.write(path, np.stack([silent, noise(seed=2) / 2, noise(seed=3)], axis=1), RATE)
    sound = read_sound(path)
    assert sound.notes == [
        f"{path}: has 3 channels; the first is used",
        f"{path}: channel 1 is silent, channel 3 is not; give --channel 3 or --channel loudest",
    ]
    second = read_sound(path, channel=2)
    np.testing.assert_allclose(second.samples, noise(seed=2) / 2, atol=1e-4)
    assert second.notes == [f"{path}: has 3 channels; channel 2 is used"]
    np.testing.assert_allclose(read_sound(path, channel="loudest").samples, noise(seed=3), atol=1e-4)
    with pytest.raises(BadInput, match="has 3 channels, and no channel 4; give one of 1 to 3, or loudest"):
        read_sound(path, channel=4)
    soundfile.write(path, np.stack([noise(), noise(seed=2) / 20], axis=1), RATE)
    assert len(read_sound(path).notes) == 1
