"""A bundle is written whole out of parts that hold, or not at all; the texts follow the figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.errors import BadInput, StethopiError
from device.inference import bundle
from training.export.part import write_part
from training.release.release import release
from training.reports import card


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Path]:
    """The released models, taken apart again."""
    released = bundle.load()
    vectors = released.vectors()
    folders = {}
    for name in released.models:
        entry = released.model(name)
        folder = folders[name] = tmp_path / "parts" / name
        folder.mkdir(parents=True)
        shutil.copyfile(entry.tflite, folder / f"{name}.tflite")
        own = {key.removeprefix(f"{name}/"): v for key, v in vectors.items() if key.startswith(f"{name}/")}
        write_part(folder, name, entry.meta, arrays=entry.arrays, vectors=own)
    return folders


def edit(folder: Path, name: str, **changes: Any) -> None:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_parts_become_a_bundle_that_loads(parts: dict[str, Path], tmp_path: Path) -> None:
    target = release(parts, "9.9.9", out=tmp_path / "released", command="stethopi release")
    made = bundle.load(target)
    assert made.version == "9.9.9"
    assert set(made.models) == set(bundle.load().models)
    assert made.meta["command"] == "stethopi release"
    old, new = bundle.load().vectors(), made.vectors()
    assert old.keys() == new.keys()
    assert all((old[key] == new[key]).all() for key in old if old[key].dtype.kind != "f")
    assert "no medical device" in (target / "CARD.md").read_text()
    assert [p.name for p in target.parent.iterdir()] == ["9.9.9"]


def test_a_bundle_without_the_ecg_is_whole(parts: dict[str, Path], tmp_path: Path) -> None:
    parts.pop("ecg", None)
    made = bundle.load(release(parts, "1", out=tmp_path / "released"))
    assert set(made.models) == {"denoiser", "classifier"}
    with pytest.raises(StethopiError, match="the bundle has no ecg; it has"):
        made.model("ecg")


def test_a_stream_whose_vectors_come_out_wrong_is_refused(parts: dict[str, Path], tmp_path: Path) -> None:
    path = parts["denoiser"] / "denoiser.vectors.npz"
    vectors = dict(np.load(path))
    vectors["y"] = 0.7 * vectors["y"]
    np.savez(path, **vectors)
    refused(parts, tmp_path, StethopiError, "denoiser: its vectors come out only")


def test_a_second_release_replaces_the_first(parts: dict[str, Path], tmp_path: Path) -> None:
    target = release(parts, "1", out=tmp_path / "released")
    (target / "left-over").touch()
    assert release(parts, "1", out=tmp_path / "released") == target
    assert not (target / "left-over").exists()


def refused(parts: dict[str, Path], tmp_path: Path, error: type[Exception], words: str) -> None:
    out = tmp_path / "released"
    out.mkdir()
    with pytest.raises(error, match=words):
        release(parts, "1", out=out)
    assert list(out.iterdir()) == []


def test_a_file_that_no_gate_has_seen_is_refused(parts: dict[str, Path], tmp_path: Path) -> None:
    with (parts["classifier"] / "classifier.tflite").open("ab") as file:
        file.write(b"x")
    refused(parts, tmp_path, StethopiError, "not the file that the export accepted")


def test_a_missing_part_is_told(parts: dict[str, Path], tmp_path: Path) -> None:
    (parts["denoiser"] / "denoiser.json").unlink()
    refused(parts, tmp_path, BadInput, "run `stethopi export` for the denoiser first")


def test_missing_vectors_are_told(parts: dict[str, Path], tmp_path: Path) -> None:
    (parts["classifier"] / "classifier.vectors.npz").unlink()
    refused(parts, tmp_path, StethopiError, "cannot prove itself")


def test_states_of_two_scales_are_refused(parts: dict[str, Path], tmp_path: Path) -> None:
    meta = json.loads((parts["denoiser"] / "denoiser.json").read_text())
    # pair a state's input with another tensor's output
    wrong = next(k for k, o in enumerate(meta["outputs"]) if o["scale"] != meta["inputs"][1]["scale"])
    edit(parts["denoiser"], "denoiser", states=[{"input": 1, "output": wrong}])
    refused(parts, tmp_path, StethopiError, "it would drift")


def test_a_transpose_is_refused(parts: dict[str, Path], tmp_path: Path) -> None:
    edit(parts["classifier"], "classifier", export={"operators": {"int8": {"TRANSPOSE": 2}}})
    refused(parts, tmp_path, StethopiError, "2 TRANSPOSE in the int8 file")


def test_wrong_vectors_are_refused(parts: dict[str, Path], tmp_path: Path) -> None:
    path = parts["classifier"] / "classifier.vectors.npz"
    vectors = dict(np.load(path))
    vectors["logits"] = vectors["logits"] + 3.0
    np.savez(path, **vectors)
    refused(parts, tmp_path, StethopiError, "its vectors come out")


def test_markers_are_filled_and_the_rest_stays() -> None:
    text = "before\n<!-- results:begin -->\nold\nolder\n<!-- results:end -->\nafter\n"
    filled = card.fill_markers(text, "| new |\n")
    assert filled == "before\n<!-- results:begin -->\n| new |\n<!-- results:end -->\nafter\n"
    assert card.fill_markers("no markers", "x") == "no markers"
    assert card.fill_markers(text, "x", "other") == text


def test_the_readme_and_the_card_say_what_the_results_say() -> None:
    assert card.refresh(check=True) == []
