"""Training of the networks that ours is compared with: repeatable, resumable, int8, told when wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device.errors import BadInput
from tests.training import folders
from tests.training.rewritten import rewrite

if TYPE_CHECKING:
    from training.screening.baseline_inputs import Inputs

pytestmark = pytest.mark.train

MODELS = ("cnn1d", "melcnn", "melcnn-light", "melcnn-attention", "resnet18")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.make(tmp_path_factory.mktemp("data"), per_fold=2)


@pytest.fixture(scope="module")
def hearing(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Inputs]:
    from training.screening.baseline_inputs import Inputs

    cache = tmp_path_factory.mktemp("cache")
    return {name: Inputs(data, cache, name) for name in ("mel", "segments")}


def test_what_networks_hear_is_kept_over_a_rename_but_not_over_another_version(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.screening import baseline_inputs

    cache = tmp_path / "cache"

    def kept(front_end: str = "segments") -> list[str]:
        baseline_inputs.Inputs(data, cache, front_end)
        return sorted(path.name for path in cache.iterdir())

    once = kept()
    rewrite(monkeypatch, tmp_path)
    assert kept() == once and len(once) == 1
    assert len(kept("mel")) == 2
    monkeypatch.setattr(baseline_inputs, "INPUTS_VERSION", baseline_inputs.INPUTS_VERSION + 1)
    assert len(kept()) == 3
    monkeypatch.setattr(baseline_inputs.training_data, "data_hashes", lambda _: {"index": "other"})
    assert len(kept()) == 4


def tiny(model: str, **changes: Any) -> Any:
    from training.screening.baseline_recipe import load_baseline_recipe

    values: dict[str, Any] = {"steps": 8, "batch": 4, "group": 2, "width": 0.25, "int8_db": 8.0}
    return load_baseline_recipe(model, **(values | changes))


def chosen(inputs: Inputs) -> list[Any]:
    return [r for r in inputs.recordings if r.fold > 1]


def weights(trained: Any) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in trained.net.state_dict().items()}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all((a[name] == b[name]).all() for name in a)


@pytest.mark.parametrize("front_end", ["mel", "segments"])
def test_training_hears_what_the_device_computes(hearing: dict[str, Inputs], front_end: str) -> None:
    from device.screening.baseline_features import FRONT_ENDS
    from training.data.recordings import load

    inputs = hearing[front_end]
    for recording in inputs.recordings[::7]:
        assert (inputs.windows(recording.record) == FRONT_ENDS[front_end].windows(load(recording))).all()
        assert inputs.count(recording.record) == len(inputs.windows(recording.record))


@pytest.mark.parametrize("model", MODELS)
def test_a_recipe_repeated_or_resumed_gives_the_same_weights(
    hearing: dict[str, Inputs], tmp_path: Path, model: str
) -> None:
    from training.screening.baseline_recipe import front_end_name
    from training.screening.baselines import load_screening_baseline, train_screening_baseline

    inputs = hearing[front_end_name(model)]
    recipe = tiny(model)
    once = weights(train_screening_baseline(recipe, inputs, chosen(inputs)))
    train_screening_baseline(
        recipe, inputs, chosen(inputs), out=tmp_path, stop_at=3, watch=inputs.recordings[:4]
    )
    assert (tmp_path / "resume.pt").is_file()
    said: list[str] = []
    resumed = train_screening_baseline(recipe, inputs, chosen(inputs), out=tmp_path, say=said.append)
    assert any("resumed at step 3 of 8" in line for line in said)
    assert same(once, weights(resumed))
    assert same(once, weights(load_screening_baseline(tmp_path / f"{model}.pt", inputs)))
    assert (tmp_path / "curve.json").is_file() and not (tmp_path / "resume.pt").exists()
    other = weights(train_screening_baseline(dataclasses.replace(recipe, seed=2), inputs, chosen(inputs)))
    assert not same(once, other)


@pytest.mark.parametrize("model", MODELS)
def test_int8_agrees_with_float_and_runs_on_the_device(
    hearing: dict[str, Inputs], tmp_path: Path, model: str
) -> None:
    from training.data.recordings import load as load_sound
    from training.screening.baseline_recipe import front_end_name
    from training.screening.baselines import train_screening_baseline

    inputs = hearing[front_end_name(model)]
    width = 0.125 if model == "resnet18" else 0.25
    trained = train_screening_baseline(tiny(model, steps=20, width=width), inputs, chosen(inputs))
    small = trained.int8(tmp_path, chosen(inputs))
    assert small.kind == "int8" and (tmp_path / f"{model}.tflite").is_file()
    assert set(small.cost) == {"parameters", "mac_per_window", "kilobytes", "int8_db"}
    told, heard = [], []
    for recording in inputs.recordings[:6]:
        told.append(trained.logits(recording))
        heard.append(small.logits(recording))
        assert (small.logits_of(load_sound(recording)) == heard[-1]).all()
        probability = small.windows(recording)
        assert probability.shape == (len(heard[-1]),) and ((probability > 0) & (probability < 1)).all()
    exact, rough = np.concatenate(told), np.concatenate(heard)
    assert np.sqrt(np.mean((exact - rough) ** 2)) < 0.4 * np.sqrt(np.mean(exact**2))


def test_the_loss_is_on_the_mean_of_a_recordings_windows(hearing: dict[str, Inputs]) -> None:
    import torch

    from training.screening.baselines import _loss

    logits = torch.tensor([[3.0, 2.0], [-1.0, -4.0], [0.0, 1.0], [2.0, 1.0]])
    labels = torch.tensor([[1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    softplus = torch.nn.functional.softplus
    murmur = softplus(torch.tensor(-1.0))
    abnormal = (softplus(torch.tensor(-1.0)) + softplus(torch.tensor(-1.0))) / 2
    assert float(_loss(logits, labels, tiny("cnn1d"))) == pytest.approx(float(murmur + abnormal), rel=1e-5)


def test_a_batch_holds_only_chosen_windows_and_both_classes(hearing: dict[str, Inputs]) -> None:
    from training.screening.baselines import _Drawer

    inputs = hearing["segments"]
    pool = chosen(inputs)
    only = {r.record: [1] for r in pool if r.database == "a"}
    drawer = _Drawer(tiny("cnn1d", batch=32, shift=0.0, time_masks=0, scale=0.0), inputs, pool, only)
    assert {r.database for r in drawer.chosen} == {"a"}
    x, labels = drawer.batch(3)
    seen = {inputs.window(r.record, 1).tobytes() for r in drawer.chosen}
    assert {row.tobytes() for row in x} <= seen
    assert 0.2 < labels[:, 2].mean() < 0.8
    again = drawer.batch(3)
    assert (again[0] == x).all() and not (drawer.batch(4)[0] == x).all()


def test_shuffled_labels_are_another_run(hearing: dict[str, Inputs], tmp_path: Path) -> None:
    from training.screening.baselines import train_screening_baseline

    inputs = hearing["mel"]
    pool = chosen(inputs)
    recipe = tiny("melcnn-light", steps=4)
    once = train_screening_baseline(recipe, inputs, pool, out=tmp_path)
    said: list[str] = []
    assert same(
        weights(once), weights(train_screening_baseline(recipe, inputs, pool, out=tmp_path, say=said.append))
    )
    assert any("trained before" in line for line in said)
    labels = [r.label for r in pool][1:] + [pool[0].label]
    mixed = [dataclasses.replace(r, label=label) for r, label in zip(pool, labels, strict=True)]
    assert not same(weights(once), weights(train_screening_baseline(recipe, inputs, mixed, out=tmp_path)))


def test_leaky_splits_windows_and_not_recordings() -> None:
    from training.screening.leaky import leaky

    counts = {f"r{k}": 10 for k in range(100)}
    split = leaky(counts, seed=3)
    both = set(split.train) & set(split.test)
    assert len(both) > 60, "the same recordings on both sides: that is the leak"
    assert all(not set(split.train[r]) & set(split.test[r]) for r in both)
    assert all(len(split.train.get(r, [])) + len(split.test.get(r, [])) == 10 for r in counts)
    assert 0.1 < sum(map(len, split.test.values())) / 1000 < 0.25
    assert len(split.copies) == 10
    assert all(len(split.train[r]) == 10 and r not in split.test for r in split.copies)
    assert leaky(counts, seed=3) == split != leaky(counts, seed=4)


def test_each_fold_is_reported_once() -> None:
    from training.screening.baselines import rotated

    for fold in range(5):
        recipe = rotated(tiny("melcnn"), fold)
        assert fold not in recipe.folds and recipe.decide not in recipe.folds
        assert len(recipe.folds) == 3 and recipe.decide != fold
    assert rotated(tiny("melcnn"), 0).folds == (2, 3, 4)
    with pytest.raises(BadInput, match="folds 0 to 4"):
        rotated(tiny("melcnn"), 5)


def test_imagenet_weights_are_loaded_from_a_file(hearing: dict[str, Inputs], tmp_path: Path) -> None:
    import torch

    from models.resnet18 import ResNet18
    from training.screening.baselines import build_screening_baseline, train_screening_baseline

    inputs = hearing["mel"]
    torch.manual_seed(5)
    published = dict(ResNet18(16).state_dict())
    published["conv1.weight"] = torch.randn(16, 3, 7, 7)
    path = tmp_path / "resnet18.pth"
    torch.save(published, path)
    recipe = tiny("resnet18", steps=1, learning_rate=1e-12)
    said: list[str] = []
    trained = train_screening_baseline(recipe, inputs, chosen(inputs), weights=path, say=said.append)
    assert any(str(path) in line for line in said)
    first = trained.net.conv1.weight  # type: ignore[union-attr]
    assert torch.allclose(first, published["conv1.weight"].sum(1, keepdim=True), atol=1e-6)  # type: ignore[arg-type]
    scratch = train_screening_baseline(recipe, inputs, chosen(inputs), say=said.append)
    assert any("from scratch" in line for line in said)
    assert torch.allclose(scratch.net.conv1.weight, build_screening_baseline(recipe).conv1.weight, atol=1e-6)  # type: ignore[union-attr,arg-type]


def test_a_weights_file_that_does_not_fit_is_told(hearing: dict[str, Inputs], tmp_path: Path) -> None:
    import torch

    from training.screening.baselines import train_screening_baseline

    inputs = hearing["mel"]

    def told(model: str, path: Path) -> str:
        with pytest.raises(BadInput) as caught:
            train_screening_baseline(tiny(model), inputs, chosen(inputs), weights=path)
        return str(caught.value)

    assert "not there" in told("resnet18", tmp_path / "none.pth")
    text = tmp_path / "text.pth"
    text.write_text("no weights")
    assert "not a file of PyTorch weights" in told("resnet18", text)
    other = tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.zeros(4, 3, 7, 7)}, other)
    assert "does not fit ResNet-18 (conv1.weight has shape" in told("resnet18", other)
    torch.save([1, 2], other)
    assert "holds no state dict" in told("resnet18", other)
    assert "only resnet18 takes them" in told("melcnn", other)


@pytest.mark.parametrize(
    ("model", "text", "words"),
    [
        ("melcnn", "[baseline]\nstepz = 3\n", 'stepz: no such key. Did you mean "steps"'),
        ("melcnn", '[baseline]\nsteps = "many"\n', "steps = 'many': a whole number is needed"),
        ("melcnn", "[baseline]\nsteps = 0\n", "steps = 0: at least 1"),
        ("melcnn", "[classifier]\nsteps = 3\n", r"no \[baseline\] table"),
        ("melcnn", "[baseline\n", "not TOML"),
        ("melcnn", '[baseline]\nmodel = "cnn1d"\n', "a recipe for cnn1d, not for melcnn"),
        ("resnet50", "[baseline]\n", "'resnet50': not known; there are ours, cnn1d"),
    ],
)
def test_a_wrong_recipe_is_told(tmp_path: Path, model: str, text: str, words: str) -> None:
    from training.screening.baseline_recipe import load_baseline_recipe

    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=words):
        load_baseline_recipe(model, path)


@pytest.mark.parametrize("model", MODELS)
def test_the_shipped_recipes_are_understood(model: str) -> None:
    from training.screening.baseline_recipe import load_baseline_recipe

    recipe = load_baseline_recipe(model)
    assert recipe.model == model and recipe.seed == 1
    assert (recipe.group > 1) == (model == "cnn1d")


def test_the_command_trains_and_exports(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import cli
    from training.screening import baselines

    recipe = tmp_path / "own.toml"
    recipe.write_text('[baseline]\nmodel = "melcnn-light"\nsteps = 3\nbatch = 4\nint8_db = 3.0\n')
    where = ["--model", "melcnn-light", "--recipe", str(recipe), "--data", str(data), "--fold", "3"]
    where += ["--out", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    assert cli.main(["export", "classifier", *where]) == 2
    assert "run `stethopi train classifier --model melcnn-light` first" in capsys.readouterr().err
    assert cli.main(["train", "classifier", *where]) == 0
    folder = tmp_path / "runs" / "baselines" / "melcnn-light-fold3"
    said = capsys.readouterr().err
    assert f"written: {folder / 'melcnn-light.pt'}" in said and "fold 4, which decides" in said

    def written(trained: baselines.Trained, where: Path) -> baselines.Trained:
        # what it writes is tested above; a conversion takes a while
        (where / "melcnn-light.tflite").write_bytes(b"")
        return dataclasses.replace(trained, cost={"kilobytes": 12.0, "int8_db": 20.0})

    monkeypatch.setattr(baselines.Trained, "int8", written)
    assert cli.main(["export", "classifier", *where]) == 0
    assert f"written: {folder / 'melcnn-light.tflite'}" in capsys.readouterr().err
    assert cli.main(["train", "classifier", "--model", "vgg"]) == 2
    assert "there are ours, cnn1d" in capsys.readouterr().err
    assert cli.main(["train", "classifier", "--model", "melcnn", "--weights", "w.pth"]) == 2
    assert "only resnet18 takes them" in capsys.readouterr().err
