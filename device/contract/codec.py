"""Frozen dataclasses ↔ JSON, with limits: nothing that comes from a network is believed unchecked.

A payload is a frozen dataclass whose fields carry their limits and perhaps a description. From that one
definition come the check of what arrives (`decode`), the bytes that leave (`encode`) and the JSON Schema
(`schema`) that stands in deploy/schemas.

    @dataclass(frozen=True)
    class Beat:
        site: Annotated[str, OneOf("AV", "MV")]
        at_s: Annotated[float, Real(0, 60), "seconds from the start of the site"]
        note: Annotated[str, Text(80)] | None = None

A field that a newer sender added is ignored, and one whose default is None may be missing (unknown). Any
other missing field, a wrong type, a value out of its range, NaN, a too long list or text is a BadMessage
that names the place. A dataclass may add checks between its fields in a method `problem()`, which returns
what is wrong or None.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypeVar

__all__ = [
    "BadMessage",
    "Many",
    "OneOf",
    "Real",
    "Text",
    "Whole",
    "decode",
    "encode",
    "from_json",
    "schema",
    "to_json",
]

T = TypeVar("T")


class BadMessage(ValueError):
    """A message that cannot be believed; the text says where and why. Never a reason to stop: drop it and
    count.
    """


@dataclass(frozen=True)
class Text:
    """A text of at most `longest` characters; `pattern` must fit the whole of it."""

    longest: int
    pattern: str | None = None
    shortest: int = 0


class OneOf:
    """One of a closed set of texts."""

    def __init__(self, *values: str) -> None:
        self.values = values


@dataclass(frozen=True)
class Whole:
    """A whole number, both ends included."""

    low: int
    high: int


@dataclass(frozen=True)
class Real:
    """A finite number, both ends included; a whole number in the JSON is taken as well."""

    low: float
    high: float


@dataclass(frozen=True)
class Many:
    """A list (tuple[X, ...]) or an object (dict[str, X], keys fitting `keys`) with at most `most` entries."""

    most: int
    fewest: int = 0
    keys: str | None = None


# one field: (value, where) → checked value
_Check = Callable[[Any, str], Any]


def _name(value: Any) -> str:
    kinds = {bool: "true or false", str: "a text", dict: "an object", list: "a list", type(None): "null"}
    return kinds.get(type(value), f"{value!r:.40}")


def _text(limit: Text | OneOf) -> _Check:
    if isinstance(limit, OneOf):
        values = limit.values

        def check_one(value: Any, where: str) -> str:
            if not isinstance(value, str) or value not in values:
                raise BadMessage(f"{where}: {value!r:.40} is none of {', '.join(values)}")
            return value

        return check_one
    pattern = re.compile(limit.pattern) if limit.pattern else None

    def check(value: Any, where: str) -> str:
        if not isinstance(value, str):
            raise BadMessage(f"{where}: must be a text, is {_name(value)}")
        if not limit.shortest <= len(value) <= limit.longest:
            raise BadMessage(f"{where}: {len(value)} characters; {limit.shortest} to {limit.longest} allowed")
        if pattern and not pattern.fullmatch(value):
            raise BadMessage(f"{where}: {value!r:.60} does not fit {limit.pattern}")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadMessage(f"{where}: holds half a character (a lone surrogate)") from None
        return value

    return check


def _whole(limit: Whole) -> _Check:
    def check(value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadMessage(f"{where}: must be a whole number, is {_name(value)}")
        if not limit.low <= value <= limit.high:
            raise BadMessage(f"{where}: {value!r:.40} lies outside {limit.low} to {limit.high}")
        return value

    return check


def _real(limit: Real) -> _Check:
    def check(value: Any, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadMessage(f"{where}: must be a number, is {_name(value)}")
        if not limit.low <= value <= limit.high or not math.isfinite(value):
            raise BadMessage(f"{where}: {value!r:.40} lies outside {limit.low} to {limit.high}")
        return float(value)

    return check


def _truth(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise BadMessage(f"{where}: must be true or false, is {_name(value)}")
    return value


def _list(limit: Many, item: _Check) -> _Check:
    def check(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise BadMessage(f"{where}: must be a list, is {_name(value)}")
        if not limit.fewest <= len(value) <= limit.most:
            raise BadMessage(f"{where}: {len(value)} entries; {limit.fewest} to {limit.most} allowed")
        return tuple(item(entry, f"{where}[{n}]") for n, entry in enumerate(value))

    return check


def _fixed(items: tuple[_Check, ...]) -> _Check:
    def check(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(items):
            raise BadMessage(f"{where}: must be a list of {len(items)}")
        pairs = enumerate(zip(items, value, strict=True))
        return tuple(item(entry, f"{where}[{n}]") for n, (item, entry) in pairs)

    return check


def _map(limit: Many, item: _Check) -> _Check:
    pattern = re.compile(limit.keys or ".*")

    def check(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise BadMessage(f"{where}: must be an object, is {_name(value)}")
        if not limit.fewest <= len(value) <= limit.most:
            raise BadMessage(f"{where}: {len(value)} entries; {limit.fewest} to {limit.most} allowed")
        for key in value:
            if not pattern.fullmatch(key):
                raise BadMessage(f"{where}: key {key!r:.60} does not fit {limit.keys}")
        return {key: item(entry, f"{where}.{key}") for key, entry in value.items()}

    return check


def _optional(inner: _Check) -> _Check:
    return lambda value, where: None if value is None else inner(value, where)


def _split(hint: Any) -> tuple[Any, Any, bool, str]:
    """(bare type, limit, may be null, description) of a field's type."""
    optional = False
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        inner = [a for a in typing.get_args(hint) if a is not type(None)]
        if len(inner) != 1:
            raise TypeError(f"{hint}: only X or X | None")
        optional, hint = True, inner[0]
    limit, doc = None, ""
    if typing.get_origin(hint) is Annotated:
        hint, *notes = typing.get_args(hint)
        doc = next((note for note in notes if isinstance(note, str)), "")
        limit = next((note for note in notes if not isinstance(note, str)), None)
    return hint, limit, optional, doc


