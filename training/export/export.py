"""A trained PyTorch module → ONNX → TFLite (float32 and full int8), refused when it no longer computes the
same.

    from training.export.export import Limits, export
    result = export(model, {"x": x, "state_00": s}, ["y", "new_00"], calibration, out_dir, "denoiser",
                    states=[("state_00", "new_00")])

The module's `forward` takes the example tensors in order and returns a tensor or a tuple of them. Arrays on
the PyTorch side are `(batch, channels, height, width)`; TFLite's are `(batch, height, width, channels)`, and
everything here that ends in `_nhwc` is of the second kind. Two gates, apart from each other:

- float: every output of the float32 file against PyTorch on random input and on the calibration set;
- int8: every output of the int8 file against PyTorch on the calibration set, as signal over error in dB.

A graph that holds a TRANSPOSE (the converter then has mixed up the layout somewhere) or a state whose input
and output have different scales is refused too.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from device.durable import whole_file
from device.errors import StethopiError

__all__ = [
    "ExportRefused",
    "Exported",
    "Limits",
    "calibration_stream",
    "count_macs",
    "export",
    "match_outputs",
    "streamed_error",
    "to_nhwc",
]


class ExportRefused(StethopiError):
    """The converted file does not compute what the module computes; nothing was written."""


@dataclass(frozen=True)
class Limits:
    """What the gates ask for."""

    float_error: float = 1e-4
    """Largest difference of any float output from PyTorch, relative to that output's largest value (at least
    1)."""
    int8_db: float = 15.0
    """Least signal over quantisation error of each int8 output, in dB, over the calibration set."""
    int8_db_of: Mapping[str, float] = field(default_factory=dict)
    """Limits of single outputs by name, in place of `int8_db`."""


@dataclass(frozen=True)
class Exported:
    """The two files and what the device must know to feed them.

    `inputs` and `outputs` describe the int8 file in the order of the module's own arguments and results:
    dicts with `name`, `position` (place in the interpreter's list), `shape` (NHWC), `scale`, `zero_point`.
    `states` pairs positions in these two lists. `report` holds the figures of both gates.
    """

    float_tflite: Path
    int8_tflite: Path
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    states: list[dict[str, int]]
    float_inputs: list[dict[str, Any]]
    float_outputs: list[dict[str, Any]]
    report: dict[str, Any]

    @property
    def kilobytes(self) -> float:
        return self.int8_tflite.stat().st_size / 1000.0

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.int8_tflite.read_bytes()).hexdigest()


def to_nhwc(x: np.ndarray) -> np.ndarray:
    """(n, C, H, W) → (n, H, W, C); other ranks pass as they are."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if x.ndim == 4 else np.ascontiguousarray(x)


def count_macs(model: nn.Module, examples: Sequence[torch.Tensor]) -> int:
    """Multiply-accumulates of one call: those of every convolution and linear layer that runs."""
    total = 0

    def conv(m: nn.Module, _args: Any, out: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(m, (nn.Conv1d, nn.Conv2d))
        total += out[0, 0].numel() * m.weight.numel()

    def linear(m: nn.Module, _args: Any, out: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(m, nn.Linear)
        total += (out.numel() // (out.shape[-1] * out.shape[0])) * m.weight.numel()

    hooks = []
    for m in model.modules():
        if isinstance(m, (nn.Conv1d, nn.Conv2d)):
            hooks.append(m.register_forward_hook(conv))
        elif isinstance(m, nn.Linear):
            hooks.append(m.register_forward_hook(linear))
    try:
        with torch.no_grad():
            model(*examples)
    finally:
        for h in hooks:
            h.remove()
    return int(total)


def _interpreter(path: Path) -> Any:
    """The same face the device uses (device.inference.interpreter), so that the gates test what will run."""
    from device.inference.interpreter import Interpreter

    return Interpreter(path)


def _op_counts(path: Path) -> dict[str, int]:
    """Operators in the file by name, read from the flatbuffer (the converter's environment has
    TensorFlow)."""
    from tensorflow.lite.python import schema_py_generated as schema  # type: ignore[import-not-found]

    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    counts: dict[str, int] = {}
    for op in model.subgraphs[0].operators:
        code = model.operatorCodes[op.opcodeIndex]
        name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def _plain_name(name: str) -> str:
    """`serving_default_x:0` → `x`."""
    return name.removeprefix("serving_default_").split(":")[0]


def _run(interpreter: Any, order: Sequence[int], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """One call; quantised tensors are fed and read through their own scale. Returns all outputs, float."""
    from device.inference.interpreter import dequantise, quantise

    for position, array in zip(order, arrays, strict=True):
        t = interpreter.inputs[position]
        value = array.reshape(t.shape)
        if np.dtype(t.dtype) == np.int8:
            value = quantise(value, t.scale, t.zero_point)
        interpreter.set(position, value.astype(t.dtype))
    interpreter.invoke()
    out = []
    for position, t in enumerate(interpreter.outputs):
        value = np.array(interpreter.get(position))
        out.append(dequantise(value, t.scale, t.zero_point) if np.dtype(t.dtype) == np.int8 else value)
    return out


def match_outputs(wanted: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> list[int]:
    """For each wanted array the position in `found` that holds it, by shape and least squared difference.

    Arrays have the examples stacked on their first axis. ExportRefused when one has no partner of its shape.
    """
    pairs = []
    for i, w in enumerate(wanted):
        power = float(np.mean(w.astype(np.float64) ** 2)) + 1e-20
        for j, f in enumerate(found):
            if w.shape == f.shape:
                pairs.append((float(np.mean((w.astype(np.float64) - f) ** 2)) / power, i, j))
    chosen: dict[int, int] = {}
    taken: set[int] = set()
    for _error, i, j in sorted(pairs):
        if i not in chosen and j not in taken:
            chosen[i] = j
            taken.add(j)
    missing = [i for i in range(len(wanted)) if i not in chosen]
    if missing:
        raise ExportRefused(
            f"export: output {missing[0]} has no tensor of shape {wanted[missing[0]].shape}; "
            "look at the operators of the converted file"
        )
    return [chosen[i] for i in range(len(wanted))]


def _forward(model: nn.Module, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    with torch.no_grad():
        out = model(*(torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32)) for a in arrays))
    return [o.numpy() for o in (out if isinstance(out, (tuple, list)) else (out,))]


@contextlib.contextmanager
def _quiet(verbose: bool) -> Any:
    """The converter and TensorFlow print hundreds of lines; they are kept for the error message."""
    if verbose:
        yield io.StringIO()
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kept = io.StringIO()
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(kept), contextlib.redirect_stderr(kept):
            yield kept
    finally:
        logging.disable(logging.NOTSET)


def _convert(
    model: nn.Module,
    examples: Mapping[str, torch.Tensor],
    output_names: Sequence[str],
    calibration: Mapping[str, np.ndarray],
    work: Path,
    verbose: bool,
) -> tuple[Path, Path]:
    """PyTorch → ONNX → TFLite in the folder `work`; float and int8 file."""
    onnx_path = work / "net.onnx"
    custom = []
    for name in examples:
        array_nhwc = to_nhwc(np.asarray(calibration[name], dtype=np.float32))
        np.save(work / f"{name}.npy", array_nhwc)
        custom.append([name, str(work / f"{name}.npy"), [0.0], [1.0]])
    threads = torch.get_num_threads()
    try:
        with _quiet(verbose):
            torch.onnx.export(
                model,
                tuple(examples.values()),
                str(onnx_path),
                input_names=list(examples),
                output_names=list(output_names),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            import onnx2tf

            onnx2tf.convert(
                input_onnx_file_path=str(onnx_path),
                output_folder_path=str(work / "tf"),
                non_verbose=True,
                copy_onnx_input_output_names_to_tflite=True,
                output_integer_quantized_tflite=True,
                quant_type="per-channel",
                input_quant_dtype="int8",
                output_quant_dtype="int8",
                custom_input_op_name_np_data_path=custom,
            )
    except SystemExit as problem:  # onnx2tf leaves by sys.exit
        raise ExportRefused(f"export: the converter gave up ({problem}); try verbose=True") from problem
    finally:
        torch.set_num_threads(threads)
    files = work / "tf" / "net_float32.tflite", work / "tf" / "net_full_integer_quant.tflite"
    for f in files:
        if not f.is_file():
            raise ExportRefused(f"export: the converter did not write {f.name}; try verbose=True")
    return files


def export(
    model: nn.Module,
    examples: Mapping[str, torch.Tensor],
    output_names: Sequence[str],
    calibration: Mapping[str, np.ndarray],
    out: Path,
    name: str,
    *,
    states: Sequence[tuple[str, str]] = (),
    limits: Limits | None = None,
    checked: int = 64,
    seed: int = 0,
    verbose: bool = False,
) -> Exported:
    """Export `model`, pass both gates, and only then write `out/<name>.float.tflite` and `out/<name>.tflite`
    (int8).

    examples: input name → example of batch 1, in the order of `forward`'s arguments; fixes the shapes.
    calibration: input name → array `(n, …)` in PyTorch's layout, what the net will really see (quiet and
    loud,
        clean and noisy; states included). n of a few hundred is enough.
    states: (input name, output name) pairs that go round; input and output must get the same scale.
    checked: calibration examples that are compared (evenly picked).
    ExportRefused says which gate failed and by how much; then nothing is written.
    """
    limits = limits or Limits()
    out.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    names = list(examples)
    count = len(calibration[names[0]])
    for n in names:
        wanted = tuple(examples[n].shape[1:])
        if tuple(calibration[n].shape[1:]) != wanted or len(calibration[n]) != count:
            raise ExportRefused(
                f"export: calibration of {n} has shape {calibration[n].shape}, "
                f"not ({count}, {', '.join(map(str, wanted))})"
            )

    rng = np.random.default_rng(seed)
    picks = np.unique(np.linspace(0, count - 1, min(checked, count)).astype(int))
    random_in = [[rng.standard_normal(examples[n].shape).astype(np.float32) for n in names] for _ in range(8)]
    real_in = [[calibration[n][i : i + 1].astype(np.float32) for n in names] for i in picks]

    def reference(batches: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
        rows = [_forward(model, arrays) for arrays in batches]
        return [np.concatenate([to_nhwc(r[k]) for r in rows]) for k in range(len(rows[0]))]

    def converted(
        interp: Any, order: Sequence[int], batches: Sequence[Sequence[np.ndarray]]
    ) -> list[np.ndarray]:
        rows = [_run(interp, order, [to_nhwc(a) for a in arrays]) for arrays in batches]
        return [np.concatenate([r[k] for r in rows]) for k in range(len(rows[0]))]

    with tempfile.TemporaryDirectory(prefix="stethopi-export-") as temp:
        float_file, int8_file = _convert(model, examples, output_names, calibration, Path(temp), verbose)
        ops = {"float": _op_counts(float_file), "int8": _op_counts(int8_file)}
        for kind, counts in ops.items():
            if counts.get("TRANSPOSE", 0):
                raise ExportRefused(
                    f"export {name}: {counts['TRANSPOSE']} TRANSPOSE in the {kind} file; the converter "
                    "has mixed up the layout (a residual Add? write it as a convolution)"
                )

        # gate 1: float
        interp = _interpreter(float_file)
        order = _input_order(interp, names)
        want_random, want_real = reference(random_in), reference(real_in)
        got_random, got_real = converted(interp, order, random_in), converted(interp, order, real_in)
        if len(want_real) != len(output_names):
            raise ExportRefused(
                f"export {name}: the module returns {len(want_real)} results, "
                f"{len(output_names)} output names were given"
            )
        float_pos, float_error = _float_gate(
            name, output_names, (want_random, want_real), (got_random, got_real), limits.float_error
        )
        float_inputs = _describe(interp.inputs, order, names)
        float_outputs = _describe(interp.outputs, float_pos, output_names)

        # gate 2: int8
        interp = _interpreter(int8_file)
        order = _input_order(interp, names)
        got_int8 = converted(interp, order, real_in)
        int8_pos, int8_db = _int8_gate(name, output_names, want_real, got_int8, limits)
        inputs = _describe(interp.inputs, order, names)
        outputs = _describe(interp.outputs, int8_pos, output_names)
        pairs = _state_pairs(name, states, (names, inputs), (list(output_names), outputs))

        kept = out / f"{name}.float.tflite", out / f"{name}.tflite"
        for made, path in zip((float_file, int8_file), kept, strict=True):
            with whole_file(path) as temporary:
                shutil.copyfile(made, temporary)

    report = {
        "float_error": float_error,
        "float_limit": limits.float_error,
        "int8_db": {k: round(v, 2) for k, v in int8_db.items()},
        "int8_limit_db": limits.int8_db,
        "checked": len(real_in),
        "calibration": count,
        "operators": ops,
        "parameters": int(sum(p.numel() for p in model.parameters())),
        "macs": count_macs(model, tuple(examples.values())),
        "kilobytes": {"float": kept[0].stat().st_size / 1000.0, "int8": kept[1].stat().st_size / 1000.0},
    }
    return Exported(kept[0], kept[1], inputs, outputs, pairs, float_inputs, float_outputs, report)


def _float_gate(
    name: str,
    output_names: Sequence[str],
    want: Sequence[Sequence[np.ndarray]],
    got: Sequence[Sequence[np.ndarray]],
    limit: float,
) -> tuple[list[int], dict[str, float]]:
    """Where the float file has each output, and how far it is from PyTorch, on random and real inputs."""
    found = match_outputs(
        [np.concatenate(p) for p in zip(*want, strict=True)],
        [np.concatenate(p) for p in zip(*got, strict=True)],
    )
    errors: dict[str, float] = {}
    for k, output in enumerate(output_names):
        worst = 0.0
        for one, other in zip(want, got, strict=True):
            away = float(np.max(np.abs(one[k] - other[found[k]])))
            worst = max(worst, away / max(1.0, float(np.max(np.abs(one[k])))))
        errors[output] = worst
        if not worst < limit:
            raise ExportRefused(
                f"export {name}: float output {output} is {worst:.2g} away from PyTorch (limit {limit:g})"
            )
    return found, errors


def _int8_gate(
    name: str,
    output_names: Sequence[str],
    wanted: Sequence[np.ndarray],
    given: Sequence[np.ndarray],
    limits: Limits,
) -> tuple[list[int], dict[str, float]]:
    """Where the int8 file has each output, and how many dB it lies above its error."""
    found = match_outputs(wanted, given)
    above: dict[str, float] = {}
    for k, output in enumerate(output_names):
        want, got = wanted[k].astype(np.float64), given[found[k]].astype(np.float64)
        error = float(np.sum((want - got) ** 2))
        above[output] = float(10 * np.log10((np.sum(want**2) + 1e-20) / (error + 1e-20)))
        limit = limits.int8_db_of.get(output, limits.int8_db)
        if not above[output] >= limit:
            raise ExportRefused(
                f"export {name}: int8 output {output} is only {above[output]:.1f} dB above "
                f"its error (limit {limit:g} dB)"
            )
    return found, above


def _state_pairs(
    name: str,
    states: Sequence[tuple[str, str]],
    given: tuple[Sequence[str], Sequence[dict[str, Any]]],
    told: tuple[Sequence[str], Sequence[dict[str, Any]]],
) -> list[dict[str, int]]:
    """Input and output of each state that goes round. ExportRefused when their scales differ. given, told:
    names and descriptions of inputs and of outputs."""
    (names, inputs), (output_names, outputs) = given, told
    pairs = []
    for source, result in states:
        i, o = names.index(source), output_names.index(result)
        a, b = inputs[i], outputs[o]
        if (a["scale"], a["zero_point"], a["shape"]) != (b["scale"], b["zero_point"], b["shape"]):
            raise ExportRefused(
                f"export {name}: state {source} goes in as {a['scale']}, {a['zero_point']}, "
                f"{a['shape']} and comes out as {b['scale']}, {b['zero_point']}, {b['shape']}"
            )
        pairs.append({"input": i, "output": o})
    return pairs


def _input_order(interp: Any, names: Sequence[str]) -> list[int]:
    """For each name the interpreter's input position."""
    found = {_plain_name(t.name): k for k, t in enumerate(interp.inputs)}
    try:
        return [found[n] for n in names]
    except KeyError as missing:
        raise ExportRefused(
            f"export: the converted file has no input {missing}; it has {sorted(found)}"
        ) from missing


def _describe(tensors: Sequence[Any], positions: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "name": n,
            "position": int(p),
            "shape": [int(s) for s in tensors[p].shape],
            "scale": float(tensors[p].scale),
            "zero_point": int(tensors[p].zero_point),
        }
        for n, p in zip(names, positions, strict=True)
    ]


# ── nets that stream ────────────────────────────────────────────────────────────────────────────────────────


def _hop_of(heard: Mapping[str, torch.Tensor], sizes: Mapping[str, int], t: int) -> tuple[torch.Tensor, ...]:
    return tuple(x[..., t * sizes[k] : (t + 1) * sizes[k]] for k, x in heard.items())


def _hop_sizes(net: Any, heard: Mapping[str, torch.Tensor]) -> dict[str, int]:
    examples = net.examples()
    return {k: int(examples[k].shape[-1]) for k in heard}


def calibration_stream(net: Any, heard: Mapping[str, torch.Tensor], every: int = 29) -> dict[str, np.ndarray]:
    """Inputs of a net, states included, from what it hears (name → (batch, C, 1, n)) streamed hop by hop in
    PyTorch; each 29th hop kept."""
    sizes = _hop_sizes(net, heard)
    first = next(iter(heard))
    hops, batch = heard[first].shape[-1] // sizes[first], heard[first].shape[0]
    states = net.initial_states(batch)
    names = list(net.examples())
    answers = len(net.output_names()) - len(states)
    kept: dict[str, list[np.ndarray]] = {n: [] for n in names}
    with torch.no_grad():
        for t in range(hops):
            here = (*_hop_of(heard, sizes, t), *states)
            if t % every == every // 3 or t == 0:
                for name, value in zip(names, here, strict=True):
                    kept[name].append(value.numpy().copy())
            states = tuple(net(*here)[answers:])
    return {k: np.concatenate(v) for k, v in kept.items()}


def streamed_error(made: Exported, net: Any, heard: Mapping[str, torch.Tensor]) -> float:
    """Largest difference of the float file's answers from PyTorch over one streamed sound (name → (1, C, 1,
    n)), states fed back."""
    sizes = _hop_sizes(net, heard)
    first = next(iter(heard))
    hops = heard[first].shape[-1] // sizes[first]
    states_now = net.initial_states(1)
    answers = len(net.output_names()) - len(states_now)
    interpreter = _interpreter(made.float_tflite)
    ins = [t["position"] for t in made.float_inputs]
    outs = [t["position"] for t in made.float_outputs]
    states = [np.zeros(made.float_inputs[s["input"]]["shape"], dtype=np.float32) for s in made.states]
    worst = 0.0
    with torch.no_grad():
        for t in range(hops):
            here = _hop_of(heard, sizes, t)
            found = net(*here, *states_now)
            states_now = tuple(found[answers:])
            for position, value in zip(ins[: len(here)], here, strict=True):
                interpreter.set(position, to_nhwc(value.numpy()))
            for pair, value in zip(made.states, states, strict=True):
                interpreter.set(ins[pair["input"]], value)
            interpreter.invoke()
            states = [interpreter.get(outs[pair["output"]]) for pair in made.states]
            for k in range(answers):
                want = to_nhwc(found[k].numpy())
                worst = max(worst, float(np.max(np.abs(interpreter.get(outs[k]) - want))))
    return worst
