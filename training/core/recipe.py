"""Recipes: the TOML files that say how a network is trained. Found and read, with errors that say what to do.

from training.core.recipe import find, read, settings, shipped table = read(shipped("denoiser")) shape =
settings(Shape, table["net"], "net")
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from device.errors import BadInput

__all__ = ["FOLDER", "find", "read", "settings", "shipped"]

FOLDER = Path(__file__).resolve().parent.parent / "recipes"

Kind = TypeVar("Kind")


def shipped(name: str) -> Path:
    """Where the shipped recipe of that name lies."""
    return FOLDER / f"{name}.toml"


def find(given: str | None, default: str) -> Path:
    """A file, or the name of a recipe that ships (`smoke`); for None the shipped one named `default`."""
    if given is None:
        return shipped(default)
    for path in (Path(given), shipped(given)):
        if path.is_file():
            return path
    raise _missing(given)


def _missing(what: object) -> BadInput:
    names = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
    return BadInput(f"{what}: no such recipe; give a TOML file or one of those that ship: {names}")


def read(path: Path) -> dict[str, Any]:
    """The recipe's tables. BadInput when it is missing, cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, UnicodeDecodeError) as problem:
        why = getattr(problem, "strerror", None) or "not UTF-8"
        raise BadInput(f"{path}: the recipe cannot be read ({why}); give a TOML file") from None
    except tomllib.TOMLDecodeError as problem:
        raise BadInput(f"{path}: not TOML ({problem}); mend it there") from None


def settings(kind: type[Kind], table: Mapping[str, Any], where: str) -> Kind:
    """A dataclass made from a table of a recipe; lists become tuples. BadInput names an unknown key."""
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise BadInput(f"recipe: [{where}] {key}: no such key; there are {', '.join(sorted(known))}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})
