"""The denoiser as int8 computes it, in PyTorch, so that it can be fine-tuned for that.

    fake = FakeInt8(net, sounds, window)      ranges from real sound, as training.export.export takes them
    shares, *_ = fake(wave, spectrum, *states)

Rounded is what the exported file keeps in int8: both inputs, every layer's answer (one scale each), every
weight (one scale an output channel), the shares. Sums and offsets are exact there as here. Gradients pass
the rounding as if it were not there, and stop where a range ends. After Jacob et al. 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from device.denoise.front_end import analyse
from models.denoiser import DenoiserNet

__all__ = ["EVERY", "FakeInt8"]

EVERY = 29
"""Ranges come from each so many-th hop, as the exporter's calibration does (training.denoise.train)."""


class FakeInt8:
    """Calls `net` with all rounded that int8 rounds; `measure()` takes the ranges of its present weights.

    sounds: (batch, n) at 2 kHz, what the ranges are taken from. `ranges`: by layer (lowest, highest); part of
    what a training has to keep to go on exactly.
    """

    def __init__(self, net: DenoiserNet, sounds: np.ndarray, window: np.ndarray) -> None:
        self.net = net
        wave, spectrum = analyse(sounds, window)
        self._heard = torch.from_numpy(wave)[:, :, None], torch.from_numpy(spectrum)[:, :, None]
        # a layer before a ReLU gives nothing below 0: the file holds both as one
        self._layers: dict[str, tuple[nn.Module, bool]] = {
            "front": (net.front.conv, True),
            "down": (net.down.conv, True),
            "spectrum": (net.spectrum, True),
            "mix": (net.mix, True),
            "head": (net.head, True),
            "shares": (net.shares, False),
        }
        for k, block in enumerate(net.blocks):
            self._layers[f"time_{k:02d}"] = (block.time, False)  # type: ignore[dict-item]
            self._layers[f"mix_{k:02d}"] = (block.mix, True)  # type: ignore[dict-item]
        self.ranges: dict[str, tuple[float, float]] = {}
        self.measure()

    def initial_states(self, batch: int = 1) -> tuple[torch.Tensor, ...]:
        """As the net's own."""
        return self.net.initial_states(batch)

    def measure(self) -> None:
        """Take the ranges anew."""
        found: dict[str, tuple[float, float]] = {}

        def note(name: str, x: torch.Tensor, positive: bool) -> torch.Tensor:
            a_hop = x.shape[-1] // (self._heard[1].shape[-1])
            hops = x.unflatten(-1, (-1, a_hop))[..., EVERY // 3 :: EVERY, :]
            found[name] = (0.0 if positive else min(0.0, float(hops.min())), max(1e-6, float(hops.max())))
            return x

        for name, heard in zip(("heard_wave", "heard_spectrum"), self._heard, strict=True):
            note(name, heard, False)
        with torch.no_grad():
            self._run(note, self.net, *self._heard, *self.net.initial_states(len(self._heard[0])))
        self.ranges = found

    def __call__(
        self, wave: torch.Tensor, spectrum: torch.Tensor, *states: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """As the net's own call, rounded."""

        def rounded(name: str, x: torch.Tensor, _positive: bool) -> torch.Tensor:
            return _rounded(x, *self.ranges[name])

        weights = {name: _rounded_weight(p) if p.ndim == 4 else p for name, p in self.net.named_parameters()}

        def call(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found: tuple[torch.Tensor, ...] = torch.func.functional_call(self.net, weights, inputs)
            return found

        shares, *new = self._run(
            rounded,
            call,
            _rounded(wave, *self.ranges["heard_wave"]),
            _rounded(spectrum, *self.ranges["heard_spectrum"]),
            *states,
        )
        return (_rounded(shares, 0.0, 255 / 256), *new)

    def _run(
        self,
        passed: Callable[[str, torch.Tensor, bool], torch.Tensor],
        call: Callable[..., tuple[torch.Tensor, ...]],
        *inputs: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        def hook(name: str, positive: bool) -> Callable[..., Any]:
            def through(_module: nn.Module, _args: Any, out: Any) -> Any:
                if isinstance(out, tuple):
                    return (passed(name, out[0], positive), *out[1:])
                return passed(name, out, positive)

            return through

        hooks = [
            m.register_forward_hook(hook(name, positive)) for name, (m, positive) in self._layers.items()
        ]
        try:
            return call(*inputs)
        finally:
            for h in hooks:
                h.remove()


def _rounded(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    scale = (high - low) / 255
    return torch.fake_quantize_per_tensor_affine(x, scale, round(-128 - low / scale), -128, 127)


def _rounded_weight(w: torch.Tensor) -> torch.Tensor:
    scale = w.detach().abs().amax((1, 2, 3)).clamp_min(1e-12) / 127
    zero = torch.zeros(len(w), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(w, scale, zero, 0, -127, 127)