def _check_of(hint: Any) -> _Check:
    bare, limit, optional, _ = _split(hint)
    check: _Check
    if isinstance(bare, type) and dataclasses.is_dataclass(bare):

        def check(value: Any, where: str) -> Any:
            return from_json(bare, value, where)

    elif bare is bool:
        check = _truth
    elif bare is str and isinstance(limit, Text | OneOf):
        check = _text(limit)
    elif bare is int and isinstance(limit, Whole):
        check = _whole(limit)
    elif bare is float and isinstance(limit, Real):
        check = _real(limit)
    elif typing.get_origin(bare) is tuple:
        args = typing.get_args(bare)
        if len(args) == 2 and args[1] is Ellipsis:
            if not isinstance(limit, Many):
                raise TypeError(f"{hint}: a list needs Many(…)")
            check = _list(limit, _check_of(args[0]))
        else:
            check = _fixed(tuple(_check_of(a) for a in args))
    elif typing.get_origin(bare) is dict and isinstance(limit, Many):
        check = _map(limit, _check_of(typing.get_args(bare)[1]))
    else:
        raise TypeError(f"{hint}: no limit given")
    return _optional(check) if optional else check


@cache
def _fields(cls: Any) -> tuple[tuple[str, _Check, bool], ...]:
    """(name, check, required) of every field."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return tuple((f.name, _check_of(hints[f.name]), f.default is not None) for f in dataclasses.fields(cls))


def from_json(cls: type[T], value: Any, where: str = "") -> T:
    """A `cls` from what json.loads gave. BadMessage names the first place that is wrong."""
    if not isinstance(value, dict):
        raise BadMessage(f"{where or 'message'}: must be an object, is {_name(value)}")
    found = {}
    for name, check, required in _fields(typing.cast(Any, cls)):
        place = f"{where}.{name}" if where else name
        if name in value:
            found[name] = check(value[name], place)
        elif required:
            raise BadMessage(f"{place}: is missing")
    made = cls(**found)
    problem = getattr(made, "problem", None)
    if problem is not None and (wrong := problem()):
        raise BadMessage(f"{where}: {wrong}" if where else wrong)
    return made


def to_json(message: Any) -> Any:
    """Plain dicts, lists, numbers and texts of a payload, in the order of its fields."""
    if dataclasses.is_dataclass(message):
        return {f.name: to_json(getattr(message, f.name)) for f in dataclasses.fields(message)}
    if isinstance(message, list | tuple):
        return [to_json(entry) for entry in message]
    if isinstance(message, dict):
        return {key: to_json(entry) for key, entry in message.items()}
    return message


def encode(message: Any) -> bytes:
    """The payload's bytes: compact UTF-8 JSON. BadMessage when it breaks its own limits, so nothing wrong
    leaves.
    """
    value = to_json(message)
    from_json(type(message), value)
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _refuse_constant(text: str) -> Any:
    raise BadMessage(f"message: {text} is not a number that JSON knows")


def decode(cls: type[T], payload: bytes, most: int) -> T:
    """A checked `cls` from bytes of the network, at most `most` of them; BadMessage for anything else."""
    if len(payload) > most:
        raise BadMessage(f"message: {len(payload)} bytes; at most {most} allowed")
    try:
        value = json.loads(payload.decode("utf-8"), parse_constant=_refuse_constant)
    except BadMessage:
        raise
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"message: not JSON ({str(error)[:80]})") from None
    return from_json(cls, value)


# ---- JSON Schema (draft 2020-12) of the same definitions


def _schema_of(hint: Any, defs: dict[str, Any]) -> dict[str, Any]:
    bare, limit, optional, doc = _split(hint)
    made: dict[str, Any]
    if isinstance(bare, type) and dataclasses.is_dataclass(bare):
        _define(bare, defs)
        made = {"$ref": f"#/$defs/{bare.__name__}"}
    elif bare is bool:
        made = {"type": "boolean"}
    elif isinstance(limit, OneOf):
        made = {"enum": list(limit.values)}
    elif isinstance(limit, Text):
        made = {"type": "string", "maxLength": limit.longest}
        if limit.shortest:
            made["minLength"] = limit.shortest
        if limit.pattern:
            made["pattern"] = f"^({limit.pattern})$"
    elif isinstance(limit, Whole):
        made = {"type": "integer", "minimum": limit.low, "maximum": limit.high}
    elif isinstance(limit, Real):
        made = {"type": "number", "minimum": limit.low, "maximum": limit.high}
    elif typing.get_origin(bare) is dict:
        made = {"type": "object", "maxProperties": limit.most}
        if limit.keys:
            made["propertyNames"] = {"pattern": f"^({limit.keys})$"}
        made["additionalProperties"] = _schema_of(typing.get_args(bare)[1], defs)
    else:
        args = typing.get_args(bare)
        if len(args) == 2 and args[1] is Ellipsis:
            made = {"type": "array", "maxItems": limit.most, "items": _schema_of(args[0], defs)}
            if limit.fewest:
                made["minItems"] = limit.fewest
        else:
            made = {
                "type": "array",
                "prefixItems": [_schema_of(a, defs) for a in args],
                "minItems": len(args),
                "maxItems": len(args),
            }
    if optional:
        made = {"anyOf": [made, {"type": "null"}]}
    return {"description": doc} | made if doc else made


def _define(cls: type, defs: dict[str, Any]) -> None:
    if cls.__name__ in defs:
        return
    defs[cls.__name__] = {}
    hints = typing.get_type_hints(cls, include_extras=True)
    properties, required = {}, []
    for f in dataclasses.fields(cls):
        properties[f.name] = _schema_of(hints[f.name], defs)
        if f.default is not None:
            required.append(f.name)
    doc = " ".join((cls.__doc__ or "").split())
    defs[cls.__name__] = {
        "description": doc,
        "type": "object",
        "properties": properties,
        "required": required,
        # what leaves has exactly these fields; a receiver ignores what it does not know
        "additionalProperties": False,
    }


def schema(title: str, *classes: type) -> dict[str, Any]:
    """JSON Schema of one payload, or of a choice between several."""
    defs: dict[str, Any] = {}
    for cls in classes:
        _define(cls, defs)
    made: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    if len(classes) == 1:
        made["$ref"] = f"#/$defs/{classes[0].__name__}"
    else:
        made["oneOf"] = [{"$ref": f"#/$defs/{cls.__name__}"} for cls in classes]
    made["$defs"] = defs
    return made
