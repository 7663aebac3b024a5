"""Sources by name, and recordings as sources: paced without drift, gaps told as lost samples."""

from __future__ import annotations

import threading
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import soundfile

from device.errors import BadInput
from device.settings.specs import LIVE, check_spec
from device.sources import open_source
from device.sources.files import Sound, write_sound
from device.sources.replay import Pacer, Replay
from device.spans import Gap
from device.stream.intake import Intake
from device.stream.ring import Ring


def noise(n: int = 5000) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.9, 0.9, n).astype(np.float32)


class Hand:
    """A clock moved by hand; an event whose `wait` moves it."""

    def __init__(self) -> None:
        self.now = 50.0
        self.waited: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        self.now += seconds + 0.003  # a machine is always a little late
        return False


@pytest.mark.parametrize("block", [0, 1, 333, (7, 1000, 64)])
def test_a_replay_gives_the_recording(tmp_path: Path, block: int | tuple[int, ...]) -> None:
    sound = Sound(noise(), 4000)
    source = Replay(sound, pace="fast", block=block)
    source.start()
    pieces = []
    while piece := source.read():
        assert piece.index == sum(map(len, pieces)) and piece.lost == 0
        pieces.append(piece.samples)
    assert np.array_equal(np.concatenate(pieces), noise())
    assert source.read() is None
    source.stop()
    source.stop()


def test_real_time_has_no_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Being 3 ms late with every block adds up to nothing."""
    hand = Hand()
    source = Replay(Sound(noise(), 1000), pace="real", block=100, monotonic=hand)
    monkeypatch.setattr(source._stopped, "wait", hand.wait)
    source.start()
    for k in range(1, 50):
        block = source.read()
        assert block is not None and block.monotonic_s == hand.now
        assert k * 0.1 <= hand.now - 50.0 < k * 0.1 + 0.0031
    assert hand.waited[0] == pytest.approx(0.1) and hand.waited[-1] == pytest.approx(0.097)


def test_fast_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = Hand()
    source = Replay(Sound(noise(), 2000), pace="fast", monotonic=hand)
    monkeypatch.setattr(source._stopped, "wait", hand.wait)
    source.start()
    while source.read():
        pass
    assert hand.waited == []


def test_stop_wakes_a_reader() -> None:
    source = Replay(Sound(noise(), 2000), pace="real", block=5000)
    source.start()
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(source.read()))
    thread.start()
    source.stop()
    thread.join(2)
    assert got == [None]


@pytest.mark.parametrize("block", [1, 100, 999])
def test_gaps_of_the_file_are_lost_samples(block: int) -> None:
    """All the way to the ring: gaps at the start, in the middle, at the very end."""
    gaps = [Gap(0, 30), Gap(1000, 1100), Gap(4990, 5000)]
    x = noise()
    for gap in gaps:
        x[gap.start : gap.end] = 0
    source = Replay(Sound(x, 2000, gaps=gaps), pace="fast", block=block)
    source.start()
    ring = Ring(10.0)
    intake = Intake(2000, ring)
    lost = 0
    while piece := source.read():
        lost += piece.lost
        intake.accept(piece)
    intake.finish()
    assert lost == intake.lost == 140
    assert ring.gaps(0, 9999) == gaps
    assert np.array_equal(ring.read(0, 5000), x)


def test_a_file_by_its_name(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "heart.wav", noise(), 4000)
    source = open_source(f"file:{path}", pace="fast")
    assert (source.rate_hz, source.name) == (4000, "heart.wav")
    soundfile.write(path, np.stack([noise(), noise()], axis=1), 4000)
    stereo = open_source(f"file:{path}")
    assert isinstance(stereo, Replay) and "the first is used" in stereo.notes[0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fiel:x.wav", 'source fiel:x.wav: no such kind of source. Did you mean "file"?'),
        ("zzz", "source zzz: no such kind of source. Use file:PATH, synthetic, microphone or arecord."),
        ("", "source : no such kind of source. Use file:PATH, synthetic, microphone or arecord."),
        ("file:", "source file:: names no file. Use file:PATH."),
        ("file:/nothing.wav", "/nothing.wav: no such file; check the name"),
    ],
)
def test_a_wrong_name_is_told(spec: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        open_source(spec)
    assert str(caught.value) == message


def test_names_that_are_right() -> None:
    assert check_spec("microphone") == ("microphone", "")
    assert check_spec("microphone:USB: Audio") == ("microphone", "USB: Audio")
    assert check_spec("file:a:b.wav") == ("file", "a:b.wav")
    assert check_spec("synthetic:systolic") == ("synthetic", "systolic")


def test_an_unknown_pace_is_refused() -> None:
    with pytest.raises(BadInput, match="pace slow: not one of real, fast"):
        Pacer(2000, "slow")


@pytest.mark.parametrize("kind", LIVE)
def test_each_kind_of_microphone_is_made_by_its_module(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    module = import_module(f"device.sources.{kind}")
    monkeypatch.setattr(module, LIVE[kind], lambda name, **options: made.append((name, options)))
    open_source(f"{kind}:USB: Audio", rate_hz=16000, channel="right")
    assert made == [("USB: Audio", {"rate_hz": 16000, "channel": "right"})]
