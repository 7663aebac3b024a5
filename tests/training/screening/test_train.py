"""Labels, draws and figures of the screening network's training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from device.errors import BadInput
from tests.training import folders
from tests.training.rewritten import rewrite

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.make(tmp_path_factory.mktemp("data"))


def recording(**changes: object):  # type: ignore[no-untyped-def]
    from training.data.recordings import Recording

    values: dict = {"record": "r", "database": "a", "path": Path("r.flac"), "group": "g", "fold": 2}
    values |= {"label": "normal", "quality": "good", "seconds": 8.0, "murmur_here": None}
    return Recording(**(values | changes))


def test_the_shipped_recipes_are_understood() -> None:
    from training.commands.recipes import RunRecipes

    for name in ("classifier", "all", "smoke"):
        assert RunRecipes(name).classifier().seed == 1
    assert RunRecipes("smoke").classifier().digest() != RunRecipes("all").classifier().digest()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("stepz = 3", 'stepz: no such key. Did you mean "steps"'),
        ('steps = "many"', "steps = 'many': a whole number"),
    ],
)
def test_a_wrong_recipe_is_told(tmp_path: Path, line: str, words: str) -> None:
    from training.screening.recipe import load_recipe

    path = tmp_path / "own.toml"
    path.write_text(f"[classifier]\n{line}\n")
    with pytest.raises(BadInput, match=words):
        load_recipe(path)


def test_what_is_not_known_has_no_weight() -> None:
    from training.screening.corpus import targets
    from training.screening.recipe import Recipe

    recipe = Recipe(outcome_weight=0.15)
    assert targets(recording(label="abnormal"), recipe) == (0.0, 0.0, 1.0, 1.0)
    assert targets(recording(label=None), recipe)[3] == 0.0
    circor = {"database": "circor"}
    # a murmur is a finding whatever the outcome was
    assert targets(recording(**circor, murmur_here="yes", label="normal"), recipe) == (1.0, 1.0, 1.0, 1.0)
    assert targets(recording(**circor, murmur_here="no", label="abnormal"), recipe) == (0.0, 1.0, 1.0, 0.15)
    assert targets(recording(**circor, murmur_here="no", label="normal"), recipe) == (0.0, 1.0, 0.0, 1.0)
    unknown = targets(recording(**circor, murmur_here="unknown", label="abnormal"), recipe)
    assert (unknown[1], unknown[3]) == (0.0, 0.0)


def test_kept_features_outlive_a_rename_but_not_another_version(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.screening import corpus as screening_corpus
    from training.screening import train as classifier

    cache = tmp_path / "cache"

    def kept() -> list[str]:
        screening_corpus.Corpus(data, cache)
        return sorted(path.name for path in cache.iterdir())

    once = kept()
    rewrite(monkeypatch, tmp_path)
    assert kept() == once and len(once) == 1
    monkeypatch.setattr(screening_corpus, "FEATURES_VERSION", screening_corpus.FEATURES_VERSION + 1)
    assert len(kept()) == 2
    monkeypatch.setattr(classifier.training_data, "data_hashes", lambda _: {"index": "other"})
    assert len(kept()) == 3


def test_only_training_folds_and_sources_are_drawn(data: Path, tmp_path: Path) -> None:
    from training.screening.augment import Drawer
    from training.screening.corpus import Corpus
    from training.screening.recipe import Recipe

    corpus = Corpus(data, tmp_path)
    drawer = Drawer(corpus, Recipe(hold_out=("f",)), (2, 3, 4))
    drawn = {i for cell in drawer.cells for group in cell for i in group}
    assert {corpus.recordings[i].fold for i in drawn} == {2, 3, 4}
    assert {corpus.recordings[i].database for i in drawn} == {"a", "circor"}


def test_a_teacher_says_only_what_nobody_noted(data: Path, tmp_path: Path) -> None:
    import dataclasses

    from training.screening.augment import Drawer
    from training.screening.corpus import Corpus
    from training.screening.recipe import Recipe

    corpus = Corpus(data, tmp_path)
    first = next(k for k, r in enumerate(corpus.recordings) if r.database == "circor" and r.fold == 2)
    corpus.recordings[first] = dataclasses.replace(corpus.recordings[first], murmur_here="unknown")
    taught = np.full((len(corpus.recordings), 2), 0.7)
    taught[-1] = np.nan
    recipe = Recipe()
    alone, told = Drawer(corpus, recipe, (2, 3, 4)), Drawer(corpus, recipe, (2, 3, 4), taught)
    noted = alone.labels[:, 1::2] > 0
    assert np.array_equal(told.labels[:, ::2][noted], alone.labels[:, ::2][noted])
    assert np.array_equal(told.labels[:, 1::2][noted], alone.labels[:, 1::2][noted])
    unknown = ~noted
    unknown[-1] = False
    assert unknown[first].all() and (told.labels[:, ::2][unknown] == np.float32(0.7)).all()
    assert (told.labels[:, 1::2][unknown] == 0.5).all()
    assert np.array_equal(told.labels[-1], alone.labels[-1])

    def drawn(drawer: Drawer) -> set[int]:
        return {i for cell in drawer.cells for group in cell for i in group}

    assert drawn(told) - drawn(alone) == {first}


def test_noise_that_is_not_free_is_not_learned_from(data: Path, tmp_path: Path) -> None:
    from training.screening.corpus import Corpus

    corpus = Corpus(data, tmp_path)
    assert corpus.noises
    assert all(n.free and n.part == "train" for n in corpus.noises)


def test_a_batch_is_a_function_of_seed_and_step(data: Path, tmp_path: Path) -> None:
    from training.screening.augment import Drawer
    from training.screening.corpus import Corpus
    from training.screening.recipe import Recipe

    corpus = Corpus(data, tmp_path)
    drawer = Drawer(corpus, Recipe(batch=6, mixup=0.2), (2, 3, 4))
    first, again, other = drawer.batch(5), drawer.batch(5), drawer.batch(6)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not (first[0] == other[0]).all()
    assert first[0].shape == (6, 1, 32, 248)
    assert np.isfinite(first[0]).all() and np.abs(first[0]).max() <= 2.0


def test_an_extra_sound_lies_in_diastole_and_low() -> None:
    from training.screening.augment import _with_extra_sound

    codes = np.tile(np.repeat([0, 1, 2, 3], [5, 10, 5, 20]), 7)[:248].astype(np.uint8)
    power = np.full((248, 32), 1e-6, np.float32)
    power[(codes == 0) | (codes == 2)] = 1.0
    kept = 0
    for seed in range(20):
        louder = _with_extra_sound(power, codes, np.random.default_rng(seed))
        if louder is None:
            continue
        kept += 1
        added = louder - power
        assert (added[codes != 3] == 0).all() and added[codes == 3].max() > 1e-3
        assert added[:, :12].sum() > 5 * added[:, 20:].sum()
    assert kept > 15
    assert _with_extra_sound(power, np.full(248, 255, np.uint8), np.random.default_rng(0)) is None


def test_low_bands_are_taken_away_in_some_draws(data: Path, tmp_path: Path) -> None:
    from training.screening.augment import Drawer
    from training.screening.corpus import Corpus
    from training.screening.recipe import Recipe

    corpus = Corpus(data, tmp_path)
    plain = Recipe(batch=16, bands=20, range_db=22.0, time_masks=0, band_masks=0, extra_sounds=0.5)
    assert (Drawer(corpus, plain, (2, 3, 4)).batch(0)[0][:, 0, 0] != 0).any(axis=1).all()
    cut = Drawer(corpus, dataclasses.replace(plain, low_cut=0.5), (2, 3, 4)).batch(0)[0]
    gone = (cut[:, 0] == 0).all(axis=2)
    assert 2 <= gone[:, 0].sum() <= 14 and not gone[:, 4:].any()


def test_states_follow_the_sound_when_it_repeats() -> None:
    from training.screening.corpus import UNKNOWN, _frame_states

    codes = _frame_states([(0.0, 1.0, "S1"), (1.0, 2.0, "noise"), (2.0, 3.0, "diastole")], 250, 3.0)
    assert codes[0] == 0 and codes[60] == UNKNOWN and codes[120] == 3
    # 3.5 s is 0.5 s again
    assert codes[175] == 0


def test_auc_against_counting_pairs() -> None:
    from training.metrics.classification import auc

    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 40).astype(float), rng.random(40) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert auc(scores, positive) == pytest.approx(float(np.mean(pairs)))
    assert np.isnan(auc(scores, np.zeros(40, bool)))


def test_macc_is_the_mean_of_both_rates() -> None:
    from training.metrics.classification import macc

    assert macc(np.array([0.9, 0.2, 0.6, 0.1]), np.array([True, True, False, False]), 0.5) == 0.5
    assert macc(np.array([0.9, 0.8, 0.4, 0.1]), np.array([True, True, False, False]), 0.5) == 1.0


def test_scaling_finds_bias_and_temperature_again() -> None:
    from training.metrics.classification import fit_platt

    rng = np.random.default_rng(1)
    scores = 3 * rng.standard_normal(20_000)
    positive = (rng.random(20_000) < 1 / (1 + np.exp(-(scores - 1.0) / 2.5))).astype(float)
    bias, temperature = fit_platt(scores, positive, np.full(20_000, 1 / 20_000) * 100)
    assert bias == pytest.approx(-1.0, abs=0.15)
    assert temperature == pytest.approx(2.5, abs=0.2)


def test_bootstrap_resamples_subjects_not_recordings() -> None:
    from training.metrics.classification import bootstrap

    values = np.array([0.0, 1.0] * 10)
    # as one subject a value: a wide interval; every pair of one subject: none at all
    wide = bootstrap(lambda rows: float(values[rows].mean()), [str(k) for k in range(20)], 1)
    pairs = bootstrap(lambda rows: float(values[rows].mean()), [str(k // 2) for k in range(20)], 1)
    assert wide["value"] == pairs["value"] == 0.5
    assert wide["low"] is not None and wide["high"] is not None
    assert wide["low"] < 0.4 < 0.6 < wide["high"]
    assert pairs["low"] == pairs["high"] == 0.5


def test_calibration_error_of_an_honest_and_of_a_boastful_model() -> None:
    from training.metrics.classification import calibration_error

    rng = np.random.default_rng(2)
    told = rng.random(5000)
    happened = rng.random(5000) < told
    assert calibration_error(told, happened) < 0.03
    assert calibration_error(np.full(5000, 0.95), rng.random(5000) < 0.5) > 0.4


def test_no_interval_from_a_class_of_three_people() -> None:
    from training.metrics.classification import scores

    rng = np.random.default_rng(3)
    positive = np.arange(60) < 30
    probability = np.clip(0.5 + 0.2 * positive + 0.2 * rng.standard_normal(60), 0, 1)
    few = [f"p{k % 3}" if k < 30 else f"n{k}" for k in range(60)]
    found = scores(probability, positive, few, 0.5, 1)
    assert found["auc"]["value"] is not None and found["auc"]["low"] is None
    assert found["sensitivity"]["low"] is None and found["specificity"]["low"] is not None


def test_a_patients_murmur_needs_more_than_one_positions() -> None:
    from training.screening.operating_point import operating_point
    from training.screening.recipe import Recipe

    # four positions each: the surest of four lies higher in the healthy, too
    rng = np.random.default_rng(5)
    chosen, logits = [], []
    for k in range(120):
        ill = k % 3 == 0
        for position in ("AV", "PV", "TV", "MV"):
            meta = {"patient": str(k), "position": position, "murmur": "present" if ill else "absent"}
            here = {"murmur_here": "yes" if ill else "no", "label": "abnormal" if ill else "normal"}
            chosen.append(recording(database="circor", group=f"g{k}", meta=meta, **here))
            logits.append(np.full(2, 2.0 * ill + rng.standard_normal()))
    point = operating_point(np.array(logits), chosen, Recipe())
    assert 0.55 < point["murmur_by_patient"] <= 0.85
    assert operating_point(np.array(logits[:8]), chosen[:8], Recipe())["murmur_by_patient"] == 0.5
