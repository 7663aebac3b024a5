"""An offset changes nothing of what is heard: not the clean sound, not the verdict, however it is chopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.denoise.stream import Denoiser, denoise
from device.dsp.offset import OffsetStage, without_offset
from device.inference import bundle
from device.screening.rhythm import heart_rate
from device.screening.screen import screen_recording
from device.settings.specs import heart_settings
from device.sources.files import read_working_rate
from device.sources.synthetic import SyntheticSource


@pytest.fixture(scope="module")
def heart() -> np.ndarray:
    """A soft synthetic heart of 8 s, as a microphone without gain gives it."""
    source = SyntheticSource(heart_settings("seconds=8,level=0.05,noise_db=25"), pace="fast")
    source.start()
    blocks = []
    while (block := source.read()) is not None:
        blocks.append(block.samples)
    return np.concatenate(blocks)


def difference_db(a: np.ndarray, b: np.ndarray) -> float:
    return 20 * float(np.log10(np.std(a) / np.std(a - b)))


def test_a_sound_without_an_offset_passes_to_the_bit(recordings: list[np.ndarray]) -> None:
    for x in recordings:
        stage = OffsetStage()
        assert np.array_equal(np.concatenate([stage.process(x), stage.flush()]), x)
        assert without_offset(x) is x


@pytest.fixture(scope="module")
def recordings() -> list[np.ndarray]:
    folder = Path(__file__).parents[2] / "data" / "circor"
    return [read_working_rate(path)[0][:20000] for path in sorted(folder.glob("*.flac"))]


@pytest.mark.parametrize("offset", [0.03, -0.03, 0.3])
def test_denoised_and_judged_as_without(heart: np.ndarray, offset: float) -> None:
    moved = heart + np.float32(offset)
    entry = bundle.load(None).model("denoiser")
    assert difference_db(denoise(entry, heart), denoise(entry, moved)) > 25
    judge = bundle.load(None).model("classifier")
    plain, found = screen_recording(heart, judge), screen_recording(moved, judge)
    assert found.label == plain.label and found.reasons == plain.reasons
    assert found.probability == pytest.approx(plain.probability, abs=0.03)
    assert found.quality == pytest.approx(plain.quality, abs=0.05)
    assert heart_rate(moved) == pytest.approx(heart_rate(heart), abs=1.0)


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_as_much_of_the_offset_stays_as_was_asked_for(heart: np.ndarray, strength: float) -> None:
    moved = heart + np.float32(0.03)
    out = denoise(bundle.load(None).model("denoiser"), moved, strength)
    assert out.mean() == pytest.approx(0.03 * (1 - strength), abs=1e-3)
    if strength == 0.0:
        np.testing.assert_allclose(out, moved, atol=1e-6)


@given(st.lists(st.integers(0, 700), min_size=1, max_size=40), st.floats(-0.2, 0.2))
@settings(max_examples=25, deadline=None)
def test_any_chopping_gives_the_same_bits(sizes: list[int], offset: float) -> None:
    x = np.random.default_rng(1).standard_normal(6000).astype(np.float32) * np.float32(0.05)
    x[2000:2400] = 0.0  # sound that was lost
    x += np.where(x == 0, 0, np.float32(offset))
    whole = OffsetStage()
    expected = np.concatenate([whole.process(x), whole.flush()])
    chopped, at, out = OffsetStage(), 0, []
    for size in [*sizes, len(x)]:
        out.append(chopped.process(x[at : at + size]))
        at += size
    assert np.array_equal(np.concatenate([*out, chopped.flush()]), expected)
    assert not expected[2000:2400].any()


@pytest.mark.parametrize("block", [7, 16, 40, 441])
def test_denoised_with_an_offset_that_begins_later_however_chopped(heart: np.ndarray, block: int) -> None:
    entry = bundle.load(None).model("denoiser")
    x = heart[:8000].copy()
    x[3001:] += np.float32(0.05)
    before = x.copy()
    stage = Denoiser(entry, 0.5)
    chopped = [stage.process(x[at : at + block]) for at in range(0, len(x), block)]
    assert np.array_equal(np.concatenate([*chopped, stage.flush()]), denoise(entry, x, 0.5))
    assert np.array_equal(x, before), "what was given stays as it was"


def test_what_was_taken_out_is_added_again_where_it_was(heart: np.ndarray) -> None:
    x = heart[:8000].copy()
    x[3001:] += np.float32(0.05)
    out = denoise(bundle.load(None).model("denoiser"), x, 0.0)
    np.testing.assert_allclose(out, x, atol=1e-7)


def test_a_snapshot_holds_the_offset(heart: np.ndarray) -> None:
    entry = bundle.load(None).model("denoiser")
    x = heart[:6000] + np.float32(0.03)
    stage = Denoiser(entry, 0.5)
    first = stage.process(x[:3000])
    kept = stage.snapshot()
    expected = stage.process(x[3000:])
    other = Denoiser(entry, 0.5)
    other.restore(kept)
    assert len(first) and np.array_equal(other.process(x[3000:]), expected)


def test_an_offset_that_begins_later_comes_out_without_a_step() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal(16000).astype(np.float32) * np.float32(0.01)
    x[8000:] += np.float32(0.1)
    stage = OffsetStage()
    out = np.concatenate([stage.process(x), stage.flush()])
    assert np.array_equal(out[:8000], x[:8000])
    assert abs(out[-2000:].mean()) < 0.01
    assert np.abs(np.diff(out - x)[16:]).max() < 2e-3
