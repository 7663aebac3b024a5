"""Mixtures: repeatable, at the wanted SNR, murmurs where they belong."""

from __future__ import annotations

import numpy as np
import pytest

from device.errors import BadInput, StethopiError
from training.data.mixing import (
    NOISE_KINDS,
    Mixer,
    MixSettings,
    NoisePool,
    Reference,
    add_murmur,
    drawn_heart,
)
from training.metrics.denoising import band, murmur_excess_db

RATE = 2000


def reference(name: str = "r", *, murmur: bool = False, seconds: float = 9.0) -> Reference:
    n = int(seconds * RATE)
    t = np.arange(n) / RATE
    x, spans = np.zeros(n), []
    for k in range(int(seconds)):
        for at, length, state in (
            (0.0, 0.1, "S1"),
            (0.1, 0.3, "systole"),
            (0.4, 0.1, "S2"),
            (0.5, 0.5, "diastole"),
        ):
            spans.append((k + at, k + at + length, state))
        for at in (0.02, 0.42):
            u = t - k - at
            x += np.where(u > 0, np.sin(2 * np.pi * 55 * u) * np.exp(-u / 0.02), 0)
    x += 1e-3 * np.random.default_rng(0).standard_normal(n)
    return Reference(name, "circor", name, murmur, (x / np.std(x)).astype(np.float32), tuple(spans))


def pool() -> NoisePool:
    rng = np.random.default_rng(5)
    return NoisePool({k: [rng.standard_normal(6000).astype(np.float32)] for k in ("breath", "speech_babble")})


