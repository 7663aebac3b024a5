"""What goes to the ear: limited, faded, counted, and never in the way of the sound thread."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyaudio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device import listen
from device.errors import StethopiError
from device.listen import FADE, DeviceListener, FileListener, NoListener, Shaper, open_listener
from device.settings import ListenSettings
from device.sources.files import read_sound
from device.sources.microphone import Microphone
from tests.audio_loop import MICROPHONE, SPEAKER, AudioLoop, audio_loop

__all__ = ["audio_loop"]

LOUD = ListenSettings(limit=1.0)


def noise(n: int, seed: int = 1, level: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-level, level, n).astype(np.float32)


@settings(deadline=None)
@given(
    n=st.integers(0, 300),
    cuts=st.lists(st.integers(0, 300), max_size=8),
    gain=st.floats(-20, 40),
    limit=st.floats(0.05, 1.0),
)
def test_the_ear_is_safe_and_chopping_changes_nothing(
    n: int, cuts: list[int], gain: float, limit: float
) -> None:
    x = noise(n, level=1.0)
    whole = Shaper(gain, limit).process(x)
    assert np.abs(whole).max(initial=0.0) <= limit * 1.000001
    shaper, edges = Shaper(gain, limit), [0, *sorted(c % (n + 1) for c in cuts), n]
    pieces = [shaper.process(x[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    assert np.array_equal(np.concatenate(pieces), whole)


def test_soft_sound_is_only_amplified_and_loud_sound_bends() -> None:
    x = np.linspace(-1, 1, 2001, dtype=np.float32)
    shaper = Shaper(6.0, 0.8)
    shaper.process(np.zeros(FADE))
    y = shaper.process(x)
    gain = 10 ** (6 / 20)
    soft = np.abs(x * gain) <= 0.56
    assert np.allclose(y[soft], x[soft] * gain, atol=1e-6)
    assert np.all(np.diff(y) > 0) or np.all(np.diff(y[np.abs(y) < 0.79]) > 0)
    assert np.abs(np.diff(y, 2)).max() < 1e-4  # no corner


def test_nothing_pops() -> None:
    """A constant, the worst case: it rises and falls in small steps, and a new gain comes in small steps
    too."""
    shaper = Shaper()
    first = shaper.process(np.full(400, 0.5))
    shaper.set_gain_db(6.0)
    louder = shaper.process(np.full(400, 0.5))
    whole = np.concatenate(
        [[0.0], first, louder, shaper.tail(), shaper.process(np.full(50, 0.5)), shaper.tail(), [0.0]]
    )
    assert np.abs(np.diff(whole)).max() < 0.09
    assert first[-1] == 0.5 and louder[-1] == pytest.approx(0.96, abs=0.05) and shaper.tail()[-1] == 0


def fed(listener: FileListener, x: np.ndarray, raw: np.ndarray | None = None) -> None:
    listener.start()
    for at in range(0, len(x), 16):
        piece = x[at : at + 16]
        listener.hear(piece * 0 if raw is None else raw[at : at + 16], piece)
    listener.stop()


def test_a_file_holds_what_would_be_heard(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "out.wav"
    listener = open_listener(ListenSettings(output=f"file:{path}", limit=1.0))
    assert isinstance(listener, FileListener)
    x = noise(5008)
    fed(listener, x)
    listener.stop()
    sound = read_sound(path)
    assert (sound.rate_hz, sound.bits, sound.notes) == (2000, 24, [])
    assert len(sound.samples) == 5008 + FADE and listener.dropped == 0 and listener.delay_s == 0
    assert np.abs(sound.samples[FADE:5008] - x[FADE:]).max() < 2**-22
    assert sound.samples[-1] == 0 and abs(sound.samples[0]) < 0.01
    assert [p.name for p in path.parent.iterdir()] == ["out.wav"]


@pytest.mark.parametrize("monitor", ["raw", "clean"])
def test_raw_or_clean(tmp_path: Path, monitor: str) -> None:
    path = tmp_path / "out.wav"
    listener = FileListener(path, ListenSettings(monitor=monitor, limit=1.0))
    fed(listener, noise(320, 1), raw=noise(320, 2))
    expected = noise(320, 2 if monitor == "raw" else 1)
    assert np.abs(read_sound(path).samples[FADE:320] - expected[FADE:]).max() < 2**-22


def test_the_files_header_is_right_at_every_moment(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    listener = FileListener(path, LOUD)
    listener.start()
    seen = 0
    for _ in range(20):
        listener.hear(noise(500), noise(500))
        time.sleep(0.005)
        (temporary,) = tmp_path.iterdir()
        data = temporary.read_bytes()
        if len(data) > 44:
            promised = int.from_bytes(data[40:44], "little")
            assert 0 <= promised <= len(data) - 44 and promised % 3 == 0
            seen += promised > 0
    listener.stop()
    assert seen and read_sound(path).notes == []


def test_what_a_file_cannot_take_in_time_is_counted_and_the_rest_stays_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "_FILE_QUEUE", 1600)
    path = tmp_path / "out.wav"
    listener = FileListener(path, LOUD)
    busy, hold = threading.Event(), threading.Event()
    write = listener._write
    monkeypatch.setattr(listener, "_write", lambda y: (busy.set(), hold.wait(30), write(y)))
    listener.start()
    x = noise(8000)
    for at in range(0, 6000, 100):
        listener.hear(x[at : at + 100], x[at : at + 100])
        if at == 900:  # a thousand samples are taken, and the disk is slow
            assert busy.wait(30)
    assert listener.dropped == 6000 - 1000 - 1600
    hold.set()
    while listener._queued > 1000:
        time.sleep(0.01)
    listener.hear(x[6000:6100], x[6000:6100])
    listener.stop()
    y = read_sound(path).samples
    assert len(y) == 6100 + FADE
    kept = 6000 - listener.dropped
    assert np.abs(y[FADE:kept] - x[FADE:kept]).max() < 2**-22
    assert not y[kept + FADE : 6000].any()
    assert np.abs(y[6000 + FADE : 6100] - x[6000 + FADE : 6100]).max() < 2**-22


def test_a_full_disk_ends_the_file_not_the_exam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = FileListener(tmp_path / "out.wav", LOUD)

    def full(y: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(listener, "_write", full)
    listener.start()
    for _ in range(5):
        listener.hear(noise(1000), noise(1000))
        time.sleep(0.01)
    listener.stop()
    assert listener.problem and "No space left on device); free space" in listener.problem


def test_a_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        StethopiError, match=r"cannot be written \(.*\); choose another file in \[listen\] output"
    ):
        FileListener(tmp_path / "file" / "out.wav", LOUD).start()


def test_nobody_listens_by_default() -> None:
    listener = open_listener(ListenSettings())
    assert isinstance(listener, NoListener)
    listener.start()
    listener.hear(noise(16), noise(16))
    listener.stop()
    assert (listener.dropped, listener.delay_s) == (0, 0.0)


class FakeAudio:
    """A card that plays when told to."""

    def __init__(self, rates: tuple[int, ...] = (48000,), channels: int = 1) -> None:
        self.rates, self.channels = rates, channels
        self.options: dict[str, Any] = {}
        self.log: list[str] = []

    def get_device_count(self) -> int:
        return 1

    def get_device_info_by_index(self, index: int) -> dict[str, Any]:
        return {"index": 0, "name": "Headphones", "maxInputChannels": 0, "maxOutputChannels": 2}

    def get_default_output_device_info(self) -> dict[str, Any]:
        return self.get_device_info_by_index(0)

    def open(self, **options: Any) -> FakeAudio:
        if options["rate"] not in self.rates or options["channels"] != self.channels:
            raise OSError(-9997, "Invalid sample rate")
        self.options = options
        return self

    def start_stream(self) -> None:
        self.log.append("start")

    def stop_stream(self) -> None:
        self.log.append("drain")

    def close(self) -> None:
        self.log.append("close")

    def play(self, frames: int) -> np.ndarray:
        data, answer = self.options["stream_callback"](None, frames, {}, 0)
        assert answer == pyaudio.paContinue
        y = np.frombuffer(data, np.float32)
        assert len(y) == frames * self.options["channels"]
        return y


def device_listener(audio: FakeAudio) -> DeviceListener:
    listener = DeviceListener("head", LOUD, audio=audio)
    listener.start()
    return listener


@pytest.mark.parametrize(("rate", "channels"), [(48000, 1), (44100, 2), (8000, 1)])
def test_a_card_plays_the_sound_at_its_rate(rate: int, channels: int) -> None:
    audio = FakeAudio((rate,), channels)
    listener = device_listener(audio)
    assert listener.name == "output Headphones" and listener.rate_hz == rate
    heard = []
    for hop in range(250):
        at = np.arange(16 * hop, 16 * hop + 16) / 2000
        x = 0.5 * np.sin(2 * np.pi * 100 * at)
        listener.hear(x, x)
        heard.append(audio.play(round(rate * 0.008)))
    y = np.concatenate(heard)[::channels]
    n = len(y) // 2
    spectrum = np.abs(np.fft.rfft(y[n:] * np.hanning(len(y) - n)))
    assert np.argmax(spectrum) * rate / (len(y) - n) == pytest.approx(100, abs=1)
    assert np.abs(y[n:]).max() == pytest.approx(0.5, abs=0.01)
    assert (listener.dropped, listener.underruns) == (0, 0)
    assert np.abs(np.diff(y)).max() < 2 * np.pi * 100 / rate * 0.5 * 1.3  # no jump anywhere
    first = int(np.flatnonzero(np.abs(y) > 0.05)[0]) / rate
    assert 0.02 < first < listener.delay_s + 0.01


def test_when_the_sound_stops_coming_it_fades_and_is_counted() -> None:
    audio = FakeAudio()
    listener = device_listener(audio)
    ones = np.full(16, 0.5, np.float32)
    for _ in range(10):
        listener.hear(ones, ones)
    y = [audio.play(480) for _ in range(30)]
    assert listener.underruns == 1
    for _ in range(10):
        listener.hear(ones, ones)
    y += [audio.play(480) for _ in range(30)]
    assert listener.underruns == 2
    whole = np.concatenate(y)
    assert whole.max() == pytest.approx(0.5, abs=0.02) and not whole[-4800:].any()
    assert np.abs(np.diff(whole)).max() < 0.005


def test_a_card_that_does_not_play_drops_and_holds_nobody_up() -> None:
    listener = device_listener(FakeAudio())
    for _ in range(1000):
        listener.hear(noise(16), noise(16))
    assert listener.dropped == 16000 - 496


def test_the_end_is_played_and_fades() -> None:
    audio = FakeAudio()
    listener = device_listener(audio)
    ones = np.full(16, 0.5, np.float32)
    for _ in range(20):
        listener.hear(ones, ones)
    ending = threading.Thread(target=listener.stop)
    ending.start()
    y = []
    while ending.is_alive() and len(y) < 200:
        y.append(audio.play(480))
        ending.join(0.002)
    ending.join(10)
    whole = np.concatenate(y)
    assert audio.log == ["start", "drain", "close"]
    assert np.sum(whole) / 24 == pytest.approx(0.5 * 320, rel=0.05)
    assert abs(whole[-1]) < 1e-6 and np.abs(np.diff(whole)).max() < 0.005
    listener.stop()


def test_stop_does_not_wait_for_a_card_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "_DEVICE_QUEUE", 16)
    listener = device_listener(FakeAudio())
    listener.hear(noise(16), noise(16))
    listener.stop()
    listener.hear(noise(16), noise(16))
    assert listener.dropped == 16


def test_an_output_that_is_not_there_is_told() -> None:
    with pytest.raises(StethopiError) as caught:
        DeviceListener("USB", LOUD, audio=FakeAudio()).start()
    assert str(caught.value) == 'no output whose name contains "USB"; the outputs here: "Headphones"'
    with pytest.raises(StethopiError) as caught:
        DeviceListener("", LOUD, audio=FakeAudio(rates=())).start()
    assert str(caught.value) == (
        'output "Headphones" opens at none of 48000, 44100, 16000, 8000, 96000 Hz (Invalid sample rate); '
        'end what else plays, or set [listen] output = "none"'
    )


@pytest.mark.audio
def test_what_is_played_is_heard(audio_loop: AudioLoop) -> None:
    """From this program's output through a real driver to its own microphone."""
    listener = open_listener(ListenSettings(output=f"device:{SPEAKER}", limit=1.0))
    source = Microphone(MICROPHONE, rate_hz=8000)
    listener.start()
    source.start()
    over = threading.Event()

    def talk() -> None:
        started, hop = time.monotonic(), 0
        while not over.wait(max(started + 0.008 * hop - time.monotonic(), 0)):
            x = 0.4 * np.sin(2 * np.pi * 125 * np.arange(16 * hop, 16 * hop + 16) / 2000)
            listener.hear(x, x)
            hop += 1

    thread = threading.Thread(target=talk)
    thread.start()
    pieces: list[np.ndarray] = []
    try:
        while sum(map(len, pieces)) < 4 * 8000:
            block = source.read()
            assert block is not None
            pieces.append(block.samples)
    finally:
        over.set()
        thread.join()
        listener.stop()
        source.stop()
    y = np.concatenate(pieces)[-16000:]
    spectrum = np.abs(np.fft.rfft(y * np.hanning(len(y))))
    assert np.argmax(spectrum) / 2 == pytest.approx(125, abs=1)
    assert np.sqrt(2) * y.std() == pytest.approx(0.4, abs=0.12)
