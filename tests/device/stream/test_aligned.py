"""Side by side for ear and eye: aligned to the sample, whatever the denoiser's delay; and what is shed
when.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from device.stream.aligned import AlignedStream
from device.stream.shedding import Shed, Shedder
from device.stream.waveform import Display
from tests.device.fakes import FakeCleaner


def sound(n: int) -> np.ndarray:
    return np.random.default_rng(7).uniform(-0.9, 0.9, n).astype(np.float32)


@given(cuts=st.lists(st.integers(0, 3000), max_size=20), bypassed=st.sets(st.integers(0, 20)))
def test_every_sample_keeps_its_twin_however_it_is_chopped_and_bypassed(
    cuts: list[int], bypassed: set[int]
) -> None:
    x = sound(3000)
    twin = AlignedStream(FakeCleaner())
    raws, cleans = [], []
    edges = [0, *sorted(cuts), 3000]
    for number, (a, b) in enumerate(zip(edges, edges[1:], strict=False)):
        raw, clean = twin.process(x[a:b], bypass=number in bypassed)
        assert len(raw) == len(clean)
        raws.append(raw)
        cleans.append(clean)
    raw, clean = twin.flush()
    raw, clean = np.concatenate([*raws, raw]), np.concatenate([*cleans, clean])
    assert np.array_equal(raw, x)
    # the fake denoiser halves: each sample is either its own twin or its own half
    assert np.all((clean == x) | (clean == x / 2))
    if not bypassed:
        assert np.array_equal(clean, x / 2)


def test_an_hour_of_nothing_is_not_denoised() -> None:
    cleaner = FakeCleaner()
    twin = AlignedStream(cleaner)
    twin.process(sound(160))
    raw, clean = twin.process(np.zeros(2_000_000, np.float32))
    assert len(raw) == len(clean) == 2_000_032
    assert cleaner.seen < 1000
    raw, clean = twin.process(sound(1600))
    assert np.array_equal(clean, raw / 2)


@given(cuts=st.lists(st.integers(0, 2000), max_size=20))
def test_the_waveform_is_the_same_however_it_came(cuts: list[int]) -> None:
    x = sound(2000)
    whole = Display().process(x, x / 2)
    display, pieces = Display(), []
    edges = [0, *sorted(cuts), 2000]
    for a, b in zip(edges, edges[1:], strict=False):
        pieces += display.process(x[a:b], x[a:b] / 2)
    assert pieces == whole
    assert [wave.index for wave in whole] == list(range(0, 2000, 200))


def test_the_waveform_shows_the_peaks_in_int16() -> None:
    x = np.zeros(200, np.float32)
    x[3], x[12], x[199] = 0.5, -1.0, 2.0
    (wave,) = Display().process(x, x)
    assert (len(wave.raw), wave.every) == (25, 8)
    assert (wave.raw[0], wave.raw[1], wave.raw[24]) == (16384, -32767, 32767)
    assert wave.raw == wave.clean and wave.raw[2] == 0


def test_after_a_long_hole_the_waveform_goes_on_at_the_right_place() -> None:
    display = Display()
    waves = display.process(np.zeros(100_050, np.float32), np.zeros(100_050, np.float32))
    assert waves[-1].index == 99_800 and len(waves) < 25


def test_what_was_never_given_is_jumped_over() -> None:
    display = Display()
    display.process(sound(250), sound(250))
    display.skip(4000)
    (wave,) = display.process(sound(200), sound(200))
    assert wave.index == 4250


def test_it_sheds_in_the_order_of_the_design_and_takes_back_slowly() -> None:
    shedder = Shedder()
    assert [shedder.update(w, 0.0) for w in (0.0, 0.3, 0.6, 1.1)] == [
        Shed.NOTHING,
        Shed.WAVEFORM,
        Shed.CLASSIFICATION,
        Shed.DENOISING,
    ]
    # still late by a little: nothing comes back
    assert shedder.update(0.2, 100.0) is Shed.DENOISING
    assert shedder.update(0.0, 101.0) is Shed.DENOISING
    assert shedder.update(0.0, 105.9) is Shed.DENOISING
    assert shedder.update(0.0, 106.0) is Shed.CLASSIFICATION
    assert shedder.update(0.0, 110.9) is Shed.CLASSIFICATION
    assert shedder.update(0.0, 111.0) is Shed.WAVEFORM
    assert shedder.update(0.3, 112.0) is Shed.WAVEFORM
    assert shedder.update(0.0, 113.0) is Shed.WAVEFORM
    assert shedder.update(0.0, 118.0) is Shed.NOTHING
