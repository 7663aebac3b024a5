"""A trained denoiser on whole recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from device.denoise.front_end import analyse
from device.denoise.mask import widen
from device.denoise.stream import LOOK_AHEAD
from device.errors import BadInput
from device.rates import HOP
from models.denoiser import SYNTHESIS, TIMES, DenoiserNet, Shape, tables
from training.core import checkpoint
from training.core.recipe import settings
from training.export.fake_int8 import FakeInt8

__all__ = ["MaskLayer", "inputs_of", "denoise_whole", "load_net"]


LOOK_AHEAD_HOPS = LOOK_AHEAD // HOP


HELD_BACK = 5
"""Each fifth noise segment of a kind is not trained on: it decides (fold 1), the test part reports."""


def tables_of(recipe: dict[str, Any]) -> dict[str, np.ndarray]:
    return tables(int(recipe["net"].get("frame", 96)))


def shape_of(recipe: dict[str, Any]) -> Shape:
    net = {k: v for k, v in recipe["net"].items() if k != "frame"}
    net["shares"] = tables_of(recipe)["spread"].shape[1] + TIMES
    return settings(Shape, net, "net", getattr(recipe["net"], "source", None))


class MaskLayer(nn.Module):
    """Applies shares to whole sounds as device.denoise.stream does hop by hop: (B, n), (B, shares, 1, n / 16)
    → (B, n).

    The last two hops of the result are the input's (their look-ahead has not come).
    """

    def __init__(self, coefficients: dict[str, np.ndarray]) -> None:
        super().__init__()
        for name in ("analysis", "synthesis", "spread", "interpolation"):
            self.register_buffer(name, torch.from_numpy(coefficients[name]), persistent=False)
        self.bands = coefficients["spread"].shape[1]

    def forward(self, x: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        batch, n = x.shape
        hops = n // HOP
        frame = self.analysis.shape[1]
        wide = shares[:, :, 0].transpose(1, 2)  # (B, T, shares)
        wide = wide + (widen(wide) - wide).detach()  # a share pressed against its end still learns
        frames = nn.functional.pad(x, (frame - HOP, 0)).unfold(1, frame, HOP)
        found = (frames @ self.analysis.T) * (wide[..., : self.bands] @ self.spread.T)
        taken = (found @ self.synthesis.T).view(batch, hops, SYNTHESIS // HOP, HOP)
        removed = taken[:, 2:, 0] + taken[:, 1:-1, 1] + taken[:, :-2, 2]
        points = wide[..., self.bands :]
        before = nn.functional.pad(points[:, :-1, -1:], (0, 0, 1, 0))
        in_time = torch.cat([before, points], -1) @ self.interpolation.T
        grid = x.view(batch, hops, HOP)
        done = (grid[:, :-LOOK_AHEAD_HOPS] - removed) * (1 - in_time[:, LOOK_AHEAD_HOPS:])
        return torch.cat([done, grid[:, -LOOK_AHEAD_HOPS:]], 1).reshape(batch, n)


def inputs_of(x: np.ndarray, window: np.ndarray) -> dict[str, torch.Tensor]:
    """What the net hears of sounds (batch, n), by name."""
    wave, spectrum = analyse(x, window)
    return {
        "wave": torch.from_numpy(wave)[:, :, None],
        "spectrum": torch.from_numpy(spectrum)[:, :, None],
    }


def shares_of(net: DenoiserNet | FakeInt8, x: np.ndarray, window: np.ndarray) -> torch.Tensor:
    return net(*inputs_of(x, window).values(), *net.initial_states(x.shape[0]))[0]


def denoise_whole(
    net: DenoiserNet | FakeInt8, removal: nn.Module, coefficients: dict[str, np.ndarray], x: np.ndarray
) -> np.ndarray:
    """The float net on one whole sound (n,), same length out."""
    n = len(x)
    padded = np.zeros((1, (-(-n // HOP) + LOOK_AHEAD_HOPS) * HOP), dtype=np.float32)
    padded[0, :n] = x
    with torch.no_grad():
        y = removal(torch.from_numpy(padded), shares_of(net, padded, coefficients["window"]))
    return y[0, :n].numpy()


def load_net(path: Path) -> tuple[DenoiserNet, dict[str, Any]]:
    """The averaged net of a checkpoint, in evaluation mode, and the whole checkpoint. BadInput when there is
    none."""
    if not path.is_file():
        raise BadInput(f"{path}: no such checkpoint; run: stethopi train denoiser --out {path.parent}")
    kept = checkpoint.load(path)
    net = DenoiserNet.from_layout(kept["layout"])
    net.load_state_dict(kept["average"])
    return net.eval(), kept
