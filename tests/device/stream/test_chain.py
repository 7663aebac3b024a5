"""The way of the sound by itself: blocks go in, and what ring, recording, ear and eye get comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.contract.live import LiveWave
from device.denoise.stream import Denoiser, denoise
from device.inference import bundle
from device.sources.base import Block
from device.sources.files import read_sound
from device.storage.recorder import Recorder
from device.stream.aligned import Cleaner
from device.stream.chain import SoundChain
from device.stream.intake import Intake
from device.stream.ring import Ring
from device.stream.shedding import Shed
from device.stream.waveform import LiveWaves
from tests.device.fakes import FakeCleaner

RATE = 2000


class Ear:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.raw: list[np.ndarray] = []
        self.clean: list[np.ndarray] = []
        self.skipped: list[int] = []

    def hear(self, raw: np.ndarray, clean: np.ndarray) -> None:
        self.raw.append(raw.copy())
        self.clean.append(clean.copy())

    def skip(self, n: int) -> None:
        self.skipped.append(n)


class Bench:
    """A chain with an ear, an eye, and a recording that is fed from the ring."""

    def __init__(self, cleaner: Cleaner | None = None, recorder: Recorder | None = None) -> None:
        self.ring, self.ear, self.waves = Ring(60), Ear(), list[LiveWave]()
        self.exam: str | None = "e-1"
        self.recorder, self.recorded = recorder, 0
        waves = LiveWaves(lambda: self.exam, self.waves.append)
        self.chain = SoundChain(
            Intake(RATE, self.ring), self.record, cleaner or FakeCleaner(), [self.ear], waves
        )

    def record(self) -> None:
        piece = self.ring.take(self.recorded, self.ring.end)
        if self.recorder is not None:
            self.recorder.append(piece.sound)
        self.recorded = self.ring.end

    def hear(self, x: np.ndarray, at: int = 0, shed: Shed = Shed.NOTHING, block: int = 40) -> None:
        for start in range(0, len(x), block):
            piece = x[start : start + block]
            self.chain.process(Block(piece, at + start, (at + start + len(piece)) / RATE), shed)

    def end(self) -> tuple[np.ndarray, np.ndarray]:
        """(raw, clean) of all that the ear has heard."""
        self.chain.finish()
        self.record()
        self.chain.flush()
        return np.concatenate(self.ear.raw), np.concatenate(self.ear.clean)


def sound(n: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(-0.5, 0.5, n).astype(np.float32)


def test_a_block_reaches_ring_recording_ear_and_eye(tmp_path: Path) -> None:
    x = sound(4000)
    with Recorder(tmp_path, "site") as recorder:
        bench = Bench(recorder=recorder)
        bench.hear(x)
        raw, clean = bench.end()
        found = recorder.finish()
    assert np.array_equal(bench.ring.read(0, 4000), x) and bench.ring.closed
    assert np.allclose(read_sound(found.path).samples, x, atol=2e-7)
    assert np.array_equal(raw, x) and np.array_equal(clean, x / 2)
    assert [wave.index for wave in bench.waves] == list(range(0, 4000, 200))
    assert {wave.exam for wave in bench.waves} == {"e-1"}
    assert bench.chain.times.decimate.count == bench.chain.times.listen.count + 1 == 100


def test_what_is_recorded_is_there_before_the_denoiser_has_begun() -> None:
    """A denoiser that never comes back costs no sound."""

    class Stuck(FakeCleaner):
        def process(self, x: np.ndarray) -> np.ndarray:
            assert bench.recorded == bench.ring.end > 0
            raise TimeoutError

    bench = Bench(Stuck())
    with pytest.raises(TimeoutError):
        bench.hear(sound(40))


def test_late_it_leaves_out_the_waveform_then_the_denoiser_and_never_the_recording() -> None:
    x = sound(6000)
    bench = Bench()
    bench.hear(x[:2000])
    bench.hear(x[2000:4000], 2000, Shed.WAVEFORM)
    bench.hear(x[4000:], 4000, Shed.DENOISING)
    raw, clean = bench.end()
    assert np.array_equal(raw, x) and bench.recorded == 6000
    assert np.array_equal(clean[:4000], x[:4000] / 2) and np.array_equal(clean[4000:], x[4000:])
    assert bench.waves[-1].index < 2000 and bench.chain.waves_left_out == 30 - len(bench.waves)


def test_without_an_exam_no_waveform_is_told() -> None:
    bench = Bench()
    bench.exam = None
    bench.hear(sound(2000))
    assert bench.waves == [] and bench.chain.waves_left_out == 0


def test_a_hole_is_lost_sound_and_a_long_one_is_skipped_by_ear_and_eye() -> None:
    x = sound(2400)
    bench = Bench()
    bench.hear(x[:1200])
    bench.hear(x[1200:], 1200 + 30 * RATE)
    raw, _ = bench.end()
    assert bench.chain.lost == 30 * RATE and bench.ear.skipped == [28 * RATE]
    assert bench.ring.gaps(0, bench.ring.end) == [(1200, 1200 + 30 * RATE)]
    assert len(raw) == len(x) + 2 * RATE and np.array_equal(raw[-1200:], x[1200:])
    assert bench.waves[-1].index + 200 <= 2400 + 30 * RATE < bench.waves[-1].index + 400


X = sound(3000)


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 3000), max_size=20))
def test_however_the_blocks_are_cut_the_bits_are_the_same(cuts: list[int]) -> None:
    entry = bundle.load().model("denoiser")
    bench = Bench(Denoiser(entry))
    edges = [0, *sorted(cuts), 3000]
    for a, b in zip(edges, edges[1:], strict=False):
        bench.chain.process(Block(X[a:b], a, b / RATE))
    raw, clean = bench.end()
    hops = X[: len(X) // 16 * 16]
    assert np.array_equal(raw, hops) and np.array_equal(clean, denoise(entry, hops))
