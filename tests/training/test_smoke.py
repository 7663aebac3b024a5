"""The whole way from recordings to a bundle that a device loads, with networks that are good for nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from device.inference import bundle
from tests.training import folders
from tests.training.ecg_folders import ecg_folder

pytestmark = [pytest.mark.train, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = folders.make(tmp_path_factory.mktemp("data"))
    ecg_folder(root)
    return root


def run(*arguments: object) -> int:
    from training.cli import main

    return main([str(a) for a in arguments])


def test_train_all_goes_the_whole_way_and_then_skips(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--data", data, "--out", tmp_path / "runs", "--cache", tmp_path / "cache"]
    every = ["train", "all", "--recipe", "smoke", *where, "--released", tmp_path / "released"]
    assert run(*every) == 0
    made = bundle.load(tmp_path / "released" / "0.0.1")
    assert set(made.models) == {"denoiser", "classifier", "ecg"}
    from device.screening.screen import screen_recording

    sound = np.random.default_rng(0).standard_normal(12_000).astype(np.float32) * 0.1
    assert len(screen_recording(sound, made.model("classifier")).windows) == 2
    first = made.vectors()

    capsys.readouterr()
    assert run(*every) == 0
    said = capsys.readouterr().err
    assert said.count("done before, nothing has changed") == 9
    assert "is the newest already" in said

    # a step whose result has gone is done again, and comes out the same
    (tmp_path / "runs" / "classifier" / "classifier.json").unlink()
    assert run(*every) == 0
    second = bundle.load(tmp_path / "released" / "0.0.1").vectors()
    assert all((first[key] == second[key]).all() for key in first)

    results = tmp_path / "results"
    found = tmp_path / "released" / "0.0.1"
    assert run("benchmark", "classify", *where, "--bundle", found, "--results", results, "--limit", 4) == 0
    result = json.loads((results / "classify.json").read_text())
    assert set(result["rows"]) == {"int8", "pruned", "float"}
    assert set(result["rows"]["int8"]["databases"]) == {"a", "f", "circor"}
    assert result["rows"]["int8"]["databases"]["a"]["n"] == 4


def test_training_can_be_repeated_and_resumed_exactly(data: Path, tmp_path: Path) -> None:
    import torch

    from training.screening import corpus as screening_corpus
    from training.screening import recipe as screening_recipe
    from training.screening import train as classifier

    corpus = screening_corpus.Corpus(data, tmp_path / "cache")
    small = {"steps": 12, "batch": 4, "channels": (8, 8, 8, 8, 8, 8, 8)}
    recipe = screening_recipe.load_recipe(None, **small)

    def weights(net: torch.nn.Module) -> list[torch.Tensor]:
        return list(net.state_dict().values())

    once = classifier.train(corpus, recipe, tmp_path / "once", every=6)
    again = classifier.train(corpus, recipe, tmp_path / "again")
    assert all(torch.equal(a, b) for a, b in zip(weights(once), weights(again), strict=True))

    class Stop(Exception):
        pass

    def stop(text: str) -> None:
        # the line of step 12 comes before the run is complete: break off there, after step 6 was kept
        if text.startswith("step 12"):
            raise Stop

    with pytest.raises(Stop):
        classifier.train(corpus, recipe, tmp_path / "broken", stop, every=6)
    assert not (tmp_path / "broken" / "classifier-full.pt").exists()
    said: list[str] = []
    resumed = classifier.train(corpus, recipe, tmp_path / "broken", said.append, every=6)
    assert said[0] == "resumed at step 6 of 12"
    curves = [(tmp_path / run / "curve.json").read_text() for run in ("once", "broken")]
    assert curves[0].count("loss") == curves[1].count("loss") == 2
    assert all(torch.equal(a, b) for a, b in zip(weights(once), weights(resumed), strict=True))

    other = classifier.train(corpus, screening_recipe.load_recipe(None, **small, seed=2))
    assert not all(torch.equal(a, b) for a, b in zip(weights(once), weights(other), strict=True))
