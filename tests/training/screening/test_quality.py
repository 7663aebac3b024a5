"""The judge of quality is taught for a classifier, repeats exactly, and refuses what it cannot use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from device.errors import BadInput
from device.inference import bundle
from device.screening import features, quality, screen
from tests.training import folders
from training.data.mixing import NoisePool
from training.screening import quality as teaching

pytestmark = [pytest.mark.train, pytest.mark.timeout(600)]

SMALL = {"recordings": 20, "pieces": 80, "epochs": 6, "hidden": 12}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.make(tmp_path_factory.mktemp("data"))


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """The released classifier as its export left it: without a judge."""
    found = bundle.load()
    folder = tmp_path / "classifier"
    folder.mkdir()
    shutil.copy(found.model("classifier").tflite, folder)
    meta = {k: v for k, v in found.model("classifier").meta.items() if not k.startswith("arrays")}
    (folder / "classifier.json").write_text(json.dumps(meta))
    kept = {k.split("/")[1]: v for k, v in found.vectors().items() if k.startswith("classifier/")}
    np.savez(folder / "classifier.vectors.npz", **kept)
    return folder


def test_the_judge_lies_beside_the_classifier_and_repeats(
    data: Path, part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(part, twin)
    recipe = teaching.load_quality_recipe(None, **SMALL)
    first = teaching.train_quality(recipe, data, part, lambda text: None)
    second = teaching.train_quality(recipe, data, twin, lambda text: None)
    # a judge that is there stays where nothing is to be taught anew
    monkeypatch.setattr(teaching, "_taught", lambda *_: 1 / 0)
    kept = teaching.train_quality(recipe, data, twin, lambda text: None, resume=True)
    assert all(np.array_equal(kept[name], second[name]) for name in second)
    assert all((first[name] == second[name]).all() for name in first)

    meta = json.loads((part / "classifier.json").read_text())
    assert meta["quality"]["recipe"]["pieces"] == 80
    with np.load(part / "classifier.npz") as arrays:
        entry = bundle.ModelEntry("classifier", part / "classifier.tflite", meta, dict(arrays))
    assert quality.QualityJudge.of(entry.arrays) is not None
    # what is stored as the expected answer is what the device answers
    with np.load(part / "classifier.vectors.npz") as vectors:
        found = screen.screen_recording(vectors["sound"][0].astype(np.float32) / 32768.0, entry)
        assert found.probability == pytest.approx(float(vectors["probability"][0]))


def test_noise_is_told_from_heart_sound_even_by_a_small_judge(data: Path) -> None:
    noise = NoisePool.load(data, "train", free_only=True)
    entry = bundle.load().model("classifier")
    pieces = teaching.Pieces(data, (2, 3, 4), noise, entry, 20, 1, lambda text: None)
    recipe = teaching.load_quality_recipe(None, recordings=20, pieces=600, epochs=150)
    judge = quality.QualityJudge(
        teaching.fit(pieces.many(3, 600, lambda text: None), recipe, lambda text: None)
    )
    good, alone = [], []
    for k in range(20):
        rng = np.random.default_rng([5, k])
        x = pieces.window(rng)
        y = pieces.spoil(rng, x, ["coloured"], 0.0)[0] - x
        good.append(judge(x, features.screening_frames_of(x))[0])
        alone.append(judge(y, features.screening_frames_of(y))[0])
    assert np.mean(good) > 0.6
    assert np.mean(alone) < 0.2


def test_a_piece_is_a_function_of_its_seed_alone(data: Path) -> None:
    noise = NoisePool.load(data, "train", free_only=True)
    entry = bundle.load().model("classifier")
    pieces = teaching.Pieces(data, (2, 3, 4), noise, entry, 20, 1, lambda text: None)
    once, again = pieces.many(7, 12, lambda text: None), pieces.many(7, 12, lambda text: None)
    assert (once.x == again.x).all() and (once.wanted == again.wanted).all()
    assert (once.x != pieces.many(8, 12, lambda text: None).x).any()
    assert ((once.wanted >= 0) & (once.wanted <= 1)).all() and set(np.unique(once.asked)) <= {0.0, 0.5, 1.0}


def test_every_kind_of_noise_has_words(data: Path) -> None:
    assert set(NoisePool.load(data, "train", free_only=False).kinds) <= set(teaching.CAUSE_OF)
    assert set(teaching.CAUSE_OF.values()) == set(quality.CAUSES)


@pytest.mark.parametrize(
    ("text", "said"),
    [("seeds = 1", "seeds"), ("pieces = 'many'", "pieces"), ("= 3", "not TOML")],
)
def test_a_bad_recipe_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "quality.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=said):
        teaching.load_quality_recipe(path)


def test_without_an_exported_classifier(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="stethopi export classifier"):
        teaching.train_quality(teaching.load_quality_recipe(None, **SMALL), data, tmp_path / "none")
