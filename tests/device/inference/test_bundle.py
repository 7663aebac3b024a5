"""The bundle is loaded whole and verified, or refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from device.errors import BadInput, StethopiError
from device.inference import bundle


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.find(), tmp_path / "bundles" / "0.1.0"))


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    index = folder / "bundle.json"
    meta = json.loads(index.read_text())
    change(meta)
    index.write_text(json.dumps(meta))


def test_the_released_bundle_fits_its_hashes_and_is_small() -> None:
    released = bundle.load()
    assert {"denoiser", "classifier"} <= set(released.models)
    assert sum(p.stat().st_size for p in released.folder.iterdir()) < 3e6
    for name in released.models:
        assert released.model(name).tflite.stat().st_size <= 300e3
        assert any(key.startswith(f"{name}/") for key in released.vectors())
    assert (released.folder / "CARD.md").is_file()


@pytest.mark.parametrize("name", ["denoiser.tflite", "classifier.tflite", "denoiser.npz", "vectors.npz"])
def test_one_flipped_bit_is_refused_and_the_file_named(copy: Path, name: str) -> None:
    file = copy / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(StethopiError, match=f"{name}: its sha256"):
        bundle.load(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "classifier.tflite").unlink()
    with pytest.raises(StethopiError, match="classifier.tflite: not there"):
        bundle.load(copy)


@pytest.mark.parametrize(
    "change", [lambda m: m.update(schema=99), lambda m: m.pop("models"), lambda m: m.pop("schema")]
)
def test_a_foreign_schema_is_refused(copy: Path, change: Callable[[dict], object]) -> None:
    edit(copy, change)
    with pytest.raises(StethopiError, match=r"bundle\.json"):
        bundle.load(copy)


def test_a_path_out_of_the_folder_is_refused(copy: Path) -> None:
    edit(copy, lambda m: m["models"]["denoiser"].update(file="../../elsewhere.tflite"))
    with pytest.raises(StethopiError, match="not a plain file name"):
        bundle.load(copy)


def test_a_folder_without_a_bundle_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(StethopiError, match="not there"):
            bundle.load(path)


def test_a_newer_bundle_in_the_state_folder_wins_and_an_older_does_not(copy: Path) -> None:
    state = copy.parent.parent
    newer = Path(shutil.move(copy, copy.with_name("0.10.0")))
    assert bundle.find(state) == newer
    older = Path(shutil.move(newer, newer.with_name("0.0.9")))
    assert bundle.find(state) != older


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(StethopiError, match="no rhythm-of-ages; it has"):
        bundle.load().model("rhythm-of-ages")


def test_a_folder_that_somebody_named_and_that_holds_no_bundle_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        bundle.load(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'bundle.json'}: not there; give a folder written by `stethopi release`"
    )
