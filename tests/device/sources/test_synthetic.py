"""The synthetic heart: the same sound however it is asked for, and the truth beside it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.errors import BadInput, SourceGone
from device.screening.rhythm import heart_rate
from device.settings.specs import MURMURS, NOISES, HeartSettings, heart_settings
from device.sources import open_source
from device.sources.synthetic import Heart, SyntheticSource, synthesise


def heard(source: SyntheticSource, until: int) -> np.ndarray:
    """The first `until` samples, at least, of a source that goes as fast as it is read."""
    source.start()
    pieces, n = [], 0
    while n < until and (block := source.read()):
        assert block.index == n and block.lost == 0
        pieces.append(block.samples)
        n += len(block.samples)
    source.stop()
    return np.concatenate(pieces)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 3001), min_size=1, max_size=5),
    murmur=st.sampled_from(MURMURS),
    noise=st.sampled_from(NOISES),
    rate_hz=st.sampled_from([2000, 4000, 44100]),
)
def test_blocks_do_not_change_the_sound(sizes: list[int], murmur: str, noise: str, rate_hz: int) -> None:
    what = HeartSettings(murmur=murmur, noise=noise, noise_db=3.0, rate_hz=rate_hz, seconds=1.5)
    whole = heard(SyntheticSource(what, pace="fast"), 2 * rate_hz)
    sizes = [size * rate_hz // 2000 for size in sizes]
    assert np.array_equal(heard(SyntheticSource(what, pace="fast", block=tuple(sizes)), 2 * rate_hz), whole)
    assert np.array_equal(synthesise(what).samples, whole) and len(whole) == 1.5 * rate_hz


def test_the_seed_decides() -> None:
    def sound(seed: int) -> np.ndarray:
        return synthesise(HeartSettings(seed=seed), 3.0).samples

    assert np.array_equal(sound(1), sound(1)) and not np.array_equal(sound(1), sound(2))


@pytest.mark.parametrize("rate", [50.0, 70.0, 110.0])
def test_it_beats_at_its_rate(rate: float) -> None:
    sound = synthesise(HeartSettings(rate=rate), 20.0)
    beats = [start for start, _, state in sound.states if state == "S1"]
    assert np.median(np.diff(beats)) == pytest.approx(60 / rate, rel=0.03)
    assert np.std(np.diff(beats)) > 0.005 * 60 / rate  # a heart is no metronome
    found = heart_rate(sound.samples[:10000])
    assert found is not None and found == pytest.approx(rate, rel=0.06)


def test_the_states_tell_the_truth() -> None:
    """They follow each other without a hole, and the loudness is where S1 and S2 are."""
    sound = synthesise(HeartSettings(noise_db=60.0), 10.0)
    assert sound.states[0][0] == 0.0 and sound.states[-1][1] == 10.0
    order = ["diastole", "S1", "systole", "S2"]
    for k, ((_, end, state), (start, _, _)) in enumerate(zip(sound.states, sound.states[1:], strict=False)):
        assert end == start and state == order[k % 4]
    power = {
        state: np.mean(
            np.concatenate(
                [sound.samples[int(a * 2000) : int(b * 2000)] for a, b, s in sound.states if s == state]
            )
            ** 2
        )
        for state in order
    }
    assert min(power["S1"], power["S2"]) > 30 * max(power["systole"], power["diastole"])


def phase_rms(what: HeartSettings, state: str, low: float = 120.0) -> float:
    """Level above `low` Hz in the middle of a state, over 10 s."""
    sound = synthesise(what, 10.0)
    spectrum = np.fft.rfft(sound.samples)
    spectrum[np.fft.rfftfreq(len(sound.samples), 1 / sound.rate_hz) < low] = 0
    x = np.fft.irfft(spectrum)
    middles = [((a + b) / 2, (b - a) / 4) for a, b, s in sound.states if s == state]
    pieces = [x[int((m - h) * sound.rate_hz) : int((m + h) * sound.rate_hz)] for m, h in middles]
    return float(np.sqrt(np.mean(np.concatenate(pieces) ** 2)))


@pytest.mark.parametrize(
    ("murmur", "there", "not_there"),
    [("systolic", "systole", "diastole"), ("diastolic", "diastole", "systole")],
)
def test_a_murmur_is_where_it_belongs_and_as_loud_as_its_grade(
    murmur: str, there: str, not_there: str
) -> None:
    levels = [phase_rms(HeartSettings(murmur=murmur, grade=g, noise_db=90), there) for g in (3, 4, 5)]
    assert 1.7 < levels[1] / levels[0] < 2.3 and 1.7 < levels[2] / levels[1] < 2.3
    silent = phase_rms(HeartSettings(noise_db=90), there)
    assert levels[0] > 4 * silent
    other = HeartSettings(murmur=murmur, grade=5, noise_db=90)
    assert phase_rms(other, not_there) < levels[2] / 5


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("rate_hz", [2000, 8000])
def test_noise_lies_as_far_below_as_said(noise: str, rate_hz: int) -> None:
    def sound(db: float) -> np.ndarray:
        return synthesise(HeartSettings(noise=noise, noise_db=db, level=0.1, rate_hz=rate_hz), 40.0).samples

    clean, noisy = sound(np.inf), sound(6.0)
    spectrum = np.abs(np.fft.rfft(noisy - clean)) ** 2
    below = spectrum[np.fft.rfftfreq(len(clean), 1 / rate_hz) < 1000].sum() / len(clean) ** 2 * 2
    measured = 10 * np.log10(np.mean(clean.astype(float) ** 2) / below)
    assert measured == pytest.approx(6.0, abs=2.0 if noise == "rub" else 1.0)


def test_the_level_is_the_peak() -> None:
    for level in (0.01, 0.5):
        assert np.abs(synthesise(HeartSettings(level=level), 20.0).samples).max() == pytest.approx(
            level, rel=0.15
        )
    assert not synthesise(HeartSettings(level=0.0), 2.0).samples.any()
    assert np.abs(synthesise(HeartSettings(level=1.0, noise_db=-10), 5.0).samples).max() <= 1.0


def test_it_can_beat_for_weeks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old beats are let go, and looking back counts them again."""
    heart = Heart(HeartSettings(rate=220))
    before = heart.render(2000, 2000), heart.states(0, 30)
    monkeypatch.setattr("device.sources.synthetic._MOST_BEATS", 100)
    for minute in range(10):
        heart.render(minute * 120_000, 100)
        assert len(heart._beats) <= 330
    assert heart._beats[0].number > 1000
    assert np.array_equal(heart.render(2000, 2000), before[0]) and heart.states(0, 30) == before[1]


