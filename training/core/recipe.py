"""Recipes: the TOML files that say how a network is trained. Found and read, with errors that say what to do.

from training.core.recipe import load, read, settings, shipped
recipe = load(QualityRecipe, shipped("quality"), epochs=2)        # a file, or one table of it, to a dataclass
shape = settings(Shape, read(shipped("denoiser"))["net"], "net")  # one of many tables
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from device.errors import BadInput

__all__ = ["FOLDER", "Table", "find", "known_keys", "load_settings", "merged", "read", "settings", "shipped"]

FOLDER = Path(__file__).resolve().parent.parent / "recipes"

Kind = TypeVar("Kind")


class Table(dict[str, Any]):
    """A table of a recipe that knows its file, so that an error can name it; all else as a dict."""

    source = "recipe"

    @classmethod
    def of(cls, values: Mapping[str, Any], source: object) -> Table:
        made = cls({key: cls.of(v, source) if isinstance(v, Mapping) else v for key, v in values.items()})
        made.source = str(source)
        return made

    def __or__(self, changes: Mapping[str, Any]) -> Table:  # type: ignore[override]
        made = Table({**self, **changes})
        made.source = getattr(changes, "source", self.source) if changes else self.source
        return made


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Table:
    """The tables of one recipe with another's keys on top, table by table; an error names the latter's file
    where it changes anything."""
    result = Table({**base})
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    result.source = getattr(changes if changes else base, "source", Table.source)
    return result


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


def read(path: Path) -> Table:
    """The recipe's tables. BadInput when it is missing, cannot be read or is no TOML."""
    try:
        return Table.of(tomllib.loads(path.read_text("utf-8")), path)
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, UnicodeDecodeError) as problem:
        why = getattr(problem, "strerror", None) or "not UTF-8"
        raise BadInput(f"{path}: the recipe cannot be read ({why}); give a TOML file") from None
    except tomllib.TOMLDecodeError as problem:
        raise BadInput(f"{path}: not TOML ({problem}); mend it there") from None


def load_settings(kind: type[Kind], path: Path, table: str | None = None, /, **changes: Any) -> Kind:
    """A frozen dataclass from a recipe file, or from one of its tables (left out: as if it were empty), with
    some keys changed. BadInput names file and key."""
    whole = read(path)
    chosen = whole.get(table, {}) if table else whole
    if not isinstance(chosen, Mapping):
        raise BadInput(f"{path}: {table} = {chosen!r}: a table is needed; write [{table}] above its keys")
    return settings(kind, {**chosen, **changes}, table, path)


def settings(
    kind: type[Kind], table: Mapping[str, Any], where: str | None = None, source: object = None
) -> Kind:
    """A dataclass made from a table of a recipe; lists become tuples, and whole numbers float as the default.

    where: what the table is called in the file; source: the file, where the table does not know. BadInput
    names an unknown key with the nearest known one, and a value of another type than the default's.
    """
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    at = known_keys(table, known, where, source)
    values: dict[str, Any] = {}
    for key, value in table.items():
        made = known[key]
        like = made.default_factory() if made.default_factory is not MISSING else made.default
        values[key] = value if like is MISSING or like is None else _as(value, like, f"{at}{key}")
    return kind(**values)


def known_keys(
    table: Mapping[str, Any], known: Iterable[str], where: str | None = None, source: object = None
) -> str:
    """BadInput names a key that is not `known` with the nearest that is, as `settings` does. Gives what such
    an error begins with: file and table."""
    at = f"{source or getattr(table, 'source', Table.source)}: {f'[{where}] ' if where else ''}"
    known = list(known)
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.0)
            raise BadInput(f'{at}{key}: no such key. Did you mean "{near[0]}"?')
    return at


def _as(value: Any, like: Any, at: str) -> Any:
    """The value in the type of the default."""
    if isinstance(like, tuple) and isinstance(value, list | tuple):
        return tuple(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(like, float) and whole:
        return float(value)
    wanted = Mapping if isinstance(like, Mapping) else type(like)
    if not isinstance(value, wanted) or isinstance(value, bool) != isinstance(like, bool):
        needed = {
            float: "a number",
            int: "a whole number",
            str: "a text",
            bool: "true or false",
            tuple: "a list",
        }
        raise BadInput(f"{at} = {value!r}: {needed.get(type(like), 'a table')} is needed, such as {like!r}")
    return value
