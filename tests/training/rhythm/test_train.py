"""A tiny training from recordings to figures: resumed it gives the same weights; its draws are its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.errors import BadInput
from tests.training import folders

pytestmark = pytest.mark.train

TINY: dict[str, Any] = {
    "seed": 3,
    "net": {"width": 8, "dilations": [1, 4]},
    "mix": {"batch": 2, "frames": 100, "shares": {"a": 0.5}},
    "train": {"steps": 4, "every": 2, "noise_draws": 12, "noise_seconds": 1.0},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.make(tmp_path_factory.mktemp("data"), per_fold=2, seconds=6.0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def run(data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.rhythm.train import train_rhythm

    out = tmp_path_factory.mktemp("run")
    train_rhythm(TINY, data, out, cache)
    return out


def test_a_broken_off_training_goes_on_as_it_would_have(
    data: Path, cache: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from training.rhythm import train
    from training.rhythm.corpus import Drawer

    class Cut(Drawer):
        def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
            if step == 3:
                raise KeyboardInterrupt
            return super().batch(step)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(train, "Drawer", Cut)
        train.train_rhythm(TINY, data, tmp_path, cache)
    said: list[str] = []
    train.train_rhythm(TINY, data, tmp_path, cache, resume=True, say=said.append)
    assert any("resumed at step 2" in line for line in said)
    (whole, _), (resumed, kept) = (
        train.load_rhythm(run / "rhythm.pt"),
        train.load_rhythm(tmp_path / "rhythm.pt"),
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert kept["seed"] == 3 and [point["step"] for point in kept["curve"]] == [2, 4]
    assert kept["data"]["physionet2016/states.csv"]


def test_draws_come_from_the_training_folds_and_keep_their_marks(data: Path, cache: Path) -> None:
    from device.screening.segmentation import BANDS
    from training.rhythm.corpus import Drawer, MixSettings, noise_bank
    from training.screening.corpus import Corpus

    corpus = Corpus(data, cache)
    noise = noise_bank(data, cache, draws=12, seconds=1.0, seed=3)
    drawer = Drawer(corpus, noise, MixSettings(batch=4, frames=100), (2, 3, 4), 1)
    drawn = {i for members in drawer.members for group in members for i in group}
    assert {corpus.recordings[i].fold for i in drawn} == {2, 3, 4}
    x, codes = drawer.batch(5)
    assert x.shape == (4, BANDS, 100) and codes.shape == (4, 100)
    again = drawer.batch(5)
    assert np.array_equal(x, again[0]) and np.array_equal(codes, again[1])
    assert set(np.unique(codes)) <= {0, 1, 2, 3, 255} and (codes != 255).mean() > 0.5


def test_the_benchmark_says_what_it_measured_on_whom(data: Path, run: Path, tmp_path: Path) -> None:
    from training.benchmarks.rhythm import main

    assert main(["--data", str(data), "--out", str(run), "--results", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "rhythm.json").read_text())
    assert found["fold"] == 0 and found["trained_on_folds"] == [2, 3, 4]
    assert found["all"]["recordings"] == 6
    for row in ("streaming", "unhurried", "offline"):
        table = found["all"][row]["f1_100_ms"]
        assert set(table["databases"]) == {"a", "f", "circor"}
        values = [of["value"] for of in table["databases"].values()]
        assert table["mean"]["value"] == pytest.approx(np.mean(values), abs=1e-4)
    # the synthetic hearts are regular and clean, and the ruler tells them
    assert found["all"]["autocorrelation"]["heart_rate"]["within_5_bpm"]["value"] == 1.0


def test_what_is_missing_is_said_in_one_line(data: Path, cache: Path, tmp_path: Path) -> None:
    from training.benchmarks.rhythm import benchmark_rhythm
    from training.rhythm.train import train_rhythm

    with pytest.raises(BadInput, match=r"rhythm\.pt: not there; run:"):
        benchmark_rhythm(data, checkpoints=tmp_path)
    with pytest.raises(BadInput, match=r"\[mix\] speed: no such key"):
        train_rhythm({**TINY, "mix": {"speed": 2}}, data, tmp_path, cache)
