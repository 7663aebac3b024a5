"""The JSON schemas of all messages, written to deploy/schemas."""

from __future__ import annotations

from typing import Any

from device.contract.chunks import Receipt
from device.contract.codec import schema
from device.contract.control import Answer, Command, Health, State
from device.contract.exam import Exam
from device.contract.live import LIVE

__all__ = ["schemas"]


def schemas() -> dict[str, dict[str, Any]]:
    """File name → JSON Schema (draft 2020-12) of every payload, as it stands in deploy/schemas."""
    return {
        "exam.schema.json": schema("stethopi exam result", Exam),
        "receipt.schema.json": schema("stethopi receipt", Receipt),
        "state.schema.json": schema("stethopi device state", State),
        "health.schema.json": schema("stethopi device health", Health),
        "live.schema.json": schema("stethopi live messages", *LIVE.values()),
        "command.schema.json": schema("stethopi command", Command),
        "answer.schema.json": schema("stethopi answer to a command", Answer),
    }


def main() -> int:
    import json
    import sys
    from pathlib import Path

    if len(sys.argv) != 2:
        print("usage: python -I -m device.contract.schemas FOLDER    write the JSON Schemas", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in schemas().items():
        (folder / name).write_text(json.dumps(made, indent=2) + "\n", "utf-8")
        print(folder / name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
