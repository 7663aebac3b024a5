"""A model's part of a bundle, written whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from device.durable import sha256_of
from training.core.results import write_arrays, write_json

__all__ = ["write_part"]


def write_part(
    out: Path,
    name: str,
    meta: Mapping[str, Any],
    *,
    arrays: Mapping[str, np.ndarray] | None = None,
    vectors: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write a model's part beside `out`/`name`.tflite, which the export has written. The index comes last."""
    out.mkdir(parents=True, exist_ok=True)
    content = dict(meta)
    content["sha256"] = sha256_of(out / f"{name}.tflite")
    for kind, values in (("", arrays), (".vectors", vectors)):
        path = out / f"{name}{kind}.npz"
        if values:
            write_arrays(path, values)
        else:
            path.unlink(missing_ok=True)
    write_json(out / f"{name}.json", content)
