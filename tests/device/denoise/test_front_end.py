"""The ECG's front end and the form of its answer, without a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from device.denoise.front_end import Heard, LeadFrontEnd, analyse_lead, front_end_of
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


def steps(x: np.ndarray) -> tuple[np.ndarray, Heard]:
    """The wave (3, n) of a lead that comes hop by hop, and the last of what was heard."""
    stage = LeadFrontEnd(HOP, RATE, FRONT)
    found = [stage.process(x[None, k : k + HOP]) for k in range(0, len(x), HOP)]
    return np.concatenate([heard.inputs[0][0, 0, 0].T for heard in found], -1), found[-1]


def test_hop_by_hop_and_at_once_are_the_same() -> None:
    x = lead()
    wave, passed, level = analyse_lead(x[None], HOP, RATE, FRONT)
    found, last = steps(x)
    assert np.allclose(found, wave[0], atol=1e-4)
    assert np.allclose(last.passed[0], passed[0, -HOP:], atol=1e-4)
    assert last.levels[0] == pytest.approx(float(level[0, -1]), rel=1e-3)


def test_hops_that_come_together_are_heard_bit_by_bit_as_each_alone() -> None:
    x = lead()
    x[HOP : 2 * HOP - 2] = np.nan
    alone, last = steps(x)
    together = LeadFrontEnd(HOP, RATE, FRONT).process(x.reshape(-1, HOP))
    assert np.array_equal(together.inputs[0].reshape(-1, 3).T, alone)
    assert np.array_equal(together.passed[-1], last.passed[0]) and together.levels[-1] == last.levels[0]
    assert np.isfinite(together.hops).all()


def test_neither_amplitude_nor_offset_is_heard() -> None:
    x = lead()
    plain, _ = steps(x)
    moved, _ = steps(0.2 * x + np.float32(2.0))
    assert np.allclose(plain, moved, atol=2e-3)


def test_a_lead_that_comes_after_a_flat_line_is_heard_at_once() -> None:
    stage = LeadFrontEnd(HOP, RATE, FRONT)
    flat = np.full(HOP, 0.8, dtype=np.float32)
    for _ in range(2400):
        assert not stage.process(flat[None]).inputs[0].any()
    x = lead() + np.float32(0.8)
    fresh = LeadFrontEnd(HOP, RATE, FRONT)
    after, afresh = (each.process(x.reshape(-1, HOP)) for each in (stage, fresh))
    assert after.levels[-1] == pytest.approx(afresh.levels[-1], rel=0.05)


def test_unknown_samples_hold_the_one_before() -> None:
    stage = LeadFrontEnd(HOP, RATE, FRONT)
    x = np.array([np.nan, 1, 2, np.nan, np.nan, 5, np.inf, 7, np.nan], dtype=np.float32)
    assert stage.process(x[None]).hops[0].tolist() == [1, 1, 2, 2, 2, 5, 5, 7, 7]
    unknown = np.full((1, HOP), np.nan, dtype=np.float32)
    assert stage.process(unknown).hops[0].tolist() == HOP * [7]


def blend_of(share: float, estimate: float, baseline: float, hops: int = 12) -> tuple[np.ndarray, Any]:
    arrays = {
        "of_share": np.stack([np.linspace(8, 0, 9) / 9, np.linspace(1, 9, 9) / 9], 1),
        "of_baseline": np.stack([np.linspace(8, 0, 9) / 9, np.linspace(1, 9, 9) / 9], 1),
    }
    form = MaskBlend(arrays, HOP, 18)
    answers = {
        "share": np.full((hops, 1), share, dtype=np.float32),
        "estimate": np.full((hops, 9), estimate, dtype=np.float32),
        "baseline": np.full((hops, 1), baseline, dtype=np.float32),
    }
    x = np.arange(hops * HOP, dtype=np.float32)
    passed = x.reshape(hops, HOP)
    raw, clean = (y.reshape(-1) for y in form.process(Heard(passed + 100, passed, hops * [2.0], ()), answers))
    assert np.array_equal(raw[18:], x[:-18] + 100)
    return clean[36:], x[18:-18]


def test_a_share_of_nothing_leaves_the_lead_and_takes_the_baseline() -> None:
    clean, x = blend_of(0.0, 50.0, 0.0)
    assert np.allclose(clean, x)
    clean, x = blend_of(0.0, 50.0, 1.5)
    assert np.allclose(clean, x - 3.0, atol=1e-4)


def test_a_whole_share_is_the_estimate_in_levels() -> None:
    clean, _ = blend_of(1.0, 4.0, 0.7)
    assert np.allclose(clean, 8.0, atol=1e-4)


def test_a_bundle_of_tomorrow_is_told() -> None:
    with pytest.raises(StethopiError, match="front end 'ears'; update stethopi"):
        front_end_of({"front": {"kind": "ears"}}, {})
    with pytest.raises(StethopiError, match="form 'wish'; update stethopi"):
        mask_of({"form": {"kind": "wish"}}, {})
