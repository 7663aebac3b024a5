"""The microphone: what is lost is told, whoever lost it; and a real capture path through a PulseAudio null
sink."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyaudio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.errors import SourceGone, StethopiError
from device.sources import open_source
from device.sources.capture import RATES_HZ, SampleClock
from device.sources.files import write_sound
from device.sources.microphone import Microphone
from device.sources.portaudio import quiet
from device.stream.intake import Intake
from device.stream.ring import Ring
from tests.audio_loop import MICROPHONE, AudioLoop
from tests.device.draws import floats


class FakeStream:
    def __init__(self, audio: FakeAudio, options: dict[str, Any]) -> None:
        self.options = options
        self.active = False
        self.closed = False
        self.audio = audio

    def start_stream(self) -> None:
        if self.audio.refuses_to_start:
            raise OSError(-9986, "Internal PortAudio error")
        self.active = True

    def is_active(self) -> bool:
        return self.active

    def close(self) -> None:
        self.closed = True


class FakeAudio:
    """As much of PyAudio as the microphone uses, with cards by name and a hand that turns the crank."""

    def __init__(
        self, *cards: str, rates: tuple[int, ...] = RATES_HZ, channels: int = 1, only: int = 0
    ) -> None:
        self.cards = list(cards)
        self.rates = rates
        self.channels = channels
        self.only = only
        self.refuses_to_start = False
        self.streams: list[FakeStream] = []
        self.now = 500.0

    def get_device_count(self) -> int:
        return len(self.cards)

    def get_device_info_by_index(self, index: int) -> dict[str, Any]:
        return {
            "index": index,
            "name": self.cards[index],
            "maxInputChannels": self.channels,
            "maxOutputChannels": 0,
        }

    def get_default_input_device_info(self) -> dict[str, Any]:
        raise OSError("No Default Input Device Available")

    def open(self, **options: Any) -> FakeStream:
        if options["rate"] not in self.rates or (self.only and options["channels"] != self.only):
            raise OSError(-9997, "Invalid sample rate")
        self.streams.append(FakeStream(self, options))
        return self.streams[-1]

    def give(self, samples: np.ndarray, late_s: float = 0.0, status: int = 0) -> None:
        """One callback, as long after the one before as its samples last."""
        options = self.streams[-1].options
        n = len(samples) // options["channels"]
        self.now += n / options["rate"]
        self.now += late_s
        answer = options["stream_callback"](samples.astype(np.float32).tobytes(), n, {}, status)
        self.now -= late_s
        assert answer == (None, pyaudio.paContinue)


def microphone(audio: FakeAudio, name: str = "", rate_hz: int = 0) -> Microphone:
    return Microphone(name, rate_hz=rate_hz, audio=audio, monotonic=lambda: audio.now)


def test_the_card_is_chosen_by_name_and_the_first_rate_that_opens() -> None:
    audio = FakeAudio("HDMI", "USB Audio Device: (hw:2,0)", rates=(16000, 8000))
    source = microphone(audio, "usb audio")
    assert (source.rate_hz, source.name) == (16000, "microphone USB Audio Device: (hw:2,0)")
    assert audio.streams[-1].options["input_device_index"] == 1 and audio.streams[-1].closed
    assert microphone(audio, rate_hz=8000).rate_hz == 8000
    assert microphone(audio).name == "microphone HDMI"


@pytest.mark.parametrize(
    ("audio", "name", "rate_hz", "message"),
    [
        (FakeAudio(), "", 0, "no microphone found; plug one in and look with: arecord -l"),
        (
            FakeAudio("HDMI", "Loopback"),
            "USB",
            0,
            'no microphone whose name contains "USB"; the microphones here: "HDMI", "Loopback"',
        ),
        (
            FakeAudio("HDMI", rates=(44100,)),
            "",
            96000,
            'microphone "HDMI" opens at none of 96000 Hz (Invalid sample rate); '
            "end what else records from it, or set another rate_hz",
        ),
    ],
)
def test_what_is_not_there_is_told(audio: FakeAudio, name: str, rate_hz: int, message: str) -> None:
    with pytest.raises(StethopiError) as caught:
        microphone(audio, name, rate_hz)
    assert str(caught.value) == message and caught.value.exit_code == 1


def test_without_pyaudio_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "pyaudio":
            raise ImportError("No module named 'pyaudio'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(StethopiError) as caught:
        open_source("microphone")
    assert str(caught.value) == (
        "the microphone needs PyAudio (No module named 'pyaudio'); run: "
        "apt-get install -y portaudio19-dev gcc && pip install 'stethopi[pi]'"
    )


def test_samples_come_through() -> None:
    audio = FakeAudio("USB", rates=(8000,))
    source = microphone(audio)
    source.start()
    x = np.linspace(0.1, 0.9, 240, dtype=np.float32) * np.tile(np.array([1, -1, -1, 1], np.float32), 60)
    x -= np.repeat(x.reshape(3, 80).mean(axis=1), 80)
    for k in range(3):
        audio.give(x[80 * k : 80 * k + 80])
    blocks = [source.read() for _ in range(3)]
    assert [b.index for b in blocks if b] == [0, 80, 160]
    assert [b.lost for b in blocks if b] == [0, 0, 0]
    assert np.concatenate([b.samples for b in blocks if b]) == pytest.approx(x, abs=1e-6)
    assert blocks[2] and blocks[2].monotonic_s == audio.now
    source.stop()
    source.stop()
    assert source.read() is None


@pytest.mark.parametrize(("channel", "heard"), [("left", [0.1, -0.1]), ("right", [0.8, -0.8])])
def test_of_two_channels_the_wanted_one_is_taken(channel: str, heard: list[float]) -> None:
    audio = FakeAudio("I2S", rates=(48000,), channels=2, only=2)
    source = Microphone(channel=channel, audio=audio, monotonic=lambda: audio.now)
    seen: list[np.ndarray] = []
    source.on_frames = seen.append
    source.start()
    audio.give(np.array([0.1, 0.8, -0.1, -0.8]))
    block = source.read()
    assert block and block.samples.tolist() == pytest.approx(heard)
    assert seen[0].ravel().tolist() == pytest.approx([0.1, 0.8, -0.1, -0.8])


def test_an_offset_is_taken_out_and_full_scale_is_still_seen() -> None:
    """As an SPH0645 has it: the sound rides on a constant."""
    rate = 8000
    audio = FakeAudio("I2S", rates=(rate,))
    source = microphone(audio)
    source.start()
    x = 0.3 + 0.2 * np.sin(2 * np.pi * 40 * np.arange(4 * rate) / rate)
    x[3 * rate : 3 * rate + 40] = 1.0
    ring = Ring(10)
    intake, heard = Intake(rate, ring), []
    for at in range(0, len(x), 80):
        audio.give(x[at : at + 80])
        block = source.read()
        assert block is not None
        heard.append(block.samples)
        intake.accept(block)
    y = np.concatenate(heard)
    assert abs(float(y[rate : 2 * rate].mean())) < 0.003 and source.offset == pytest.approx(0.3, abs=0.02)
    assert y[rate : 2 * rate].max() == pytest.approx(0.2, abs=0.01)
    (span,) = ring.clipped(0, ring.end)
    assert span.start == 6000 and 9 <= span.end - span.start <= 11


def test_a_full_queue_counts_what_it_drops() -> None:
    audio = FakeAudio("USB", rates=(8000,))
    source = microphone(audio)
    source.start()
    for _ in range(250):  # 2.5 s, half a second more than there is room for
        audio.give(np.zeros(80))
    for _ in range(200):
        block = source.read()
        assert block and block.lost == 0
    audio.give(np.ones(80))
    block = source.read()
    assert block and (block.lost, block.index) == (4000, 20000) and source.dropped == 4000


def test_what_the_driver_lost_is_marked() -> None:
    audio = FakeAudio("USB", rates=(8000,))
    source = microphone(audio)
    source.start()
    for _ in range(300):
        audio.give(np.zeros(80))
        source.read()
    audio.now += 0.1
    audio.give(np.zeros(80), status=pyaudio.paInputOverflow)
    block = source.read()
    assert block and block.lost == 800 and block.index == 24800 and source.overflows == 1
    audio.give(np.zeros(80))
    block = source.read()
    assert block and (block.lost, block.index) == (0, 24880)


def test_a_card_that_goes_is_told_and_what_it_missed_is_counted() -> None:
    audio = FakeAudio("USB", rates=(8000,))
    source = microphone(audio)
    source.start()
    audio.give(np.zeros(80))
    assert source.read()
    audio.streams[-1].active = False
    audio.cards = []
    with pytest.raises(SourceGone, match="microphone USB: gives no sound any more; plug it in again"):
        source.read()
    with pytest.raises(SourceGone, match="no microphone found"):
        source.start()
    audio.cards = ["other", "USB"]
    audio.refuses_to_start = True
    with pytest.raises(SourceGone, match="does not start .*; unplug it and plug it in again"):
        source.start()
    audio.refuses_to_start = False
    audio.now += 3.0
    source.start()
    audio.give(np.zeros(80))
    block = source.read()
    assert block and block.lost == 24000 and block.index == 24080


def test_a_card_that_is_silent_without_a_word_is_gone_too() -> None:
    """The silent stop: the stream says that it is active, and nothing comes."""
    audio = FakeAudio("USB", rates=(8000,))
    source = microphone(audio)
    source.start()
    audio.give(np.zeros(80))
    assert source.read()
    audio.now += 2.1
    with pytest.raises(SourceGone):
        source.read()


def test_a_driver_that_does_not_let_go_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = FakeAudio("USB", rates=(8000,))
    source = microphone(audio)
    source.start()
    never = threading.Event()
    monkeypatch.setattr(audio.streams[-1], "close", never.wait)
    audio.streams[-1].active = False
    with pytest.raises(SourceGone):
        source.read()
    source.start()
    audio.give(np.zeros(80))
    assert source.read() and source.stuck == 1
    never.set()


def test_a_stream_that_was_closed_under_the_reader_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = FakeAudio("USB")
    source = microphone(audio)
    source.start()

    def closed() -> bool:
        raise OSError(-9988, "Stream closed")

    monkeypatch.setattr(audio.streams[-1], "is_active", closed)
    with pytest.raises(SourceGone):
        source.read()


def test_stop_wakes_a_reader() -> None:
    source = microphone(FakeAudio("USB"))
    source.start()
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(source.read()))
    thread.start()
    source.stop()
    thread.join(10)
    assert got == [None]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 999),
    drift=floats(-200e-6, 200e-6),
    jitter=floats(0.0, 0.03),
    period=st.sampled_from([0.01, 0.02, 0.064]),
)
def test_lateness_and_crystals_are_no_loss(seed: int, drift: float, jitter: float, period: float) -> None:
    """Two minutes of late callbacks from a card whose second is not quite a second."""
    random = np.random.default_rng(seed)
    clock, rate = SampleClock(48000), 48000 * (1 + drift)
    step = round(48000 * period)
    for k in range(1, int(120 / period)):
        at = 77.0 + k * step / rate + random.exponential(jitter / 3 + 1e-9)
        assert clock.note(k * step, at) == 0


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 999),
    at=st.integers(150, 2500),
    gone=st.floats(0.08, 3.0),
    told=st.booleans(),
)
def test_a_loss_is_found_whether_told_or_not(seed: int, at: int, gone: float, told: bool) -> None:
    """Found within two seconds, at once where the driver tells of it; its length within 15 ms; once."""
    random = np.random.default_rng(seed)
    clock, index, found = SampleClock(48000), 0, []
    for k in range(1, at + 400):
        now = 5.0 + k * 0.01 + (gone if k >= at else 0.0) + random.uniform(0, 0.004)
        lost = clock.note(index + 480, now, overflowed=told and k == at)
        index += 480 + lost
        if lost:
            found.append((k, lost))
    ((k, lost),) = found
    assert abs(lost / 48000 - gone) < 0.015
    assert k == at if told else at <= k <= at + 201


def test_the_noise_of_alsa_is_kept_back_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        os.write(2, b"ALSA lib pcm.c:2666:(snd_pcm_open_noupdate) Unknown PCM rear\n")
        os.write(2, b"jack server is not running or cannot be started\n\n")
        os.write(2, b"WARNING mqtt: broker went away\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "WARNING mqtt: broker went away\nafter\n"


# --- through PulseAudio: a real driver, a real clock
# ----------------------------------------------------------------


def pitch(x: np.ndarray, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x))))
    return float(np.argmax(spectrum) * rate_hz / len(x))


def recorded(source: Microphone, seconds: float) -> tuple[np.ndarray, list[int], float]:
    """(sound, lost samples of each block, seconds by the monotonic clock from the first block to the
    last)."""
    pieces: list[np.ndarray] = []
    lost, times = [], []
    while sum(map(len, pieces)) < seconds * source.rate_hz:
        block = source.read()
        assert block is not None
        pieces.append(block.samples)
        lost.append(block.lost)
        times.append(block.monotonic_s)
    return np.concatenate(pieces), lost, times[-1] - times[0]


@pytest.mark.audio
@pytest.mark.parametrize("rate_hz", [8000, 44100, 48000])
def test_a_tone_through_the_loop(audio_loop: AudioLoop, tmp_path: Path, rate_hz: int) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 150 * np.arange(48000 * 10) / 48000)
    player = audio_loop.play(write_sound(tmp_path / "tone.wav", tone, 48000))
    source = Microphone(MICROPHONE, rate_hz=rate_hz)
    assert source.name == f"microphone {MICROPHONE}" and source.rate_hz == rate_hz
    try:
        source.start()
        x, lost, took = recorded(source, 3.0)
    finally:
        source.stop()
        player.kill()
        player.wait()
    assert pitch(x[rate_hz:], rate_hz) == pytest.approx(150, abs=1)
    assert np.abs(x[rate_hz:]).max() == pytest.approx(0.5, abs=0.1)
    assert sum(lost) == 0 and source.dropped == 0
    assert len(x) / rate_hz == pytest.approx(took, abs=0.25)


@pytest.mark.audio
def test_the_sound_system_goes_and_comes_back(audio_loop: AudioLoop) -> None:
    source = Microphone(MICROPHONE, rate_hz=16000)
    source.start()
    recorded(source, 0.5)
    audio_loop.stop()
    with pytest.raises(SourceGone, match="gives no sound any more"):
        while source.read():
            pass
    with pytest.raises(SourceGone):
        source.start()
    audio_loop.start()
    source.start()
    block = source.read()
    assert block is not None and block.lost > 1600
    assert block.index >= 8000 + block.lost
    _, lost, _ = recorded(source, 0.5)
    assert sum(lost) == 0
    source.stop()


@pytest.mark.audio
def test_a_machine_without_a_card_says_one_line(tmp_path: Path) -> None:
    """In a process of its own: nothing on stderr but the message."""
    config = tmp_path / "asound.conf"
    config.write_text("</usr/share/alsa/alsa.conf>\n")
    code = (
        "import sys\n"
        "from device.sources import open_source\n"
        "from device.errors import StethopiError\n"
        "try: open_source('microphone:no such card')\n"
        "except StethopiError as e: print(e, file=sys.stderr)"
    )
    environment = {**os.environ, "ALSA_CONFIG_PATH": str(config), "PULSE_SERVER": "unix:/nonexistent"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert run.returncode == 0 and run.stderr.startswith("no microphone ") and run.stderr.count("\n") == 1