def test_a_step_is_always_the_same_and_another_step_another() -> None:
    settings = MixSettings(batch=3, samples=4096)
    one, two = (Mixer([reference()], pool(), settings, seed=1) for _ in range(2))
    one.batch(0)
    for a, b in zip(one.batch(7), two.batch(7), strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(one.batch(7)[1], one.batch(8)[1])
    assert not np.array_equal(one.batch(7)[1], Mixer([reference()], pool(), settings, seed=2).batch(7)[1])


def test_what_is_drawn_is_what_the_released_net_learned_from() -> None:
    """Samples noted before the keys for trials came: a key's usual value draws what was drawn without it."""
    mixer = Mixer(
        [reference(str(k), murmur=k == 2) for k in range(3)], pool(), MixSettings(batch=4, samples=4096), 1
    )
    clean, noisy = mixer.batch(5)
    assert clean[:2, 1000::1500] == pytest.approx(
        np.array([[0.15409, -0.03015, -2.02361], [0.02162, 0.00794, 0.05952]]), abs=1e-4
    )
    assert noisy[:3, 1000::1500] == pytest.approx(
        np.array([[0.15111, -0.40056, -2.02365], [-0.01679, 0.01346, 0.03409], [-0.78326, 0.88755, 0.08043]]),
        abs=1e-4,
    )


@pytest.mark.parametrize(("key", "value"), [("colour", 0.0), ("swaying", 0.0), ("setting_in", 0.0)])
def test_each_augmentation_can_be_left_out(key: str, value: float) -> None:
    refs = [reference()]
    usual, without = (
        Mixer(refs, pool(), MixSettings(batch=8, samples=4096, **more), seed=1).batch(3)  # type: ignore[arg-type]
        for more in ({}, {key: value})
    )
    assert not np.array_equal(usual[1], without[1])
    if key == "colour":  # hearts as they are, whatever noise is drawn
        assert not np.array_equal(usual[0], without[0])


def test_databases_are_drawn_as_told() -> None:
    def one(database: str, k: int) -> Reference:
        r = reference(f"{database}{k}")
        return Reference(r.record, database, r.group, r.murmur, r.sound, r.spans)

    refs = [one("a", 0), *(one("circor", k) for k in range(3))]
    weights = {
        way: Mixer(refs, pool(), MixSettings(sampling=way), seed=1).weights.tolist()
        for way in ("weighted", "equal", "proportional")
    }
    assert weights["equal"] == [0.5, 0.5]
    assert weights["proportional"] == [0.25, 0.75]
    assert weights["weighted"] == pytest.approx([0.2 / 0.41, 0.21 / 0.41])
    with pytest.raises(BadInput, match=r"\[mix\] sampling = evenly: there are weighted, equal, proportional"):
        Mixer(refs, pool(), MixSettings(sampling="evenly"), seed=1)


def test_noise_stands_at_the_wanted_snr_and_clean_ones_are_clean() -> None:
    settings = MixSettings(batch=6, samples=8192, low_db=3.0, high_db=3.0, clean=0.0)
    clean, noisy = Mixer([reference()], pool(), settings, seed=1).batch(0)
    for s, x in zip(clean, noisy, strict=True):
        snr = 10 * np.log10(np.sum(band(s) ** 2) / np.sum(band(x - s) ** 2))
        assert snr == pytest.approx(3.0, abs=1.0)
    clean, noisy = Mixer([reference()], pool(), MixSettings(batch=4, clean=1.0, samples=4096), seed=1).batch(
        0
    )
    assert np.array_equal(clean, noisy)


def test_a_synthetic_murmur_fills_its_phase_only() -> None:
    r = reference()
    rng = np.random.default_rng(3)
    loud = add_murmur(rng, r.sound, r.spans, under_db=10, phase="systole", low_hz=120, width_hz=150)
    assert murmur_excess_db(loud, r.spans) > murmur_excess_db(r.sound, r.spans) + 15
    added = loud - r.sound
    for start, end, state in r.spans:
        if state in ("diastole", "S1", "S2"):
            assert not added[int(start * RATE) + 1 : int(end * RATE) - 1].any()
    assert np.array_equal(add_murmur(rng, r.sound, ()), r.sound)


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_every_kind_gives_finite_sound_or_says_that_there_is_none(kind: str) -> None:
    rng = np.random.default_rng(1)
    if kind in pool().kinds:
        x = pool().draw(rng, kind, 8192)
        assert len(x) == 8192
        assert np.isfinite(x).all()
        assert np.std(x) > 0
    else:
        with pytest.raises(StethopiError, match=kind):
            pool().draw(rng, kind, 8192)


def test_without_references_it_says_so() -> None:
    with pytest.raises(StethopiError, match="no clean reference"):
        Mixer([reference(seconds=2.0)], pool(), MixSettings(), seed=1)


def test_a_drawn_heart_has_its_beats_where_its_states_say() -> None:
    rng = np.random.default_rng(4)
    for _ in range(5):
        x, spans = drawn_heart(rng, 8192)
        power = x.astype(float) ** 2
        beats, between = [], []
        for start, end, state in spans:
            if start >= 0 and end * RATE <= 8192:
                mean = float(power[int(start * RATE) : int(end * RATE)].mean())
                (beats if state in ("S1", "S2") else between).append(mean)
        assert np.median(beats) > 5 * np.median(between)


def test_a_share_of_nought_draws_no_hearts_and_changes_no_other_draw() -> None:
    plain = Mixer([reference()], pool(), MixSettings(batch=2, samples=4096), seed=1).batch(3)
    other = Mixer(
        [reference()], pool(), MixSettings(batch=2, samples=4096, synthetic_heart=1.0), seed=1
    ).batch(3)
    again = Mixer(
        [reference()], pool(), MixSettings(batch=2, samples=4096, synthetic_heart=0.0), seed=1
    ).batch(3)
    assert np.array_equal(plain[1], again[1])
    assert not np.array_equal(plain[1], other[1])


def test_the_recipe_says_how_often_a_kind_of_noise_is_drawn() -> None:
    others = dict.fromkeys(NOISE_KINDS, 0.0)
    mixer = Mixer([reference()], pool(), MixSettings(kinds={**others, "hum": 2.0}), seed=1)
    assert mixer.kinds[int(np.argmax(mixer.kind_weights))] == "hum"
    assert mixer.kind_weights.max() == 1.0
    usual = Mixer([reference()], pool(), MixSettings(), seed=1)
    more = Mixer([reference()], pool(), MixSettings(kinds={"hum": 0.5}), seed=1)
    at = usual.kinds.index("hum")
    assert more.kind_weights[at] > usual.kind_weights[at] > 0


@pytest.mark.parametrize(
    ("kinds", "named"),
    [({"humm": 1.0}, "humm"), ({"hum": -1.0}, "hum"), (dict.fromkeys(NOISE_KINDS, 0.0), "all weights")],
)
def test_a_wrong_weight_of_a_kind_is_named(kinds: dict[str, float], named: str) -> None:
    with pytest.raises(BadInput, match=rf"\[mix.kinds\].*{named}"):
        Mixer([reference()], pool(), MixSettings(kinds=kinds), seed=1)


def test_a_jump_softens_the_beginning_of_clean_and_noisy_alike() -> None:
    settings = MixSettings(batch=8, samples=8192, low_db=0.0, high_db=0.0, clean=0.25, jump=1.0)
    plain = Mixer([reference()], pool(), MixSettings(**{**vars(settings), "jump": 0.0}), seed=1).batch(2)
    jumped = Mixer([reference()], pool(), settings, seed=1).batch(2)
    for s, x, s0, x0 in zip(*jumped, *plain, strict=True):
        assert np.sum(x[:800] ** 2) < 0.3 * np.sum(x0[:800] ** 2)
        assert np.allclose(x[-2400:], x0[-2400:], atol=1e-3)
        assert np.allclose(s[-2400:], s0[-2400:], atol=1e-3)
        assert np.array_equal(s, x) == np.array_equal(s0, x0)  # clean stays clean
