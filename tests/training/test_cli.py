"""The training commands: light to import, and clear about what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from device.errors import BadInput, StethopiError
from training import cli
from training.commands.recipes import RunRecipes
from training.commands.steps import Steps
from training.core.recipe import merged


def test_importing_the_commands_brings_nothing_heavy() -> None:
    code = (
        "import sys, training.cli; "
        "sys.exit(bool({'numpy', 'torch', 'scipy', 'training.screening.train'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("command", ["train", "prune", "export"])
def test_without_the_training_environment_one_line_says_what_to_install(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main([command, "classifier"]) == 2
    assert "pip install 'stethopi[train]'" in capsys.readouterr().err


def test_an_unknown_recipe_is_told_with_those_that_ship(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "all", "--recipe", "nowhere.toml"]) == 2
    error = capsys.readouterr().err
    assert "nowhere.toml: no such recipe" in error
    assert "smoke" in error


def test_a_release_without_exports_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["release", "--out", str(tmp_path), "--released", str(tmp_path / "r")]) == 2
    assert "run `stethopi export` for the denoiser first" in capsys.readouterr().err


def test_recipes_are_merged_deeply() -> None:
    base = {"net": {"front": 32, "head": 96}, "seed": 1}
    assert merged(base, {"net": {"head": 8}}) == {"net": {"front": 32, "head": 8}, "seed": 1}
    assert base["net"] == {"front": 32, "head": 96}


def test_a_baselines_recipe_is_the_shipped_one_with_the_changes_of_a_whole_run(tmp_path: Path) -> None:
    shipped = RunRecipes(None, "unet-classic").baseline("unet-classic")
    smoke = RunRecipes("smoke").baseline("unet-classic")
    assert smoke["train"]["steps"] < 10 < shipped["train"]["steps"]
    assert (smoke["seed"], smoke["train"]["rate"]) == (shipped["seed"], shipped["train"]["rate"])
    assert RunRecipes("all").baseline("lu-net")["train"]["steps"] > 100
    (tmp_path / "own.toml").write_text("seed = 1\n[mix]\nbatch = 1\n")
    with pytest.raises(BadInput, match=r"own.toml: train is missing; begin with a copy of .*lu-net.toml"):
        RunRecipes(str(tmp_path / "own.toml")).baseline("lu-net")


def test_a_step_is_skipped_only_while_nothing_that_decides_it_has_changed(tmp_path: Path) -> None:
    steps, output, runs = Steps(tmp_path), tmp_path / "result", []

    def work() -> None:
        runs.append(1)
        output.write_text("x")

    assert steps.run("a", {"seed": 1}, output, work)
    assert not steps.run("a", {"seed": 1}, output, work)
    assert steps.run("a", {"seed": 2}, output, work)
    output.unlink()
    assert steps.run("a", {"seed": 2}, output, work)
    assert len(runs) == 3


def test_a_step_that_leaves_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StethopiError, match="ended without"):
        Steps(tmp_path).run("a", 1, tmp_path / "none", lambda: None)


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.commands.train.RunRecipes", interrupted)
    assert cli.main(["train", "classifier"]) == 130
    assert capsys.readouterr().err == "stethopi: stopped; a command with --resume goes on from what is kept\n"


@pytest.mark.parametrize("option", ["--baselines", "--rivals"])
def test_checkpoints_of_baselines_are_found_under_both_words(
    option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from training.benchmarks import denoise

    asked: list[object] = []

    def benchmark(*_arguments: object, baselines: Path, **_more: object) -> None:
        asked.append(baselines)
        raise StethopiError("enough")

    monkeypatch.setattr(denoise, "benchmark_denoise", benchmark)
    assert cli.main(["benchmark", "denoise", option, str(tmp_path)]) == 1
    assert asked == [tmp_path]


def test_a_broken_recipe_is_told(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("[classifier\n")
    with pytest.raises(BadInput, match="r.toml: not TOML"):
        RunRecipes(str(path))


@pytest.mark.train
def test_units_that_do_not_exist_are_told_with_those_that_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.training import folders

    data = folders.make(tmp_path / "data", per_fold=2, seconds=2.5)
    command = [
        "benchmark",
        "classify",
        "--data",
        str(data),
        "--cache",
        str(tmp_path),
        "--train",
        "hers/folds/0",
    ]
    assert cli.main(command) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "--train hers/folds/0: fits no unit" in lines[0] and "melcnn-light" in lines[0]


@pytest.mark.train
def test_the_comparison_alone_wants_a_result_of_the_same_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.training import folders

    data = folders.make(tmp_path / "data", per_fold=2, seconds=2.5)
    command = ["benchmark", "classify", "--data", str(data), "--cache", str(tmp_path), "--only-models"]
    assert cli.main([*command, "--results", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'classify.json'} does not tell of this bundle" in error
