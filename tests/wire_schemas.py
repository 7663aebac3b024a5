"""Check published payloads against the JSON Schemas in deploy/schemas, as another implementation would."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from device.contract.topics import Topic, parse_topic, read

__all__ = ["FOLDER", "check_published", "validator"]

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "schemas"
_SCHEMA_OF = {
    "state": "state",
    "result": "exam",
    "receipt": "receipt",
    "live": "live",
    "health": "health",
    "command": "command",
    "answer": "answer",
}


@cache
def validator(name: str) -> Any:
    """The validator of `name`.schema.json; the schema itself is checked too."""
    schema = json.loads((FOLDER / f"{name}.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def check_published(topic: str, payload: bytes) -> Topic:
    """Fail unless `payload` may be published on `topic`: by its JSON Schema, and by device.contract."""
    parsed = parse_topic(topic)
    if parsed.kind != "sound":
        validator(_SCHEMA_OF[parsed.kind]).validate(json.loads(payload))
        assert parsed.payload_type is not None
        read(parsed.payload_type, payload)
    return parsed
