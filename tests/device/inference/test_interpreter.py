"""One face over the interpreters: arrays go through as they are; a wrong file is an error with a remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.errors import StethopiError
from device.inference import bundle
from device.inference import interpreter as runtime
from tests.device.draws import floats


@given(st.floats(1e-4, 10), st.integers(-128, 127), st.lists(floats(-1e4, 1e4), min_size=1, max_size=50))
def test_quantising_is_rounding_and_clipping(scale: float, zero: int, values: list[float]) -> None:
    x = np.array(values, np.float32)
    q = runtime.quantise(x, scale, zero)
    back = runtime.dequantise(q, scale, zero)
    low, high = (-128 - zero) * scale, (127 - zero) * scale
    inside = np.clip(x, low, high)
    assert q.dtype == np.int8
    assert np.abs(back - inside).max() <= 0.5 * scale * (1 + 1e-3) + 1e-5 * np.abs(inside).max()


def test_a_model_describes_and_runs_itself() -> None:
    model = runtime.Interpreter(bundle.load().model("classifier").tflite)
    tensor = model.inputs[0]
    assert tensor.dtype == np.int8 and tensor.scale > 0
    x = np.random.default_rng(0).integers(-128, 128, tensor.shape).astype(np.int8)
    results = []
    for _ in range(2):
        model.set(tensor.name, x)
        model.invoke()
        results.append(model.get(0))
    assert np.array_equal(results[0], results[1]) and results[0].shape == model.outputs[0].shape


def test_an_unknown_input_is_named() -> None:
    model = runtime.Interpreter(bundle.load().model("classifier").tflite)
    with pytest.raises(StethopiError, match="no input heartbeat"):
        model.set("heartbeat", np.zeros(1, np.int8))


def test_a_file_that_is_no_model_is_an_error_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"no model" * 100)
    with pytest.raises(StethopiError, match="model.tflite"):
        runtime.Interpreter(path)


def test_an_unknown_runtime_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STETHOPI_RUNTIME", "abacus")
    with pytest.raises(StethopiError, match="abacus: no such interpreter; use one of"):
        runtime.runtime_name()


def test_the_plain_kernels_compute_the_same_but_for_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    entry, results = bundle.load().model("classifier"), []
    for kernels in ("fast", "reference"):
        monkeypatch.setenv("STETHOPI_KERNELS", kernels)
        assert runtime.runtime_name().endswith("reference kernels") == (kernels == "reference")
        model = runtime.Interpreter(entry.tflite)
        x = np.random.default_rng(0).integers(-128, 128, model.inputs[0].shape).astype(np.int8)
        model.set(0, x)
        model.invoke()
        results.append(model.get(0).astype(int))
    assert np.abs(results[0] - results[1]).max() <= 4


def test_unknown_kernels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STETHOPI_KERNELS", "popped")
    with pytest.raises(StethopiError, match="popped: no such kernels; use one of fast, reference"):
        runtime.Interpreter(bundle.load().model("classifier").tflite)


def test_a_model_is_made_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    runtime.Interpreter(bundle.load().model("denoiser").tflite)
    assert capfd.readouterr().err == ""
