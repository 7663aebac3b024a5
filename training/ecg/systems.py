"""The ECG's denoisers as they are trained and run on whole leads: the streaming net of the bundle, and the
networks on windows that it is measured against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from device.denoise.front_end import analyse_lead
from device.denoise.mask import widen
from device.errors import BadInput
from device.rates import ECG_RATE_HZ
from models.ecg import HOP, LOOK_AHEAD, EcgDenoiser, EcgShape, lead_tables
from training.core.checkpoint import load
from training.core.recipe import merged, settings

__all__ = [
    "ECG_MODELS",
    "Refined",
    "Stream",
    "System",
    "Windows",
    "checkpoint_path",
    "load_system",
    "system",
    "tables_of_model",
]

LEAD_LOOK_AHEAD_HOPS = LOOK_AHEAD // HOP
POLARITIES_AND_PLACES = 6
"""How often the offline refiner hears a lead: in both polarities, and later by 0, 3 and 6 samples."""
ECG_MODELS = ("ours", "autoencoder", "cnn", "cnn-spectral", "diffusion", "deepfilter", "fcn-dae", "tcdae")
DEFAULT_FRONT = {"kind": "lead", "slow_hz": 0.3, "fast_hz": 3.0, "time_constant_s": 4.0, "ranges": [16, 4, 4]}


def tables_of_model(recipe: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The tables of one model: the shared ones with the model's own on top."""
    if model not in ECG_MODELS:
        raise BadInput(f"{model}: no such model; there are {', '.join(ECG_MODELS)}")
    own = recipe.get(model, {})
    found: dict[str, Any] = {"model": model, "seed": int(recipe.get("seed", 1))}
    for table in ("net", "mix", "train", "loss", "front"):
        found[table] = merged(recipe.get(table, {}), own.get(table, {}))
    return found


