"""Sounds for page and exports: computed once, kept within limits, drawn where they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.inference import bundle as bundles
from host.playback.sounds import Sounds, spectrogram
from host.store.store import Store
from tests.host.arrivals import beats, flac, put


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as made:
        yield made


@pytest.fixture(scope="module")
def released() -> bundles.Bundle:
    return bundles.load()


def test_the_clean_sound_is_computed_once(
    store: Store, released: bundles.Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    exam = put(store, {"MV": flac(beats())}, bundle=released.version)
    first = Sounds(store).get(exam.id, "MV", "clean", exam.bundle)
    assert first is not None

    def never(*_: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("host.playback.sounds._denoise", never)
    again = Sounds(store).get(exam.id, "MV", "clean", exam.bundle)
    assert again is not None and np.array_equal(again.samples, first.samples)
    (cached,) = store.folder.glob("cache/*/*.npy")
    cached.write_bytes(cached.read_bytes()[:1000])
    with pytest.raises(AssertionError, match="computed again"):
        Sounds(store).get(exam.id, "MV", "clean", exam.bundle)


def test_a_cache_that_is_full_lets_its_older_half_go(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    exam = put(store, {"AV": flac(beats())})
    monkeypatch.setattr("host.playback.sounds.MOST_CACHE_BYTES", 3000)
    older = store.folder / "cache" / "an-older-exam"
    older.mkdir(parents=True)
    for k in range(4):
        (older / f"{k}.npy").write_bytes(bytes(1000))
        os.utime(older / f"{k}.npy", (k, k))
    sounds = Sounds(store)
    assert sorted(path.name for path in older.iterdir()) == ["3.npy"]
    made = sounds.wav(exam.id, "AV", "raw", exam.bundle)
    assert isinstance(made, Path) and made.is_file()
    assert not any(older.iterdir())


def test_silence_is_drawn_as_silence(store: Store) -> None:
    exam = put(store, {"MV": flac(np.zeros(8000, np.float32))})
    sound = Sounds(store).get(exam.id, "MV", "raw", "")
    assert sound is not None and sound.gain == 1.0
    assert not spectrogram(sound.samples, sound.reference).levels.any()


def test_a_tone_stands_at_its_place_in_the_spectrogram() -> None:
    t = np.arange(6000) / 2000
    tone = np.where(t >= 1.5, np.sin(2 * np.pi * 200 * t), 0.0).astype(np.float32)
    made = spectrogram(tone, 4096.0)
    frames, bins = made.levels.shape
    hz = np.arange(bins) * made.top_hz / (bins - 1)
    seconds = np.arange(frames) * made.hop / 2000
    loud = made.levels[seconds > 1.7].mean(0)
    assert abs(hz[loud.argmax()] - 200) < 4
    assert not made.levels[seconds < 1.4].any()
