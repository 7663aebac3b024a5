"""Files of figures and what is kept on the way to them: written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from device.durable import whole_file, write_durably

__all__ = ["write_arrays", "write_json", "write_text"]


def write_text(path: Path, text: str) -> None:
    """The file before stays until the new one is whole."""
    write_durably(path, text.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """JSON with a line a value."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A compressed .npz."""
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
