"""The released bundle: find it, verify it, hand out its models.

A bundle is a folder written by `stethopi release`: `bundle.json`, for each model a `.tflite` file and perhaps
a `.npz` with filter coefficients, and `vectors.npz`, inputs with their expected outputs. Nothing is loaded
from a bundle whose schema or sha256 does not fit.

    python -I -m device.checks.figures.bundle [FOLDER]     verify and describe
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import device
from device.arrays import AnyArray
from device.durable import sha256_of
from device.errors import BadInput, StethopiError

__all__ = ["MODELS", "RELEASED", "SCHEMA", "Bundle", "ModelEntry", "find", "load"]

SCHEMA = 1
"""Version of the layout of bundle.json that this code reads."""

MODELS = Path(str(device.__file__)).parent.parent / "models"
"""The network files that ship. They lie beside this package, in a checkout as in a wheel; asked for by the
name `models`, Python would give the first package of that name, which may be somebody else's."""

RELEASED = MODELS / "released"
"""The bundles that ship, a folder for each version."""


@dataclass(frozen=True)
class ModelEntry:
    """One model of a bundle."""

    name: str
    tflite: Path
    meta: dict[str, Any]
    """The model's object in bundle.json: rates, hop, quantisation, thresholds …"""
    arrays: dict[str, AnyArray] = field(default_factory=dict, repr=False)
    """Coefficients that go with it; empty when it has none."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. Every hash was checked when it was loaded."""

    folder: Path
    version: str
    meta: dict[str, Any] = field(repr=False)

    @property
    def models(self) -> tuple[str, ...]:
        """The names of its models."""
        return tuple(self.meta["models"])

    def model(self, name: str) -> ModelEntry:
        """The model `name` (denoiser, classifier …). StethopiError when the bundle has none of that name."""
        try:
            meta = self.meta["models"][name]
        except KeyError:
            raise StethopiError(
                f"{self.folder}: the bundle has no {name}; it has {', '.join(self.models)}"
            ) from None
        arrays = _read_npz(self.folder / meta["arrays"]) if meta.get("arrays") else {}
        return ModelEntry(name, self.folder / meta["file"], meta, arrays)

    def vectors(self) -> dict[str, AnyArray]:
        """Inputs and expected outputs, keys `<model>/<what>`."""
        return _read_npz(self.folder / self.meta["vectors"])


def _read_npz(path: Path) -> dict[str, AnyArray]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _version_key(name: str) -> tuple[tuple[int, ...], str]:
    return tuple(int(n) for n in re.findall(r"\d+", name)), name


def find(state_dir: Path | None = None) -> Path:
    """Folder of the bundle to use: the newest of those shipped and those under `state_dir`/bundles."""
    places = [RELEASED] + ([state_dir / "bundles"] if state_dir else [])
    found = [p.parent for place in places if place.is_dir() for p in place.glob("*/bundle.json")]
    if not found:
        raise StethopiError(f"no model bundle under {' or '.join(map(str, places))}; run: stethopi release")
    return max(found, key=lambda folder: _version_key(folder.name))


def load(path: Path | None = None, state_dir: Path | None = None) -> Bundle:
    """Load and verify the bundle at `path` (default: the newest there is, see `find`).

    Raises StethopiError naming the file whose schema or sha256 does not fit; BadInput where no bundle is.
    """
    folder = Path(path) if path else find(state_dir)
    index = folder / "bundle.json"
    try:
        meta = json.loads(index.read_text("utf-8"))
        schema, version, models = meta["schema"], meta["version"], meta["models"]
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        why = "not there" if missing else f"cannot be read ({error.strerror})"
        wrong = BadInput if path else StethopiError
        raise wrong(f"{index}: {why}; give a folder written by `stethopi release`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise StethopiError(f"{index}: not a bundle's index ({error}); install the bundle again") from None
    if schema != SCHEMA:
        raise StethopiError(f"{index}: schema {schema}, but this program reads {SCHEMA}; update stethopi")
    promised = [(meta.get("vectors"), meta.get("vectors_sha256"))]
    for model in models.values():
        promised.append((model.get("file"), model.get("sha256")))
        if model.get("arrays"):
            promised.append((model["arrays"], model.get("arrays_sha256")))
    for name, digest in promised:
        if not isinstance(name, str) or Path(name).name != name:
            raise StethopiError(f"{index}: {name!r} is not a plain file name; install the bundle again")
        file = folder / name
        if not file.is_file():
            raise StethopiError(f"{file}: not there, though the bundle lists it; install the bundle again")
        if sha256_of(file) != digest:
            raise StethopiError(f"{file}: its sha256 is not the one in bundle.json; install the bundle again")
    return Bundle(folder, str(version), meta)