class System(Protocol):
    """A network and how signals go through it."""

    net: nn.Module

    def both(self, noisy: np.ndarray, clean: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Signals for training, (batch, n) → what came out and what should have, in the unit that the loss
        sees."""
        ...

    def whole(self, x: np.ndarray) -> np.ndarray:
        """One whole lead at 360 Hz, mV (n,) → (n,)."""
        ...

    def parameters_and_macs(self) -> tuple[int, float]:
        """Parameters, and multiply-accumulates for a second of signal."""
        ...


class Stream:
    """Ours: the front end, the net and the blend of answers, for whole leads at once."""

    def __init__(self, net: EcgDenoiser, front: Mapping[str, Any], skip_s: float = 1.5) -> None:
        self.net, self.front = net, dict(front)
        self.skip = int(skip_s * ECG_RATE_HZ)
        self.tables = {k: torch.from_numpy(v) for k, v in lead_tables().items()}

    def answer(self, x: np.ndarray) -> torch.Tensor:
        """(batch, n), n a multiple of the hop → (batch, n - look-ahead), aligned with the input's start."""
        wave, passed, level = analyse_lead(x, HOP, ECG_RATE_HZ, self.front)
        states = self.net.initial_states(len(x))  # type: ignore[operator]
        estimate, share, baseline, *_ = self.net(torch.from_numpy(wave)[:, :, None], *states)
        return self.blend(torch.from_numpy(passed), torch.from_numpy(level), estimate, share, baseline)

    def blend(
        self,
        passed: torch.Tensor,
        level: torch.Tensor,
        estimate: torch.Tensor,
        share: torch.Tensor,
        baseline: torch.Tensor,
    ) -> torch.Tensor:
        """What device.denoise.mask.MaskBlend computes hop by hop."""
        batch, n = passed.shape
        shares = share[:, :, 0].transpose(1, 2)
        shares = shares + (widen(shares) - shares).detach()  # a share pressed against its end still learns
        baselines = baseline[:, :, 0].transpose(1, 2) * level[:, :, None]
        lines = []
        for points, table in ((shares, "of_share"), (baselines, "of_baseline")):
            before = nn.functional.pad(points[:, :-1, -1:], (0, 0, 1, 0))
            lines.append((torch.cat([before, points], -1) @ self.tables[table].T)[:, LEAD_LOOK_AHEAD_HOPS:])
        kept = passed.view(batch, -1, HOP)[:, : n // HOP - LEAD_LOOK_AHEAD_HOPS] - lines[1]
        wanted = (estimate[:, :, 0].transpose(1, 2) * level[:, :, None])[:, LEAD_LOOK_AHEAD_HOPS:]
        return (kept + lines[0] * (wanted - kept)).reshape(batch, -1)

    def both(self, noisy: np.ndarray, clean: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.answer(noisy)
        return y[:, self.skip :], torch.from_numpy(clean)[:, self.skip : y.shape[1]]

    def whole(self, x: np.ndarray) -> np.ndarray:
        n = len(x)
        padded = np.full(
            (1, (-(-n // HOP) + LEAD_LOOK_AHEAD_HOPS) * HOP), x[-1] if n else 0.0, dtype=np.float32
        )
        padded[0, :n] = x
        with torch.no_grad():
            return self.answer(padded)[0, :n].numpy()

    def parameters_and_macs(self) -> tuple[int, float]:
        from training.export.export import count_macs

        macs = count_macs(self.net, tuple(self.net.examples().values()))  # type: ignore[operator]
        return int(sum(p.numel() for p in self.net.parameters())), macs * ECG_RATE_HZ / HOP


class Windows:
    """A network on windows of a fixed length, each brought to mean 0 and deviation 1 and back.

    A whole lead goes through in windows that overlap by half, joined by straight cross-fades.
    """

    def __init__(self, net: nn.Module, samples: int) -> None:
        self.net, self.samples = net, samples

    @staticmethod
    def _scale(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.mean(-1, keepdim=True), x.std(-1, keepdim=True).clamp_min(1e-4)

    def both(self, noisy: np.ndarray, clean: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy(noisy)
        mean, scale = self._scale(x)
        wanted = torch.from_numpy(clean) / scale
        return self.net((x - mean)[:, None] / scale[:, None])[:, 0], wanted

    def _clean(self, windows: list[torch.Tensor]) -> torch.Tensor:
        mean, scale = self._scale(windows[0])
        return self.net(((windows[0] - mean) / scale)[:, None])[:, 0] * scale

    def _joined(self, leads: Sequence[np.ndarray]) -> np.ndarray:
        """Signals of one length (n,), cut into windows together, cleaned, cross-faded: (n,)."""
        n, size = len(leads[0]), self.samples
        half = size // 2
        windows = []
        for x in leads:
            padded = np.pad(x.astype(np.float32), (half, half + -n % half), mode="edge")
            cut = np.lib.stride_tricks.sliding_window_view(padded, size)[::half]
            windows.append(torch.from_numpy(cut.copy()))
        found = []
        with torch.no_grad():
            for k in range(0, len(windows[0]), 16):
                found.append(self._clean([w[k : k + 16] for w in windows]))
        rise = (np.arange(half) + 0.5) / half
        fade = np.concatenate([rise, rise[::-1]]).astype(np.float32)
        y = np.zeros(len(windows[0]) * half + half, dtype=np.float32)
        for k, piece in enumerate(torch.cat(found).numpy()):
            y[k * half : k * half + size] += piece * fade
        return y[half : half + n]

    def whole(self, x: np.ndarray) -> np.ndarray:
        return self._joined([x])

    def parameters_and_macs(self) -> tuple[int, float]:
        from training.export.export import count_macs

        macs = count_macs(self.net, (torch.zeros(1, 1, self.samples),))
        return int(sum(p.numel() for p in self.net.parameters())), macs * ECG_RATE_HZ / self.samples * 2


class Refined(Windows):
    """The offline refiner: windows of the noisy lead and of the streaming net's answer to the whole lead."""

    def __init__(self, first: Stream, net: nn.Module, samples: int) -> None:
        super().__init__(net, samples)
        self.first = first

    def _answers(self, x: np.ndarray) -> torch.Tensor:
        """The streaming net's answers to (batch, n), all n of them."""
        n = x.shape[1]
        more = (-(-n // HOP) + LEAD_LOOK_AHEAD_HOPS) * HOP - n
        with torch.no_grad():
            return self.first.answer(np.pad(x, ((0, 0), (0, more)), mode="edge"))[:, :n]

    def both(self, noisy: np.ndarray, clean: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy(noisy)
        mean, scale = self._scale(x)
        x, before = ((x - mean) / scale)[:, None], (self._answers(noisy) / scale)[:, None]
        # any of the steps, each as likely; those before it only set the scene
        with torch.no_grad():
            for _ in range(int(torch.randint(self.net.steps, ()))):  # type: ignore[call-overload]
                before = self.net.step(x, before)  # type: ignore[operator]
        return self.net.step(x, before)[:, 0], torch.from_numpy(clean) / scale  # type: ignore[operator]

    def _clean(self, windows: list[torch.Tensor]) -> torch.Tensor:
        x, before = windows
        mean, scale = self._scale(x)
        return self.net(((x - mean) / scale)[:, None], (before / scale)[:, None])[:, 0] * scale

    def whole(self, x: np.ndarray) -> np.ndarray:
        """The mean over both polarities and three places of the hops, of the answers and of what they are
        refined to: neither should matter, so what differs is error."""
        draws = [
            (sign, late) for late in range(0, HOP, 2 * HOP // POLARITIES_AND_PLACES) for sign in (1.0, -1.0)
        ]
        leads = [sign * np.pad(x.astype(np.float32), (late, 0), mode="edge") for sign, late in draws]
        heard = [self._answers(lead[None].astype(np.float32))[0].numpy() for lead in leads]
        before = sum(sign * y[late:] for (sign, late), y in zip(draws, heard, strict=True)) / len(draws)
        found = np.zeros(len(x), dtype=np.float32)
        for (sign, late), lead in zip(draws, leads, strict=True):
            first = sign * np.pad(before, (late, 0), mode="edge")
            found += sign * self._joined([lead, first])[late:] / len(draws)
        return found

    def parameters_and_macs(self) -> tuple[int, float]:
        from training.export.export import count_macs

        empty = torch.zeros(1, 1, self.samples)
        macs = count_macs(self.net, (empty, empty)) * ECG_RATE_HZ / self.samples * 2
        macs = POLARITIES_AND_PLACES * (macs + self.first.parameters_and_macs()[1])
        return int(sum(p.numel() for p in self.net.parameters())), macs


def system(tables_of: Mapping[str, Any]) -> System:
    """An untrained system from the tables of a model."""
    from models import ecg_baselines

    model, net = tables_of["model"], tables_of["net"]
    samples = int(tables_of["mix"].get("samples", 4320))
    if model == "diffusion":
        first = system(tables_of["first"])
        assert isinstance(first, Stream)
        return Refined(first, ecg_baselines.Refiner(first.net, **net), samples)
    if model == "ours":
        front = {**DEFAULT_FRONT, **tables_of["front"]}
        return Stream(EcgDenoiser(settings(EcgShape, net, "ours.net")), front)
    return Windows(ecg_baselines.build_ecg_baseline(model, net), samples)


def checkpoint_path(out: Path, model: str) -> Path:
    return out / f"ecg-{model}.pt"


def load_system(path: Path) -> tuple[System, dict[str, Any]]:
    """The averaged system of a checkpoint, in evaluation mode, and the whole checkpoint. BadInput when there
    is none."""
    if not path.is_file():
        model = path.stem.removeprefix("ecg-")
        raise BadInput(
            f"{path}: no such checkpoint; run: stethopi train ecg-denoiser --model {model} --out"
            f" {path.parent}"
        )
    kept = load(path)
    made = system(kept["of"])
    made.net.load_state_dict(kept["average"])
    made.net.eval()
    return made, kept
