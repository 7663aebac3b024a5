"""The ECG's front end and the form of its answer, without a network."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.denoise import front_end
from device.denoise.front_end import LeadFrontEnd, Scale, analyse_lead, front_end_of
from device.denoise.mask import MaskBlend, mask_of
from device.errors import StethopiError

HOP, RATE = 9, 360
FRONT: dict[str, Any] = {
    "kind": "lead",
    "slow_hz": 0.3,
    "fast_hz": 3.0,
    "time_constant_s": 4.0,
    "ranges": [16, 4, 4],
}


def lead(seconds: float = 6.0) -> np.ndarray:
    t = np.arange(int(seconds * RATE / HOP) * HOP) / RATE
    x = sum(np.exp(-0.5 * ((t - b) / 0.02) ** 2) for b in np.arange(0.5, seconds, 0.8))
    return np.asarray(x + 0.02 * np.sin(40 * t), dtype=np.float32)


def steps(x: np.ndarray) -> tuple[np.ndarray, LeadFrontEnd]:
    stage = LeadFrontEnd(HOP, RATE, FRONT)
    return stage.hear(x.reshape(-1, HOP)).reshape(-1, 3).T, stage


def test_hop_by_hop_and_at_once_are_the_same() -> None:
    x = lead()
    wave, passed, level = analyse_lead(x[None], HOP, RATE, FRONT)
    found, stage = steps(x)
    assert np.allclose(found, wave[0], atol=1e-4)
    assert np.allclose(stage.passed.reshape(-1), passed[0], atol=1e-4)
    assert stage.level[-1] == pytest.approx(float(level[0, -1]), rel=1e-3)


def test_neither_amplitude_nor_offset_is_heard() -> None:
    x = lead()
    plain, _ = steps(x)
    moved, _ = steps(0.2 * x + np.float32(2.0))
    assert np.allclose(plain, moved, atol=2e-3)


def test_a_lead_that_comes_after_a_flat_line_is_heard_at_once() -> None:
    stage = LeadFrontEnd(HOP, RATE, FRONT)
    flat = np.full(HOP, 0.8, dtype=np.float32)
    assert not stage.hear(np.tile(flat, (2400, 1))).any()
    x = lead() + np.float32(0.8)
    fresh = LeadFrontEnd(HOP, RATE, FRONT)
    stage.hear(x.reshape(-1, HOP))
    fresh.hear(x.reshape(-1, HOP))
    assert stage.level[-1] == pytest.approx(float(fresh.level[-1]), rel=0.05)


def test_unknown_samples_hold_the_one_before() -> None:
    stage = LeadFrontEnd(HOP, RATE, FRONT)
    x = np.array([np.nan, 1, 2, np.nan, np.nan, 5, np.inf, 7, np.nan], dtype=np.float32)
    assert stage.fill(x).tolist() == [1, 1, 2, 2, 2, 5, 5, 7, 7]
    stage.hear(stage.fill(x)[None])
    assert stage.fill(np.full(3, np.nan, dtype=np.float32)).tolist() == [7, 7, 7]


def blend_of(share: float, estimate: float, baseline: float, hops: int = 12) -> tuple[np.ndarray, Any]:
    arrays = {
        "of_share": np.stack([np.linspace(8, 0, 9) / 9, np.linspace(1, 9, 9) / 9], 1),
        "of_baseline": np.stack([np.linspace(8, 0, 9) / 9, np.linspace(1, 9, 9) / 9], 1),
    }
    form = MaskBlend(arrays, HOP, 18, dict.fromkeys(MaskBlend.outputs, (0.5, 0)))
    heard = LeadFrontEnd(HOP, RATE, FRONT)
    answers = {
        "share": np.full((hops, 1), 2 * share, dtype=np.int8),
        "estimate": np.full((hops, 9), 2 * estimate, dtype=np.int8),
        "baseline": np.full((hops, 1), 2 * baseline, dtype=np.int8),
    }
    x = np.arange(hops * HOP, dtype=np.float32)
    heard.passed, heard.level = x.reshape(hops, HOP), np.full(hops, 2.0, dtype=np.float32)
    raw, clean = (y.reshape(-1) for y in form.steps(heard.passed + 100, heard, answers))
    assert np.array_equal(raw[18:], x[:-18] + 100)
    return clean[36:], x[18:-18]


def test_a_share_of_nothing_leaves_the_lead_and_takes_the_baseline() -> None:
    clean, x = blend_of(0.0, 50.0, 0.0)
    assert np.allclose(clean, x)
    clean, x = blend_of(0.0, 50.0, 1.5)
    assert np.allclose(clean, x - 3.0, atol=1e-4)


def test_a_whole_share_is_the_estimate_in_levels() -> None:
    clean, _ = blend_of(1.0, 4.0, 1.5)
    assert np.allclose(clean, 8.0, atol=1e-4)


@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40),
    st.floats(1e-3, 1.0),
    st.integers(-128, 127),
)
def test_a_search_in_the_table_is_the_computation(x: list[float], scale: float, zero_point: int) -> None:
    written = Scale(np.float32(1.0 / scale), np.float32(zero_point))
    for f, dtype in (
        (functools.partial(front_end._wave, scale=written, part=1.0), np.float32),
        (functools.partial(front_end._spectrum, scale=written), np.float64),
    ):
        table = front_end._table(f, dtype)
        # just below, at and just above each of its edges too
        edges = table[np.isfinite(table)]
        with np.errstate(over="ignore"):
            tried = np.concatenate([edges, np.nextafter(edges, -np.inf), np.asarray(x, dtype=dtype) ** 2])
            tried = tried[np.abs(tried) < np.finfo(np.float32).max]
        assert np.array_equal(table.searchsorted(tried, "right").astype(np.int8), f(tried))


def test_a_bundle_of_tomorrow_is_told() -> None:
    with pytest.raises(StethopiError, match="front end 'ears'; update stethopi"):
        front_end_of({"front": {"kind": "ears"}}, {}, {})
    with pytest.raises(StethopiError, match="form 'wish'; update stethopi"):
        mask_of({"form": {"kind": "wish"}}, {}, {})
