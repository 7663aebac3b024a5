"""Checkpoints: tensors and plain values, whole or not at all, and never code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from device.durable import whole_file
from device.errors import StethopiError
from training.core.say import Say

__all__ = ["load", "of_recipe", "save"]


def save(path: Path, content: Mapping[str, Any]) -> None:
    """torch.save that appears whole, of tensors and plain values alone, so that `load` takes it up."""
    plain = _plain(content)
    with whole_file(path) as temporary:
        torch.save(plain, temporary)


def load(path: Path) -> dict[str, Any]:
    """A checkpoint of `save`. FileNotFoundError when there is none, StethopiError when it holds more than
    tensors and plain values: such a file could run any code while it is read, and is not."""
    try:
        kept = torch.load(path, weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever torch's reader says of a file that is none
        why = (
            f"cannot be read ({error.strerror})"
            if isinstance(error, OSError)
            else "not tensors and plain values"
        )
        raise StethopiError(
            f"{path}: {why}; a checkpoint of stethopi 0.3.0 or older, or none: delete it and train again"
        ) from None
    if not isinstance(kept, dict):
        raise StethopiError(f"{path}: not a checkpoint; delete it and train again")
    return kept


def of_recipe(path: Path, because: Any, say: Say) -> dict[str, Any] | None:
    """The checkpoint at `path` if there is one of a training that had the same causes (plain values)."""
    if not path.is_file():
        return None
    kept = load(path)
    if "because" in kept and kept["because"] == because:
        return kept
    say(f"{path.name}: of another recipe; beginning anew")
    return None


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's, paths as text; TypeError for what `load` would refuse."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor | str | bool | int | float | None):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        made = {_plain(k): _plain(v) for k, v in value.items()}
        # a state dict stays what it is: its order and its marks are torch's
        return value if hasattr(value, "_metadata") else made
    if isinstance(value, list | tuple):
        items = [_plain(v) for v in value]
        return tuple(items) if isinstance(value, tuple) else items
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")
