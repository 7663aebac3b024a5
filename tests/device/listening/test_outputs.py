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

from device.errors import StethopiError
from device.listening import outputs as listen
from device.listening.outputs import PREFILL_S, DeviceListener, FileListener, NoListener, open_listener
from device.listening.shaper import FADE, Shaper
from device.settings.sections import ListenSettings
from device.sources.base import Block
from device.sources.files import read_sound
from device.sources.microphone import Microphone
from device.sources.portaudio import alone
from tests.audio_loop import MICROPHONE, SPEAKER, AudioLoop
from tests.device.draws import floats

LOUD = ListenSettings(limit=1.0, loudest_db=0.0)


def noise(n: int, seed: int = 1, level: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-level, level, n).astype(np.float32)


@settings(deadline=None)
@given(
    n=st.integers(0, 300),
    cuts=st.lists(st.integers(0, 300), max_size=8),
    gain=floats(-20, 40),
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
    listener = open_listener(ListenSettings(output=f"file:{path}", limit=1.0, loudest_db=0.0))
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
    listener = FileListener(path, ListenSettings(monitor=monitor, limit=1.0, loudest_db=0.0))
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


def test_a_hole_too_long_to_be_played_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    listener = open_listener(ListenSettings(output=f"file:{tmp_path / 'h.wav'}"))
    listener.start()
    listener.skip(3600 * 2000)
    listener.stop()
    assert isinstance(listener, FileListener) and listener.left_out == 7_200_000
    assert "h.wav: 3600 s without sound are left out; what follows stands so much too early" in caplog.text


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
        self.there = True

    def is_active(self) -> bool:
        return self.there

    def get_device_count(self) -> int:
        return int(self.there)

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
    assert 16000 - 500 <= listener.dropped <= 16000 - PREFILL_S * 2000
    assert np.array_equal(listener._working._queue[-1][0], noise(16)), "what is new is kept"


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
    assert listener.dropped == 16 and listener.delay_s > 0.04


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


def direct_listener(audio: FakeAudio, capture_rate_hz: int = 48000, **settings: Any) -> DeviceListener:
    listener = DeviceListener(
        "",
        ListenSettings(limit=1.0, loudest_db=0.0, **settings),
        capture_rate_hz=capture_rate_hz,
        audio=audio,
    )
    listener.start()
    return listener


def block(samples: np.ndarray, index: int = 0, lost: int = 0) -> Block:
    return Block(samples.astype(np.float32), index, time.monotonic(), lost)


def test_raw_sound_goes_round_the_working_rate_to_the_bit() -> None:
    audio = FakeAudio((48000, 44100))
    listener = direct_listener(audio, 44100, monitor="raw")
    assert audio.options["rate"] == listener.rate_hz == 44100
    x = noise(441 * 20)
    heard = []
    for n in range(20):
        listener.tap(block(x[441 * n : 441 * (n + 1)]))
        listener.hear(noise(16), noise(16))
        heard.append(audio.play(441))
    assert np.array_equal(np.concatenate(heard)[441:], x[441:])
    assert (listener.dropped, listener.underruns) == (0, 0)
    assert listener.direct is not None and listener.direct.waited.count == 20
    assert set(listener.parts) == {"waiting", "output block"}


def test_a_card_of_another_rate_plays_raw_sound_from_the_working_rate() -> None:
    audio = FakeAudio((48000,))
    listener = direct_listener(audio, 44100, monitor="raw")
    assert listener.rate_hz == 48000 and listener.direct is None
    for _ in range(60):
        listener.tap(block(noise(441)))
        listener.hear(np.full(16, 0.5, np.float32), np.full(16, -0.5, np.float32))
        y = audio.play(384)
    assert y[-1] == pytest.approx(0.5, abs=0.01)
    listener.change(monitor="clean")
    for _ in range(60):
        listener.hear(np.full(16, 0.5, np.float32), np.full(16, -0.5, np.float32))
        y = audio.play(384)
    assert y[-1] == pytest.approx(-0.5, abs=0.01)


def test_switching_between_raw_and_clean_does_not_click_and_leaves_no_hole() -> None:
    audio = FakeAudio((48000,))
    listener = direct_listener(audio, monitor="clean")
    heard: list[np.ndarray] = []

    def go_on(blocks: int) -> np.ndarray:
        first = len(heard)
        for _ in range(blocks):
            listener.tap(block(np.full(480, 0.5)))
            for _ in range(5):
                listener.hear(np.zeros(4, np.float32), np.full(4, 0.4, np.float32))
            heard.append(audio.play(480))
        return np.concatenate(heard[first:])

    assert go_on(20)[-1] == pytest.approx(0.4, abs=0.01)
    for monitor, level in (("raw", 0.5), ("clean", 0.4), ("raw", 0.5)):
        listener.change(monitor=monitor)
        assert go_on(20)[-1] == pytest.approx(level, abs=0.01)
    listener.change(monitor="clean")
    listener.change(monitor="raw")
    go_on(2)
    whole = np.concatenate(heard)
    assert np.abs(np.diff(whole)).max() < 0.006
    assert whole[9600:].min() > 0.35, "the sound before goes on until the next one is there"
    assert whole.max() < 0.56 and listener.underruns == 0, "nor are the two heard at once"


def test_preset_and_gain_change_while_it_plays() -> None:
    audio = FakeAudio((48000,))
    listener = direct_listener(audio, monitor="raw", preset="bell")
    heard: list[np.ndarray] = []
    at = 0

    def level(seconds: float) -> float:
        nonlocal at
        for _ in range(round(seconds * 100)):
            t = np.arange(at, at + 480) / 48000
            at += 480
            listener.tap(block(0.2 * np.sin(2 * np.pi * 400 * t)))
            heard.append(audio.play(480))
        return float(np.abs(np.concatenate(heard[-10:])).max())

    assert level(0.5) < 0.02, "400 Hz is above the bell's band"
    listener.change(preset="diaphragm")
    assert level(0.5) == pytest.approx(0.2 * 10 ** (-0.6 / 20), rel=0.05)
    listener.change(gain_db=6.0)
    assert level(0.5) == pytest.approx(0.4 * 10 ** (-0.6 / 20), rel=0.05)
    assert np.abs(np.diff(np.concatenate(heard))).max() < 0.4 * 2 * np.pi * 400 / 48000 * 1.1


def test_a_file_hears_changes_too(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    listener = FileListener(path, ListenSettings(monitor="clean", limit=1.0, loudest_db=0.0))
    listener.start()
    raw, clean = np.full(1000, 0.5, np.float32), np.full(1000, 0.25, np.float32)
    listener.hear(raw, clean)
    listener.change(monitor="raw", gain_db=0.0)
    listener.tap(block(raw))
    listener.hear(raw, clean)
    listener.stop()
    y = read_sound(path).samples
    assert y[999] == pytest.approx(0.25, abs=1e-4) and y[1999] == pytest.approx(0.5, abs=1e-4)
    assert np.abs(np.diff(y)).max() < 0.05


def test_nobody_hears_changes_either() -> None:
    listener = NoListener()
    listener.change(monitor="raw", preset="bell", gain_db=3.0)
    listener.tap(block(noise(16)))
    assert listener.parts == {}


@pytest.mark.audio
def test_what_is_played_is_heard(audio_loop: AudioLoop) -> None:
    """From this program's output through a real driver to its own microphone."""
    listener = open_listener(ListenSettings(output=f"device:{SPEAKER}", limit=1.0, loudest_db=0.0))
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


# ---- an output that goes and comes back


def test_portaudio_looks_for_cards_anew_only_when_nobody_holds_it() -> None:
    audio = FakeAudio()
    listener = device_listener(audio)
    with alone():
        assert listener._stream is None
        listener.hear(np.zeros(100, np.float32), np.zeros(100, np.float32))
    assert listener._stream is audio and audio.log.count("start") == 2 and listener.dropped == 100
    listener.stop()
    with alone():
        pass
    assert listener._stream is None and audio.log.count("start") == 2


def test_an_output_that_is_gone_is_told_once_and_opened_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "listen")
    audio = FakeAudio()
    listener = device_listener(audio)
    audio.there = False
    second = np.zeros(2000, np.float32)
    for _ in range(5):
        listener.hear(second, second)
        if listener._mender is not None:
            listener._mender.join(20)
    assert listener._stream is None and caplog.text.count("went away") == 1
    audio.there = True
    for _ in range(3):
        listener.hear(second, second)
        if listener._mender is not None:
            listener._mender.join(20)
    assert listener._stream is not None and caplog.text.count("came back") == 1
    listener.stop()
