"""One thin face over the two TFLite interpreters: tflite-runtime (Python 3.11) and ai-edge-litert (newer).

Arrays go in and come out as the file has them; nothing is quantised behind the caller's back. State tensors
of a streaming model travel round as raw int8, so a hidden conversion would spoil them.

Set the environment variable STETHOPI_RUNTIME to `tflite-runtime` or `ai-edge-litert` to choose one, and
STETHOPI_KERNELS to `reference` for its plain kernels instead of those made for the processor (`fast`): with
tflite-runtime they give the same bits on x86 and Arm, at the cost of more instructions.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device.arrays import AnyArray, Floats, Samples
from device.errors import StethopiError
from device.inference.bundle import ModelEntry
from device.inference.stderr_filter import quiet_about

__all__ = ["Int8Network", "Interpreter", "Tensor", "dequantise", "quantise", "runtime_name"]

_RUNTIMES = {"tflite-runtime": "tflite_runtime.interpreter", "ai-edge-litert": "ai_edge_litert.interpreter"}
_KERNELS = ("fast", "reference")
_NOISE = ("INFO: ",)
"""Both tell each process on stderr how they compute."""


def _find() -> tuple[str, Callable[..., Any]]:
    import importlib

    asked = os.environ.get("STETHOPI_RUNTIME")
    if asked and asked not in _RUNTIMES:
        raise StethopiError(
            f"STETHOPI_RUNTIME={asked}: no such interpreter; use one of {', '.join(_RUNTIMES)}"
        )
    reasons = []
    for name in [asked] if asked else list(_RUNTIMES):
        try:
            return name, importlib.import_module(_RUNTIMES[name]).Interpreter
        except (ImportError, AttributeError) as error:
            reasons.append(f"{name}: {error}")
    raise StethopiError(f"no TFLite interpreter ({'; '.join(reasons)}); run: pip install 'stethopi[device]'")


def _kernels(make: Callable[..., Any]) -> dict[str, Any]:
    """What to tell an interpreter at its making, so that it takes the kernels that are asked for."""
    import importlib

    asked = os.environ.get("STETHOPI_KERNELS") or _KERNELS[0]
    if asked not in _KERNELS:
        raise StethopiError(f"STETHOPI_KERNELS={asked}: no such kernels; use one of {', '.join(_KERNELS)}")
    if asked == "fast":
        return {}
    module = importlib.import_module(make.__module__)
    return {"experimental_op_resolver_type": module.OpResolverType.BUILTIN_REF}


def runtime_name() -> str:
    """Name and version of the interpreter in use, such as `tflite-runtime 2.14.0`, and its kernels where
    they are not the usual ones.
    """
    from importlib import metadata

    name, make = _find()
    kernels = ", reference kernels" if _kernels(make) else ""
    try:
        return f"{name} {metadata.version(name)}{kernels}"
    except metadata.PackageNotFoundError:
        return name + kernels


@dataclass(frozen=True)
class Tensor:
    """One input or output of a model file."""

    name: str
    index: int
    """The interpreter's own number for this tensor."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    """0.0 for a tensor that is not quantised."""
    zero_point: int


def quantise(x: Floats, scale: float, zero_point: int, dtype: Any = np.int8) -> AnyArray:
    """Real values to integers: round half to even, clip to the type's range. Same shape as `x`.

    Source: the TFLite quantisation specification, real = (q - zero_point) * scale.
    """
    info = np.iinfo(dtype)
    q: AnyArray = np.clip(np.rint(x / scale) + zero_point, info.min, info.max).astype(dtype)
    return q


def dequantise(q: AnyArray, scale: float, zero_point: int) -> Samples:
    """Integers back to real values, float32."""
    return (q.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


class Interpreter:
    """One model file, ready to run. Not thread safe: one per thread.

    Raises StethopiError when there is no interpreter, or when the file is not a model that it can run.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        name, make = _find()
        kernels = _kernels(make)
        try:
            with quiet_about(_NOISE):
                self._interpreter = make(model_path=str(path), num_threads=threads, **kernels)
                self._interpreter.allocate_tensors()
        except SystemError as error:
            # tflite-runtime 2.14 imports under NumPy 2, but fails here
            raise StethopiError(
                f"{name} cannot start with NumPy {np.__version__}; run: pip install 'numpy<2'"
            ) from error
        except (ValueError, RuntimeError) as error:
            raise StethopiError(
                f"{path}: {name} cannot run this model ({str(error).splitlines()[0]}); install it anew, "
                f"or set STETHOPI_RUNTIME to the other interpreter"
            ) from error
        self.inputs = tuple(self._describe(d) for d in self._interpreter.get_input_details())
        self.outputs = tuple(self._describe(d) for d in self._interpreter.get_output_details())
        self.invoke: Callable[[], None] = self._interpreter.invoke
        """Run the model on what its inputs hold."""

    @staticmethod
    def _describe(details: dict[str, Any]) -> Tensor:
        scale, zero_point = details["quantization"]
        return Tensor(
            name=details["name"],
            index=int(details["index"]),
            shape=tuple(int(n) for n in details["shape"]),
            dtype=np.dtype(details["dtype"]),
            scale=float(scale),
            zero_point=int(zero_point),
        )

    def input_position(self, name: str) -> int:
        """Position in `inputs` of the tensor `name`; a `serving_default_…:0` dress is looked through."""
        for position, tensor in enumerate(self.inputs):
            bare = tensor.name.removeprefix("serving_default_").rsplit(":", 1)[0]
            if name in (tensor.name, bare):
                return position
        raise StethopiError(f"the model has no input {name}; it has {', '.join(t.name for t in self.inputs)}")

    def set(self, position: int | str, array: AnyArray) -> None:
        """Copy `array` into an input (by position or name); dtype and shape must be the tensor's."""
        if isinstance(position, str):
            position = self.input_position(position)
        self._interpreter.set_tensor(self.inputs[position].index, array)

    def setter(self, position: int) -> Callable[[AnyArray], None]:
        """`set` of one input, its number looked up once: for those who set it hundreds of times a second."""
        return functools.partial(self._interpreter.set_tensor, self.inputs[position].index)

    def get(self, position: int) -> AnyArray:
        """A copy of the output at `position`."""
        copy: AnyArray = self._interpreter.get_tensor(self.outputs[position].index)
        return copy

    def getter(self, position: int) -> Callable[[], AnyArray]:
        """`get` of one output, as `setter`."""
        return functools.partial(self._interpreter.get_tensor, self.outputs[position].index)


class Int8Network:
    """A bundle's model with one input and one output, in real values. Not thread safe: one per thread."""

    def __init__(self, entry: ModelEntry) -> None:
        self._interpreter = Interpreter(entry.tflite)
        self._input = int(entry.meta["inputs"][0]["position"])
        self._output = int(entry.meta["outputs"][0]["position"])
        self._in, self._out = self._interpreter.inputs[self._input], self._interpreter.outputs[self._output]

    def __call__(self, x: Floats) -> Samples:
        """What the network says of x, float32 (outputs,); x has as many values as its input."""
        self._interpreter.set(
            self._input, quantise(x, self._in.scale, self._in.zero_point).reshape(self._in.shape)
        )
        self._interpreter.invoke()
        return dequantise(self._interpreter.get(self._output), self._out.scale, self._out.zero_point).reshape(
            -1
        )
