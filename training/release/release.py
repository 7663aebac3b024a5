"""Put the exported models together to the bundle that ships.

An export leaves a *part* in a folder: `<name>.json` (the model's object in bundle.json), `<name>.tflite`,
perhaps `<name>.npz` (coefficients) and `<name>.vectors.npz` (inputs with expected outputs, names without a
prefix). `release` checks the parts and writes models/released/<version>/ at once or not at all:

    stethopi release --denoiser runs/denoiser/denoiser --classifier runs/classifier/classifier --ecg runs/ecg

Checked: each file is the one that its export gated (sha256), no TRANSPOSE, each streaming state goes in and
comes out with one scale, the stored vectors come out of the interpreter again, the whole is below 3 MB.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from device.durable import sha256_of
from device.errors import BadInput, StethopiError
from device.inference.bundle import SCHEMA, Bundle, ModelEntry, load
from training.core.provenance import RELEASED, commit_id

__all__ = ["LARGEST_BYTES", "release"]

LARGEST_BYTES = 3_000_000


def _read_part(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.json"
    try:
        meta = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: not there; run `stethopi export` for the {name} first") from None
    file = folder / f"{name}.tflite"
    if not file.is_file() or sha256_of(file) != meta.get("sha256"):
        raise StethopiError(f"{file}: not the file that the export accepted; export the {name} again")
    return meta


def _check_model(folder: Path, name: str, meta: Mapping[str, Any]) -> None:
    from device.inference.interpreter import Interpreter

    interpreter = Interpreter(folder / f"{name}.tflite")
    for kind in ("inputs", "outputs"):
        for said in meta[kind]:
            tensor = getattr(interpreter, kind)[said["position"]]
            found = (list(tensor.shape), tensor.zero_point)
            if found != (list(said["shape"]), said["zero_point"]) or abs(tensor.scale - said["scale"]) > 1e-9:
                raise StethopiError(
                    f"{name}: {kind[:-1]} {said['name']} is not as its export says; export it again"
                )
    for pair in meta.get("states", ()):
        source, result = meta["inputs"][pair["input"]], meta["outputs"][pair["output"]]
        if (source["scale"], source["zero_point"]) != (result["scale"], result["zero_point"]):
            raise StethopiError(
                f"{name}: state {source['name']} goes in with scale {source['scale']} and comes out with"
                f" {result['scale']}; it would drift. Export it again"
            )
    for kind, counts in meta.get("export", {}).get("operators", {}).items():
        if counts.get("TRANSPOSE", 0):
            raise StethopiError(
                f"{name}: {counts['TRANSPOSE']} TRANSPOSE in the {kind} file; the layout is mixed up"
            )


def _check_classifier(entry: ModelEntry, vectors: Mapping[str, np.ndarray]) -> None:
    from device.screening.screen import Int8Network

    network = Int8Network(entry)
    found = np.stack([network(x) for x in vectors["classifier/x"]])
    worst = float(np.abs(found - vectors["classifier/logits"]).max())
    # runtimes differ in the last bits (TOOLCHAIN): a few steps of the output's scale
    limit = 4.0 * float(entry.meta["outputs"][0]["scale"])
    if not worst <= limit:
        raise StethopiError(
            f"classifier: its vectors come out {worst:.3g} off (limit {limit:.3g}); export it again"
        )


def _check_stream(bundle: Bundle, name: str) -> None:
    from device.denoise.stream import vector_difference_db

    found = vector_difference_db(bundle, name)
    if not found >= 30.0:
        raise StethopiError(f"{name}: its vectors come out only {found:.1f} dB right; export it again")


def release(
    parts: Mapping[str, Path],
    version: str,
    *,
    out: Path | None = None,
    results: Path | None = None,
    command: str | None = None,
) -> Path:
    """Write the bundle `version` from the parts (model name → its export folder) under `out`; return its
    folder.

    results: folder of the benchmarks' JSON files, from which CARD.md takes its figures. An older bundle of
    the same version is replaced at once. Raises StethopiError when a check fails; then nothing has changed.
    """
    from training.reports.card import card

    out = out or RELEASED
    out.mkdir(parents=True, exist_ok=True)
    target, work = out / version, out / f".{version}.{os.getpid()}.tmp"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        models: dict[str, Any] = {}
        vectors: dict[str, np.ndarray] = {}
        data: dict[str, str] = {}
        for name, folder in parts.items():
            meta = _read_part(folder, name)
            _check_model(folder, name, meta)
            shutil.copyfile(folder / f"{name}.tflite", work / f"{name}.tflite")
            meta["file"] = f"{name}.tflite"
            if (folder / f"{name}.npz").is_file():
                shutil.copyfile(folder / f"{name}.npz", work / f"{name}.npz")
                meta["arrays"] = f"{name}.npz"
                meta["arrays_sha256"] = sha256_of(work / f"{name}.npz")
            stored = folder / f"{name}.vectors.npz"
            if not stored.is_file():
                raise StethopiError(
                    f"{stored}: not there; a model without vectors cannot prove itself on a device"
                )
            with np.load(stored, allow_pickle=False) as arrays:
                vectors |= {f"{name}/{key}": arrays[key] for key in arrays.files}
            models[name] = meta
            data |= meta.get("data", {})
        np.savez_compressed(work / "vectors.npz", **vectors)
        index = {
            "schema": SCHEMA,
            "version": version,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seed": {name: meta.get("seed") for name, meta in models.items()},
            "commit": commit_id(),
            "command": command,
            "data": data,
            "models": models,
            "vectors": "vectors.npz",
            "vectors_sha256": sha256_of(work / "vectors.npz"),
        }
        (work / "bundle.json").write_text(json.dumps(index, indent=1) + "\n", "utf-8")
        (work / "CARD.md").write_text(card(index, results), "utf-8")
        bundle = load(work)
        if "classifier" in models:
            _check_classifier(bundle.model("classifier"), vectors)
        for name in ("denoiser", "ecg"):
            if name in models:
                _check_stream(bundle, name)
        size = sum(p.stat().st_size for p in work.iterdir())
        if size > LARGEST_BYTES:
            raise StethopiError(
                f"the bundle has {size / 1e6:.1f} MB; at most {LARGEST_BYTES / 1e6:.0f} may ship"
            )
        old = out / f".{version}.{os.getpid()}.old"
        if target.exists():
            os.rename(target, old)
        os.rename(work, target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target