def test_it_unplugs_itself_and_comes_back() -> None:
    now = [100.0]
    what = HeartSettings(gone_after_s=0.5, gone_for_s=2.0, seconds=10.0)
    source = SyntheticSource(what, pace="real", block=100, monotonic=lambda: now[0])
    source.start()
    for _ in range(10):
        now[0] += 0.051
        assert source.read() is not None
    with pytest.raises(SourceGone, match="synthetic heart, 70/min: was unplugged; plug it in again"):
        source.read()
    with pytest.raises(SourceGone, match="is unplugged; plug it in again"):
        source.start()
    now[0] = 104.0  # four seconds since the start, half a second of them heard
    source.start()
    now[0] += 0.051
    block = source.read()
    assert block is not None and (block.index, block.lost) == (8000, 7000)
    expected = Heart(what).render(8000, 2000)[:100]
    assert np.array_equal(block.samples, expected)


def test_it_can_fall_silent_and_still_be_stopped() -> None:
    source = SyntheticSource(HeartSettings(freeze_after_s=0.1), pace="fast", block=100)
    source.start()
    assert source.read() is not None and source.read() is not None
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(source.read()))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    source.stop()
    thread.join(10)
    assert got == [None]


def test_it_ends() -> None:
    source = SyntheticSource(HeartSettings(seconds=0.333), pace="fast", block=500)
    source.start()
    first, second = source.read(), source.read()
    assert first is not None and second is not None and len(second.samples) == 166
    assert source.read() is None and source.read() is None
    assert source.states[-1][1] == pytest.approx(0.333)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate=500", "synthetic: rate=500: not from 30 to 220"),
        ("murmur=loud", "synthetic: murmur=loud: not one of none, systolic, diastolic"),
        ("noise=rain", "synthetic: noise=rain: not one of white, hum, breath, rub"),
        ("grade=7", "synthetic: grade=7: not from 1 to 6"),
        ("grade=2.5", "synthetic: grade=2.5: must be a whole number"),
        ("rate=fast", "synthetic: rate=fast: must be a number"),
        ("rate=nan", "synthetic: rate=nan: not from 30 to 220"),
        ("seconds=-1", "synthetic: seconds=-1: must not be below 0"),
        ("ratte=70", 'synthetic: ratte: no such key. Did you mean "rate"?'),
        ("quiet", "synthetic: quiet: not a key=value. Keys: rate, murmur, grade, noise, noise_db, level, "),
    ],
)
def test_a_mistake_names_the_key(text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        heart_settings(text)
    assert str(caught.value).startswith(message)


def test_settings_from_a_name() -> None:
    assert heart_settings("") == HeartSettings()
    what = heart_settings("rate=90, systolic,noise_db=10,seed=4,grade=5")
    assert what == HeartSettings(rate=90.0, murmur="systolic", noise_db=10.0, seed=4, grade=5)
    source = open_source("synthetic:diastolic,rate_hz=8000", pace="fast")
    assert source.rate_hz == 8000 and source.name == "synthetic heart, 70/min, diastolic murmur of grade 3"
