"""Units leave their scores, are not trained twice, and become figures; a fake model in place of networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.training import folders
from training.data.recordings import Recording

pytestmark = pytest.mark.train


def recordings() -> list[Recording]:
    """Three sources; what can be heard of a heart is one number, `sound`, 1.5 higher where it is ill."""
    rng = np.random.default_rng(11)
    found = []
    for database in ("a", "f", "circor"):
        for g in range(160):
            ill = bool(rng.random() < 0.4)
            here = {"murmur_here": "yes" if ill else "no"} if database == "circor" else {"murmur_here": None}
            meta = {"sound": str(1.5 * ill + rng.standard_normal())}
            for position in ("AV", "MV") if database == "circor" else ("",):
                own = dict(meta)
                if position:
                    own |= {
                        "patient": f"{g}",
                        "position": position,
                        "murmur": ["absent", "present"][ill] if g % 11 else "unknown",
                        "sound": str(float(meta["sound"]) + (0.5 if ill and position == "MV" else 0.0)),
                    }
                found.append(
                    Recording(
                        record=f"{database}{g}{position}",
                        database=database,
                        path=Path("none.flac"),
                        group=f"{database}{g}",
                        fold=g % 5,
                        label="abnormal" if ill else "normal",
                        quality="good",
                        seconds=8.0,
                        meta=own,
                        **here,
                    )
                )
    return found


def heard(chosen: Sequence[Recording]) -> np.ndarray:
    """The one number among twenty that say nothing, and a one."""
    rows = []
    for r in chosen:
        rng = np.random.default_rng(list(r.group.encode()))
        rows.append([1.0, float(r.meta["sound"]), *rng.standard_normal(20)])
    return np.array(rows)


class Fake:
    """Learns how label and sound go together, by least squares."""

    name = "ours"

    def __init__(self) -> None:
        self.trainings = 0
        self.breaks = False

    def key(self, unit: object) -> str:
        return "fake"

    def learn(
        self, unit: object, shown: Sequence[Recording], out: Path, int8: bool, say: Callable[[str], None]
    ):  # type: ignore[no-untyped-def]
        from training.screening.candidates import Learned

        if self.breaks:
            raise KeyboardInterrupt
        self.trainings += 1
        taught = [r for r in shown if r.fold >= 2]
        y = np.array([1.0 if r.label == "abnormal" else -1.0 for r in taught])
        x = heard(taught)
        weights, *_ = np.linalg.lstsq(x, y, rcond=None)

        def logits(chosen: Sequence[Recording]) -> np.ndarray:
            score = 3 * heard(chosen) @ weights
            return np.stack([score, score], axis=1)

        return Learned({"float": logits} | ({"int8": logits} if int8 else {}), 1)


def run(cache: Path, names: Sequence[str], model: Fake | None = None, seed: int = 1) -> Fake:
    from training.benchmarks.screening_units import run_unit
    from training.screening.protocols import matching, units

    model = model or Fake()
    everything = recordings()
    for unit in matching(names, units(["ours"], {"a", "f", "circor"})):
        run_unit(unit, model, everything, {"index": "hash"}, cache, seed=seed)
    return model


def test_a_unit_is_trained_once_and_a_broken_one_again(tmp_path: Path) -> None:
    model = run(tmp_path, ["ours/folds/0", "ours/left-out/f"])
    assert model.trainings == 2
    assert run(tmp_path, ["ours/folds"], model).trainings == 6
    model.breaks = True
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ["ours/shuffled"], model)
    model.breaks = False
    from training.benchmarks.screening_comparison import assemble

    missing = assemble(tmp_path, tmp_path, recordings(), 1, ["ours"], resamples=2)["ours"]["missing"]
    assert missing == ["ours/left-out/a", "ours/left-out/circor", "ours/shuffled/0", "ours/leaky/0"]
    assert run(tmp_path, ["ours"], model).trainings == 10
    assert assemble(tmp_path, tmp_path, recordings(), 1, ["ours"], resamples=2)["ours"]["missing"] == []


def test_a_changed_recipe_is_trained_anew(tmp_path: Path) -> None:
    model = run(tmp_path, ["ours/folds/0"])
    model.key = lambda unit: "another"  # type: ignore[method-assign]
    assert run(tmp_path, ["ours/folds/0"], model).trainings == 2


def test_shuffled_labels_give_chance_and_true_ones_do_not(tmp_path: Path) -> None:
    from training.benchmarks.screening_comparison import assemble

    by_chance, true = [], []
    for seed in range(1, 7):
        run(tmp_path / str(seed), ["ours/shuffled", "ours/folds/0"], seed=seed)
        table = assemble(tmp_path, tmp_path / str(seed), recordings(), seed, ["ours"], resamples=2)["ours"]
        by_chance.append(table["shuffled"]["rows"]["float"]["mean_within_source_auc"])
        true.append(table["folds"]["rows"]["float"]["mean_within_source_auc"])
    assert abs(np.mean(by_chance) - 0.5) < 0.13 and max(by_chance) < 0.75
    assert min(true) > 0.8


def test_murmurs_by_patient_and_the_scaling_of_a_source(tmp_path: Path) -> None:
    from training.benchmarks.screening_comparison import assemble

    run(tmp_path, ["ours/folds"])
    folder = tmp_path / "circor2022"
    folder.mkdir()
    rows = [f"{r.meta['patient']},MV" for r in recordings() if r.database == "circor"]
    (folder / "patients.csv").write_text("\n".join(["patient,most_audible", *dict.fromkeys(rows)]))
    table = assemble(tmp_path, tmp_path, recordings(), 1, ["ours"], resamples=20)["ours"]
    patients = table["murmur_by_patient"]
    assert patients["patients"] == 160
    assert sum(sum(row.values()) for row in patients["said_by_truth"].values()) == 160
    assert patients["weighted_accuracy"]["value"] > patients["always_present"]
    assert len(patients["other_ways"]) == 3
    # poor sound is what the unknown ones have in common here
    poor = {r.record: 0.2 for r in recordings() if r.meta.get("murmur") == "unknown"}
    told = assemble(tmp_path, tmp_path, recordings(), 1, ["ours"], 2, poor)["ours"]["murmur_by_patient"]
    assert told["said_by_truth"]["unknown"]["unknown"] > patients["said_by_truth"]["unknown"]["unknown"]
    assert told["weighted_accuracy"]["value"] > patients["weighted_accuracy"]["value"]
    assert patients["loudest_position"]["right"]["value"] == 1.0
    assert patients["loudest_position"]["by_chance"] == 0.5
    for one in table["folds"]["rows"]["int8"]["databases"].values():
        assert one["n"] == one["groups"] * (2 if one["n"] == 320 else 1)
        assert one["after_scaling"]["calibration_error"] < 0.13
        assert one["macc_at_best_threshold"] >= one["macc"]["value"]


def test_limits_of_present_and_absent_follow_the_weights() -> None:
    from training.benchmarks.murmur_by_patient import murmur_limits, say_murmurs

    surest = np.concatenate([np.linspace(0.0, 0.3, 60), np.linspace(0.4, 0.5, 10), np.linspace(0.6, 1.0, 30)])
    truth = ["absent"] * 60 + ["unknown"] * 10 + ["present"] * 30
    low, high = murmur_limits(surest, truth)
    said = say_murmurs(surest, low, high)
    assert [s == t for s, t in zip(said, truth, strict=True)].count(False) <= 3


def test_networks_learn_a_unit_and_are_scored(tmp_path: Path) -> None:
    from device.inference import bundle
    from training.benchmarks.screening_comparison import assemble
    from training.benchmarks.screening_units import run_unit
    from training.data.recordings import recordings as read
    from training.screening.baseline_recipe import load_baseline_recipe
    from training.screening.candidates import BaselineCandidate, Ours
    from training.screening.protocols import Unit
    from training.screening.recipe import load_recipe

    data = folders.make(tmp_path / "data", per_fold=2, seconds=6.0)
    small = load_recipe(None, steps=2, batch=4, channels=(8, 8, 8, 8, 8, 8, 8))
    entry = bundle.load().model("classifier")
    ours = Ours(data, tmp_path / "cache", entry, small)
    other = BaselineCandidate(
        "cnn1d", data, tmp_path / "cache", load_baseline_recipe("cnn1d", steps=2, batch=2)
    )
    everything = read(data)
    kept = {"index": "hash"}
    for unit in (Unit("ours", "left-out", "f"), Unit("cnn1d", "folds", "0"), Unit("cnn1d", "leaky", "0")):
        model = ours if unit.model == "ours" else other
        one = run_unit(unit, model, everything, kept, tmp_path / "cache", int8=False)
        assert len(one.records["test"]) == len(one.logits["test/float"]) > 0
        assert np.isfinite(one.logits["test/float"]).all() and one.meta["steps"] == 2
    table = assemble(data, tmp_path / "cache", everything, 1, ["ours", "cnn1d"], resamples=2)
    assert table["ours"]["left-out"]["rows"]["float"]["databases"]["f"]["n"] == 10
    assert table["cnn1d"]["leaky"]["windows_of_recordings_trained_on"]["n"] > 0
    assert len(table["ours"]["missing"]) == 9 and len(table["cnn1d"]["missing"]) == 8


def test_noise_is_put_in_at_the_level_that_is_told(tmp_path: Path) -> None:
    from device.inference import bundle
    from training.benchmarks.screening_noise import LEVELS, NOISY_INPUTS, NoisyRecordings, noise_figures
    from training.data.recordings import recordings as read
    from training.metrics.denoising import band

    data = folders.make(tmp_path / "data", per_fold=2, seconds=2.5)
    chosen = [r for r in read(data) if r.fold == 0]
    noisy = NoisyRecordings(data, tmp_path / "cache", chosen, bundle.load().model("denoiser"))
    heard: list[np.ndarray] = []

    def listen(x: np.ndarray) -> np.ndarray:
        heard.append(x)
        return np.array([0.0, float(x[:100].std())])

    logits = noisy.logits(listen)
    assert set(logits) == {f"{level}/{way}" for level in LEVELS for way in NOISY_INPUTS}
    count = len(noisy.recordings)
    for level, part in zip(("20", "10", "5", "0"), range(1, 5), strict=True):
        for k in range(count):
            clean, mixed = heard[k], heard[part * len(NOISY_INPUTS) * count + k]
            noise = band(mixed - clean)
            if np.abs(mixed).max() < 0.999:
                found = 10 * np.log10((band(clean) ** 2).mean() / (noise**2).mean())
                assert found == pytest.approx(float(level), abs=0.5)
    point = {"combine": {"murmur": 0.0, "abnormal": 1.0}, "bias": 0.0, "temperature": 1.0, "threshold": 0.5}
    assert set(noise_figures(noisy.recordings, logits, point)) == set(LEVELS)
