"""Recipes: what is wrong with one is named, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from device.errors import BadInput
from training.core.recipe import FOLDER, find, load_settings, merged, read, settings, shipped


@dataclass(frozen=True)
class Sizes:
    width: int = 3
    steps: tuple[int, ...] = (1, 2)


def test_every_shipped_recipe_is_found_by_name_and_reads() -> None:
    names = [p.stem for p in FOLDER.glob("*.toml")]
    assert {"denoiser", "ecg", "classifier", "smoke"} <= set(names)
    for name in names:
        assert read(find(name, "denoiser"))
    assert find(None, "ecg") == shipped("ecg")


def test_a_file_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text("a = 1")
    assert read(find("own.toml", "ecg")) == {"a": 1}


@pytest.mark.parametrize("ask", [lambda p: read(p), lambda p: find(str(p), "ecg")])
def test_a_missing_recipe_names_those_that_ship(ask: object, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none.toml: no such recipe; .*classifier.*denoiser.*ecg") as told:
        ask(tmp_path / "none.toml")  # type: ignore[operator]
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("content", "named"), [(b"a = = 1", "not TOML"), (b"\xff\xfe", "not UTF-8")])
def test_what_is_no_recipe_is_said(content: bytes, named: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=named):
        read(path)
    with pytest.raises(BadInput, match="cannot be read"):
        read(tmp_path)


def test_settings_take_lists_and_name_a_wrong_key() -> None:
    assert settings(Sizes, {"steps": [4, 5]}, "sizes") == Sizes(3, (4, 5))
    with pytest.raises(BadInput, match=r'^recipe: \[sizes\] widht: no such key. Did you mean "width"\?$'):
        settings(Sizes, {"widht": 3}, "sizes")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[sizes]\nwidht = 3", 'own.toml: [sizes] widht: no such key. Did you mean "width"?'),
        ("[sizes]\nwidth = true", "own.toml: [sizes] width = True: a whole number is needed, such as 3"),
        ("[sizes]\nsteps = 3", "own.toml: [sizes] steps = 3: a list is needed, such as (1, 2)"),
        ("sizes = 3", "own.toml: sizes = 3: a table is needed; write [sizes] above its keys"),
    ],
)
def test_an_error_names_file_and_key(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(BadInput) as told:
        load_settings(Sizes, path, "sizes")
    assert str(told.value) == f"{tmp_path}/{words}"


def test_an_error_in_what_a_recipe_changes_names_that_recipe(tmp_path: Path) -> None:
    for name, text in (("base", "[sizes]\nwidth = 4"), ("own", "[sizes]\nwidht = 3")):
        (tmp_path / f"{name}.toml").write_text(text)
    both = merged(read(tmp_path / "base.toml"), read(tmp_path / "own.toml"))
    with pytest.raises(BadInput, match=r"own.toml: \[sizes\] widht"):
        settings(Sizes, both["sizes"] | {"width": 5}, "sizes")


def test_a_table_left_out_is_an_empty_one_and_keys_can_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text("[other]\na = 1")
    assert load_settings(Sizes, path, "sizes", steps=[4]) == Sizes(3, (4,))
