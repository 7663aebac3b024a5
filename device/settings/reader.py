"""From TOML to a section; a wrong key or value is told with its remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from device.errors import BadInput
from device.settings.sections import Key, said
from device.settings.specs import check_ecg_spec, check_spec


def no_such_section(name: str, section: str, content: Any, known: list[str]) -> str:
    """The line that says so, with the nearest known section."""
    if not isinstance(content, Mapping):
        return f"{name}: {section}: stands in no section. Put it under {_brackets(known)}."
    near = get_close_matches(section, known, 1)
    return f"{name}: [{section}]: no such section. " + (
        f"Did you mean [{near[0]}]?" if near else f"Use {_brackets(known)}."
    )


def _brackets(sections: list[str]) -> str:
    return ", ".join(f"[{section}]" for section in sections[:-1]) + f" or [{sections[-1]}]"


_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    Path: "a text in quotes",
}


def read_value(stage: Any, item: Any, value: Any, where: str, folder: Path) -> Any:
    """The value as its field holds it. BadInput with what is allowed when it cannot."""
    key: Key = item.metadata["key"]
    kind = _plain(get_type_hints(type(stage))[item.name])
    given = f"{where} = {said(value)}"
    if kind is tuple:
        if not isinstance(value, list | tuple) or not value:
            raise BadInput(
                f"{given}: must be a list with at least one of {', '.join(map(said, key.choices))}."
            )
        for entry in value:
            if entry not in key.choices:
                near = get_close_matches(str(entry), key.choices, 1, 0.5) or get_close_matches(
                    str(entry).upper(), key.choices, 1
                )
                remedy = (
                    f"Did you mean {said(near[0])}?" if near else f"Use {', '.join(map(said, key.choices))}."
                )
                raise BadInput(f"{given}: {said(entry)} is no site. {remedy}")
        if len(set(value)) != len(value):
            raise BadInput(f"{given}: names a site twice. Name each once.")
        return tuple(value)
    if kind is Path and (value == "" or value is None):
        return None if item.default is None else _refused(given, "must name a folder.")
    allowed_kinds: Any = {Path: (str, Path), float: (int, float)}.get(kind, (kind,))
    no_switch = isinstance(value, bool) and kind is not bool  # True is an int to Python, but not to a person
    if not isinstance(value, allowed_kinds) or no_switch or value != value:
        raise BadInput(f"{given}: must be {_WORDS[kind]}" + (f", {key.allowed}." if key.allowed else "."))
    if key.choices and value not in key.choices and value != key.also:
        near = get_close_matches(value, key.choices, 1) if kind is str else []
        remedy = key.remedy or (f"Did you mean {said(near[0])}?" if near else "")
        raise BadInput(f"{given}: not {key.allowed}. {remedy}".rstrip())
    if (key.low is not None and value < key.low) or (key.high is not None and value > key.high):
        raise BadInput(f"{given}: must be {key.allowed}.")
    if key.pattern and not re.fullmatch(key.pattern, value):
        raise BadInput(f"{given}: must be {key.shape}.")
    if key.path:
        return folder / Path(value).expanduser()
    if key.spec:
        return _spec(key, value, given, folder)
    return kind(value)


def _refused(given: str, why: str) -> Any:
    raise BadInput(f"{given}: {why}")


def _spec(key: Key, value: str, given: str, folder: Path) -> str:
    kind, _, rest = value.partition(":")
    if kind not in key.spec:
        near = get_close_matches(kind, key.spec, 1)
        remedy = f"Did you mean {said(near[0])}?" if near else f"Use {key.says}."
        raise BadInput(f"{given}: no such kind. {remedy}")
    if kind == "file":
        if not rest:
            raise BadInput(f"{given}: names no file. Use file:PATH.")
        return f"file:{folder / Path(rest).expanduser()}"
    if "mcp3008" in key.spec:
        try:
            check_ecg_spec(value)
        except BadInput as error:
            raise BadInput(f"{given}: {error}") from None
    elif kind == "synthetic":
        try:
            check_spec(value)
        except BadInput as error:
            raise BadInput(f"{given}: {error}") from None
    return value


def _plain(hint: Any) -> type:
    """The type to check for: `Path | None` → Path, `tuple[str, ...]` → tuple."""
    for one in (bool, int, float, str, Path):
        if (
            hint is one
            or one in getattr(hint, "__args__", ())
            and getattr(hint, "__origin__", None) is not tuple
        ):
            return one
    return tuple
