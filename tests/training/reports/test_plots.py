"""Pictures of the comparison: curves are right, where a model looked is its own word, wrong input is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.errors import BadInput
from tests.training import folders
from training import cli
from training.metrics.classification import auc, calibrated, confusion
from training.reports import plots

train = pytest.mark.train


def scored(seed: int = 0, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    return np.round(positive + rng.standard_normal(n), 1), positive


def is_picture(path: Path) -> bool:
    data = path.read_bytes()
    return data[:8] == b"\x89PNG\r\n\x1a\n" and 2_000 < len(data) < 300_000


def test_the_area_under_the_drawn_curve_is_the_auc() -> None:
    for seed in range(5):
        score, positive = scored(seed)
        x, y = plots.roc_points(score, positive)
        assert (x[0], y[0], x[-1], y[-1]) == (0.0, 0.0, 1.0, 1.0)
        assert float(np.trapezoid(y, x) if hasattr(np, "trapezoid") else np.trapz(y, x)) == pytest.approx(
            auc(score, positive)
        )


def test_every_picture_is_written_whole(tmp_path: Path) -> None:
    score, positive = scored()
    probability = 1 / (1 + np.exp(-score))
    curve = [{"step": 1.0, "loss": 1.2, "watched_loss": 1.3}, {"step": 2.0, "loss": 0.9, "watched_loss": 1.1}]
    plots.draw_curves(tmp_path / "curves.png", {"one": curve, "two": curve[:1]}, "t")
    plots.roc(tmp_path / "roc.png", {"a": {"one": (score, positive)}, "circor": {"two": scored(1)}}, "t")
    counts = confusion(probability, positive, 0.5)
    plots.draw_confusion(tmp_path / "confusion.png", {"one": {"a": counts}, "two": {"f": counts}}, "t")
    bins = calibrated(probability, positive)["reliability"]
    plots.draw_reliability(tmp_path / "reliability.png", {"a": {"one": bins}}, "t")
    assert all(is_picture(tmp_path / f"{n}.png") for n in ("curves", "roc", "confusion", "reliability"))
    assert len(list(tmp_path.iterdir())) == 4


def test_another_kind_of_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"ends in .png"):
        plots.draw_curves(tmp_path / "curves.jpg", {"one": [{"step": 1.0, "loss": 1.0}]}, "t")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["saliency"], "give --recording NAME and one --model NAME"),
        (["looked"], "plot saliency: which one? give --recording NAME"),  # its name up to 0.3.0
        (["saliency", "--recording", "x", "--model", "a", "b"], "one --model NAME"),
        (["positions"], "give --recording PATIENT"),
    ],
)
def test_what_is_to_be_drawn_must_be_said(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plot", *arguments]) == 2
    assert words in capsys.readouterr().err


@train
@pytest.mark.parametrize("model", ["cnn1d", "melcnn", "melcnn-light", "melcnn-attention", "resnet18"])
def test_where_a_model_looked_covers_its_input(model: str) -> None:
    from device.screening.baseline_features import FRONT_ENDS
    from training.screening.baselines import BaselineRecipe, build_screening_baseline, front_end_name

    net = build_screening_baseline(BaselineRecipe(model=model, width=0.25))
    shape = FRONT_ENDS[front_end_name(model)].shape
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    map_, how = plots.saliency_of(net, x)
    assert map_.shape == shape and map_.min() >= 0.0 and map_.max() <= 1.0
    assert how == ("attention" if model == "melcnn-attention" else "gradient of abnormal")


@train
def test_ours_is_asked_too() -> None:
    import torch

    from models.classifier import Classifier

    torch.manual_seed(1)
    x = np.random.default_rng(1).standard_normal((32, 248)).astype(np.float32)
    assert plots.saliency_of(Classifier(), x)[0].shape == (32, 248)


@train
def test_a_net_that_hears_one_place_looks_there() -> None:
    import torch
    from torch import nn

    class OneColumn(nn.Module):
        """Its logit of abnormal is the sound of the last quarter alone."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Identity(), nn.AvgPool2d(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = self.body(x)
            last = found[..., -found.shape[-1] // 4 :].mean((1, 2, 3))
            return torch.stack([0 * last, last], 1)

    x = np.zeros((8, 64), np.float32)
    x[:, 48:] = 1.0
    map_, _ = plots.saliency_of(OneColumn(), x)
    assert map_[:, 52:].min() > 0.5 and map_[:, :40].max() < 0.1


@train
def test_a_trained_model_is_drawn_on_a_recording(
    tmp_path: Path, normal_recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.screening.baseline_inputs import Inputs
    from training.screening.baseline_recipe import load_baseline_recipe
    from training.screening.baselines import train_screening_baseline

    data = folders.make(tmp_path / "data", per_fold=2)
    inputs = Inputs(data, tmp_path / "cache", "segments")
    recipe = load_baseline_recipe("cnn1d", steps=2, batch=2, group=2, width=0.25)
    train_screening_baseline(
        recipe, inputs, [r for r in inputs.recordings if r.fold > 1], out=tmp_path / "run"
    )
    where = ["--model", "cnn1d", "--data", str(data), "--out", str(tmp_path / "saliency.png")]
    kept = ["--checkpoint", str(tmp_path / "run" / "cnn1d.pt")]
    for recording in ("circor00", str(normal_recording)):
        (tmp_path / "saliency.png").unlink(missing_ok=True)
        assert cli.main(["plot", "saliency", *where, *kept, "--recording", recording]) == 0
        assert is_picture(tmp_path / "saliency.png")
    capsys.readouterr()
    for arguments, words in (
        ([*kept, "--recording", "nobody"], "no file, and no recording below"),
        (["--checkpoint", str(tmp_path / "none.pt"), "--recording", "circor00"], "none.pt: not there; run"),
        ([*kept, "--recording", "circor00", "--model", "vgg"], "'vgg': not known"),
    ):
        assert cli.main(["plot", "saliency", *where, *arguments]) == 2
        assert words in capsys.readouterr().err


@train
def test_what_the_benchmark_left_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, cache, results = folders.make(tmp_path / "data", per_fold=12), tmp_path / "cache", tmp_path / "r"
    out = tmp_path / "plots"
    where = ["--data", str(data), "--cache", str(cache), "--results", str(results), "--out", str(out)]
    assert cli.main(["plot", "classify", *where]) == 2
    assert "no scores of a benchmark there" in capsys.readouterr().err
    from training.data.recordings import recordings

    judged = [r for r in recordings(data) if r.fold == 0]
    folder = cache / "screening" / "melcnn" / "folds" / "0"
    folder.mkdir(parents=True)
    (folder / "unit.json").write_text("{}")
    (folder / "curve.json").write_text('[{"step": 10, "loss": 1.0}]')
    logits = np.random.default_rng(1).standard_normal((len(judged), 2))
    np.savez(
        folder / "scores.npz",
        **{"records/test": np.array([r.record for r in judged]), "test/float": logits},
    )
    positive = np.array([r.label == "abnormal" for r in judged])
    source: dict[str, Any] = {
        "confusion": confusion(logits[:, 1], positive, 0.0),
        "reliability": calibrated(1 / (1 + np.exp(-logits[:, 1])), positive)["reliability"],
    }
    entry = {"folds": {"units": {"0": {}}, "rows": {"float": {"databases": {"a": source}}}}}
    results.mkdir()
    (results / "classify.json").write_text(json.dumps({"models": {"melcnn": entry}}))
    assert cli.main(["plot", "classify", *where]) == 0
    assert {p.name for p in out.iterdir()} == {"curves.png", "roc.png", "confusion.png", "reliability.png"}
    assert all(is_picture(p) for p in out.iterdir())
    assert cli.main(["plot", "classify", *where, "--model", "vgg"]) == 2
    assert "--model vgg: no such model; there are ours" in capsys.readouterr().err


@train
def test_the_positions_of_a_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folders.make(tmp_path / "data", per_fold=2, seconds=5.0)
    out = tmp_path / "positions.png"
    where = ["plot", "positions", "--data", str(data), "--out", str(out), "--recording"]
    assert cli.main([*where, "circor01"]) == 0
    assert is_picture(out)
    assert cli.main([*where, "nobody"]) == 2
    assert "no patient of CirCor" in capsys.readouterr().err
