"""Train the ECG's denoisers, export ours, and write its part of a bundle.

    stethopi train ecg-denoiser --model ours          the streaming network of the bundle (about 20 minutes)
    stethopi train ecg-denoiser --model autoencoder   cnn, diffusion, deepfilter, fcn-dae, tcdae likewise
    stethopi export ecg-denoiser                      ours to int8, gates, the bundle's part
    python -m training.reports.ecg_plots --out RUN   loss curves, before and after in time and frequency

All of it is in the recipe (training/recipes/ecg.toml); a batch is a function of (seed, step), so a run can be
stopped, resumed (--resume) and repeated exactly on the same machine. Part train teaches, dev decides, test is
for `stethopi benchmark ecg` alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from device.denoise.front_end import analyse_lead
from device.denoise.mask import widen
from device.errors import BadInput
from models.ecg import HOP, LOOK_AHEAD, RATE_HZ, EcgDenoiser, EcgShape, tables
from training.core.loop import load, save
from training.core.muon import Muon
from training.core.recipe import settings, shipped
from training.data.ecg import EcgMixSettings, Mixtures, NoiseTracks, Piece, ecg_hashes, load_pieces
from training.export.export import Exported, ExportRefused, Limits, export
from training.export.part import write_part
from training.metrics.denoising import improvement, snr_db
from training.metrics.ecg import cosine

__all__ = ["MODELS", "EcgValidation", "export_ecg", "load_system", "system", "train_ecg"]

RECIPE = shipped("ecg")
BEHIND = LOOK_AHEAD // HOP
DRAWS = 6
"""How often the offline refiner hears a lead: in both polarities, and later by 0, 3 and 6 samples."""
MODELS = ("ours", "autoencoder", "cnn", "cnn-spectral", "diffusion", "deepfilter", "fcn-dae", "tcdae")
DEFAULT_FRONT = {"kind": "lead", "slow_hz": 0.3, "fast_hz": 3.0, "time_constant_s": 4.0, "ranges": [16, 4, 4]}


def _of(recipe: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The tables of one model: the shared ones with the model's own on top."""
    if model not in MODELS:
        raise BadInput(f"{model}: no such model; there are {', '.join(MODELS)}")
    own = recipe.get(model, {})
    found: dict[str, Any] = {"model": model, "seed": int(recipe.get("seed", 1))}
    for table in ("net", "mix", "train", "loss", "front"):
        found[table] = {**recipe.get(table, {}), **own.get(table, {})}
    return found


# ── systems ─────────────────────────────────────────────────────────────────────────────────────────────────


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
        self.skip = int(skip_s * RATE_HZ)
        self.tables = {k: torch.from_numpy(v) for k, v in tables().items()}

    def answer(self, x: np.ndarray) -> torch.Tensor:
        """(batch, n), n a multiple of the hop → (batch, n - look-ahead), aligned with the input's start."""
        wave, passed, level = analyse_lead(x, HOP, RATE_HZ, self.front)
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
            lines.append((torch.cat([before, points], -1) @ self.tables[table].T)[:, BEHIND:])
        kept = passed.view(batch, -1, HOP)[:, : n // HOP - BEHIND] - lines[1]
        wanted = (estimate[:, :, 0].transpose(1, 2) * level[:, :, None])[:, BEHIND:]
        return (kept + lines[0] * (wanted - kept)).reshape(batch, -1)

    def both(self, noisy: np.ndarray, clean: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.answer(noisy)
        return y[:, self.skip :], torch.from_numpy(clean)[:, self.skip : y.shape[1]]

    def whole(self, x: np.ndarray) -> np.ndarray:
        n = len(x)
        padded = np.full((1, (-(-n // HOP) + BEHIND) * HOP), x[-1] if n else 0.0, dtype=np.float32)
        padded[0, :n] = x
        with torch.no_grad():
            return self.answer(padded)[0, :n].numpy()

    def parameters_and_macs(self) -> tuple[int, float]:
        from training.export.export import count_macs

        macs = count_macs(self.net, tuple(self.net.examples().values()))  # type: ignore[operator]
        return int(sum(p.numel() for p in self.net.parameters())), macs * RATE_HZ / HOP


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
        return int(sum(p.numel() for p in self.net.parameters())), macs * RATE_HZ / self.samples * 2


class Refined(Windows):
    """The offline refiner: windows of the noisy lead and of the streaming net's answer to the whole lead."""

    def __init__(self, first: Stream, net: nn.Module, samples: int) -> None:
        super().__init__(net, samples)
        self.first = first

    def _answers(self, x: np.ndarray) -> torch.Tensor:
        """The streaming net's answers to (batch, n), all n of them."""
        n = x.shape[1]
        more = (-(-n // HOP) + BEHIND) * HOP - n
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
        draws = [(sign, late) for late in range(0, HOP, 2 * HOP // DRAWS) for sign in (1.0, -1.0)]
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
        macs = count_macs(self.net, (empty, empty)) * RATE_HZ / self.samples * 2
        macs = DRAWS * (macs + self.first.parameters_and_macs()[1])
        return int(sum(p.numel() for p in self.net.parameters())), macs


def system(tables_of: Mapping[str, Any]) -> System:
    """An untrained system from the tables of a model."""
    from models import ecg_rivals

    model, net = tables_of["model"], tables_of["net"]
    samples = int(tables_of["mix"].get("samples", 4320))
    if model == "diffusion":
        first = system(tables_of["first"])
        assert isinstance(first, Stream)
        return Refined(first, ecg_rivals.Refiner(first.net, **net), samples)
    if model == "ours":
        front = {**DEFAULT_FRONT, **tables_of["front"]}
        return Stream(EcgDenoiser(settings(EcgShape, net, "ours.net")), front)
    return Windows(ecg_rivals.build(model, net), samples)


# ── loss ────────────────────────────────────────────────────────────────────────────────────────────────────


class EcgLoss(nn.Module):
    """`mse`: mean squared error; else the error's share of the signal in dB, capped at `cap_db`, in time, of
    what lies above 2 Hz, and of two spectrograms' square-root magnitudes. `spectral` weighs those in both
    ways."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        super().__init__()
        self.w = {"kind": "db", "time": 1.0, "fast": 0.4, "spectral": 0.3, "cap_db": 28.0, **table}
        self.cap = 10 ** (-self.w["cap_db"] / 10)

    def forward(self, y: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        w = self.w
        if w["kind"] == "mse":
            loss = (y - clean).square().mean()
            if w["spectral"]:
                for size in (64, 256):
                    a, b = _magnitude(clean, size), _magnitude(y, size)
                    loss = loss + w["spectral"] * (a - b).square().mean()
            return loss
        loss = w["time"] * self._ratio((y - clean).square().sum(-1), clean.square().sum(-1))
        if w["fast"]:
            a, b = _fast(clean), _fast(y)
            loss = loss + w["fast"] * self._ratio((a - b).square().sum(-1), a.square().sum(-1))
        if w["spectral"]:
            for size in (64, 256):
                a, b = _magnitude(clean, size), _magnitude(y, size)
                loss = loss + w["spectral"] * self._ratio(
                    (a - b).square().sum((1, 2)), a.square().sum((1, 2))
                )
        return loss.mean()

    def _ratio(self, error: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
        return 10 * torch.log10(error / signal.clamp_min(1e-9) + self.cap)


def _fast(x: torch.Tensor) -> torch.Tensor:
    """Less its mean over half a second: what is above about 2 Hz."""
    mean = nn.functional.avg_pool1d(x[:, None], 181, 1, 90, count_include_pad=False)[:, 0]
    return x - mean


def _magnitude(x: torch.Tensor, size: int) -> torch.Tensor:
    z = torch.stft(x, size, size // 4, window=torch.hann_window(size), return_complex=True)
    return (z.real**2 + z.imag**2 + 1e-5).pow(0.25)


# ── validation ──────────────────────────────────────────────────────────────────────────────────────────────

LEAD_IN_S, MEASURED_S = 4, 10
SAVE_EVERY_S = 120.0


class EcgValidation:
    """Fixed mixtures of the dev patients with the dev noise, at −6 … 12 dB and clean; the last 10 of 14 s
    count."""

    def __init__(self, data: Path, seed: int, noisy: int = 64, quiet: int = 16) -> None:
        rng = np.random.default_rng([seed, 77])
        noises = NoiseTracks(data, "dev")
        n = (LEAD_IN_S + MEASURED_S) * RATE_HZ
        mixer = Mixtures(load_pieces(data, ("dev",)), noises, EcgMixSettings(samples=n), seed)
        self.items: list[tuple[str, np.ndarray, np.ndarray]] = []
        for k in range(noisy + quiet):
            clean = mixer.cut(rng).astype(np.float32)
            kind = "clean" if k >= noisy else ("mixed", "mixed", "bw", "mixed", "em", "mixed", "ma")[k % 7]
            x = clean.astype(np.float64)
            if kind != "clean":
                level = (-6.0, 0.0, 6.0, 12.0)[k % 4]
                noise = noises.draw(rng, kind, n)
                x = x + np.std(clean[LEAD_IN_S * RATE_HZ :]) * 10 ** (-level / 20) * noise
            self.items.append((kind, clean, x.astype(np.float32)))

    def __call__(self, clean_up: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
        rows: dict[str, list[float]] = {}
        where = slice(LEAD_IN_S * RATE_HZ, None)
        for kind, clean, noisy in self.items:
            out = clean_up(noisy)
            s, x, y = clean[where], noisy[where], out[where]
            if kind == "clean":
                rows.setdefault("clean out", []).append(snr_db(s, y))
                continue
            plain, beyond = improvement(s, x - x.mean(), y)
            for figure, value in (("plain", plain), ("beyond", beyond), ("cosine", cosine(s, y))):
                rows.setdefault(f"{kind} {figure}", []).append(value)
        found = {k: float(np.mean(v)) for k, v in rows.items()}
        found["clean out p5"] = float(np.percentile(rows["clean out"], 5))
        return {k: round(v, 4) for k, v in found.items()}


def _headline(v: Mapping[str, float]) -> str:
    return (
        f"mixed {v['mixed plain']:+.2f} plain, {v['mixed beyond']:+.2f} beyond, "
        f"cosine {v['mixed cosine']:.3f}; "
        + ", ".join(f"{k} {v[f'{k} plain']:+.1f}" for k in ("bw", "em", "ma"))
        + f"; clean {v['clean out']:.1f} (p5 {v['clean out p5']:.1f})"
    )


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────


def checkpoint_path(out: Path, model: str) -> Path:
    return out / f"ecg-{model}.pt"


def train_ecg(
    recipe: Mapping[str, Any],
    model: str,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    pieces: Sequence[Piece] | None = None,
) -> Path:
    """Train one model; writes out/ecg-<model>.pt (checkpoint and result) and returns its path.

    With a [<model>.polish] in the recipe a second training follows, from the average of the first
    (out/ecg-<model>-first.pt), under the tables that it changes.
    """
    of = _of(recipe, model)
    pieces = pieces if pieces is not None else load_pieces(data, ("train",))
    path = checkpoint_path(out, model)
    polish = recipe.get(model, {}).get("polish")
    if not polish:
        _fit(of, data, path, resume, pieces)
        return path
    first = checkpoint_path(out, f"{model}-first")
    _fit(of, data, first, resume, pieces)
    again = {
        **of,
        **{k: {**of[k], **polish.get(k, {})} for k in ("net", "mix", "train", "loss")},
        "polish": True,
    }
    _fit(again, data, path, resume, pieces, first)
    return path


def _fit(
    of: dict[str, Any],
    data: Path,
    path: Path,
    resume: bool,
    pieces: Sequence[Piece],
    start_from: Path | None = None,
) -> None:
    """One training by the tables of a model, kept in `path`."""
    model = of["model"]
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    table, seed = of["train"], of["seed"]
    first = load_system(checkpoint_path(path.parent, "ours")) if model == "diffusion" else None
    if first:
        of["first"] = first[1]["of"]
    torch.manual_seed(seed)
    made = system(of)
    net = made.net
    if first:
        net.first.load_state_dict(first[0].net.state_dict())  # type: ignore[union-attr, operator]
    if start_from:
        net.load_state_dict(load_system(start_from)[0].net.state_dict())
    taught = [p for p in net.parameters() if p.requires_grad]
    loss_of = EcgLoss(of["loss"])
    mixer = Mixtures(
        pieces,
        NoiseTracks(data, "train"),
        settings(EcgMixSettings, of["mix"], "mix"),
        seed + 1000 if start_from else seed,
    )
    steps = int(table["steps"])
    rate, warm_up = float(table.get("rate", 1e-3)), int(table.get("warm_up", 100))
    validate_every = int(table.get("validate_every", 1000))
    decay = float(table.get("weight_decay", 1e-4))
    optimizer: Any
    if table.get("optimizer", "adamw") == "muon":
        optimizer = Muon(taught, rate, weight_decay=decay, factor=float(table.get("factor", 5.0)))
    else:
        optimizer = torch.optim.AdamW(taught, lr=rate, weight_decay=decay, betas=(0.9, 0.98))

    def rate_at(step: int) -> float:
        falling = 0.5 * (1 + np.cos(np.pi * step / steps))
        return float(rate * min(1.0, (step + 1) / warm_up) * max(falling, 0.02))

    average = {k: v.detach().clone() for k, v in net.state_dict().items()}
    average_by = float(table.get("average", 0.995))
    because: dict[str, Any] = json.loads(json.dumps(of))
    start, seconds = 0, 0.0
    curve: list[tuple[int, float]] = []
    validations: list[tuple[int, dict[str, float]]] = []
    if resume and path.is_file():
        kept = load(path)
        if kept["because"] == because:
            net.load_state_dict(kept["net"])
            optimizer.load_state_dict(kept["optimizer"])
            average, start, seconds = kept["average"], kept["step"], kept["seconds"]
            curve, validations = kept["curve"], kept["validations"]
        else:
            print(f"{path.name}: of another recipe; beginning anew", flush=True)
    validation = EcgValidation(data, seed, int(table.get("validate_on", 64)))
    parameters, macs = made.parameters_and_macs()
    print(f"{model}: {parameters} parameters, {macs / 1e6:.2f} MMAC/s; steps {start} to {steps}", flush=True)
    eye = system(of)
    begun, saved = time.monotonic() - seconds, time.monotonic()
    sums: list[float] = []
    half = bool(table.get("bfloat16", False))
    for step in range(start, steps):
        clean, noisy = mixer.batch(step)
        torch.manual_seed(seed * 1_000_003 + step)  # what a net draws itself is a function of the step too
        net.train()
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y, wanted = made.both(noisy, clean)
        loss = loss_of(y.float(), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(taught, float(table.get("clip", 3.0)))
        optimizer.step()
        blend = min(average_by, (step + 1) / (step + 10))
        with torch.no_grad():
            for k, v in net.state_dict().items():
                if v.is_floating_point():
                    average[k].lerp_(v, 1 - blend)
                else:
                    average[k].copy_(v)
        sums.append(float(loss.detach()))
        if (step + 1) % 100 == 0 or step + 1 == steps:
            curve.append((step + 1, float(np.mean(sums))))
            minutes = (time.monotonic() - begun) / 60
            print(f"step {step + 1:6d}  loss {curve[-1][1]:8.4f}  {minutes:6.1f} min", flush=True)
            sums = []
        if (step + 1) % validate_every == 0 or step + 1 == steps:
            eye.net.load_state_dict(average)
            eye.net.eval()
            validations.append((step + 1, validation(eye.whole)))
            print(f"step {step + 1:6d}  dev: {_headline(validations[-1][1])}", flush=True)
        if time.monotonic() - saved > SAVE_EVERY_S or step + 1 == steps:
            saved = time.monotonic()
            save(
                path,
                {
                    "net": net.state_dict(),
                    "average": average,
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                    "curve": curve,
                    "validations": validations,
                    "seconds": time.monotonic() - begun,
                    "of": of,
                    "because": because,
                    "steps": steps,
                },
            )


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


# ── export ──────────────────────────────────────────────────────────────────────────────────────────────────


def _real_leads(of: Mapping[str, Any], data: Path, pieces: Sequence[Piece] | None = None) -> np.ndarray:
    """Forty-eight training mixtures of 16 s that no step ever sees, (48, 5760): for ranges and
    calibration."""
    mixed = settings(EcgMixSettings, {**of["mix"], "batch": 48, "samples": 640 * HOP}, "mix")
    mixer = Mixtures(
        pieces if pieces is not None else load_pieces(data, ("train",)),
        NoiseTracks(data, "train"),
        mixed,
        int(of["seed"]),
    )
    return mixer.batch(20_000_000)[1]


def _over_time(net: EcgDenoiser, block: nn.Module) -> list[Any]:
    """The convolutions over time before the 1x1 of a block: its own, and that of a second pass."""
    again = dict(zip(net.blocks, net.again, strict=False))
    return [block.time, *([again[block]] if block in again else [])]


def equalise(made: Stream, leads: np.ndarray, power: float = 0.75) -> None:
    """Scale the channels that the dilated blocks hand on to like ranges, in place; the net computes the same.

    One int8 scale serves all channels of an activation, so a single loud one would coarsen the others. After
    Nagel et al. 2019, with ranges measured on real leads.
    """
    net = made.net
    assert isinstance(net, EcgDenoiser)
    heard: dict[nn.Module, torch.Tensor] = {}

    def note(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        most = args[0].abs().amax((0, 2, 3))
        heard[module] = torch.maximum(heard[module], most) if module in heard else most

    fast, slow = list(net.fast), list(net.blocks)
    hooks = [b.mix.register_forward_pre_hook(note) for b in (*fast, *slow)]  # type: ignore[union-attr]
    try:
        with torch.no_grad():
            made.answer(leads)
    finally:
        for hook in hooks:
            hook.remove()
    with torch.no_grad():
        # the trunk's first input is heard by the head too (skip), so only what lies between blocks is scaled
        for blocks in (fast, slow):
            for maker, block in zip(blocks[:-1], blocks[1:], strict=True):
                most = heard[block.mix].clamp_min(1e-3)  # type: ignore[index]
                scale = ((most / most.median()) ** power).clamp(1 / 16, 16)
                maker.mix.weight.div_(scale[:, None, None, None])  # type: ignore[union-attr, operator]
                maker.mix.bias.div_(scale)  # type: ignore[union-attr, operator]
                for time_of in _over_time(net, block):
                    time_of.conv.bias.div_(scale)  # type: ignore[union-attr]
                block.mix.weight.mul_(scale[None, :, None, None])  # type: ignore[union-attr, operator]


def export_ecg(
    recipe: Mapping[str, Any],
    source: Path,
    data: Path,
    out: Path,
    *,
    pieces: Sequence[Piece] | None = None,
) -> dict[str, Any]:
    """Checkpoint → ecg.tflite, .npz, .vectors.npz, .json in `out`, or ExportRefused. Returns the report.

    Gates beside those of training.export.export: the float file over 600 streamed hops, and int8 against
    float on the dev part: at most `most_lost_db` of the improvement on mixed noise.
    """
    from device.denoise.stream import denoise
    from device.inference.bundle import ModelEntry
    from training.export.export import calibration_stream, streamed_error

    made, kept = load_system(source)
    if not isinstance(made, Stream):
        raise BadInput(f"{source}: not a network that streams; only --model ours goes into the bundle")
    net = made.net
    assert isinstance(net, EcgDenoiser)
    of = kept["of"]
    gate = recipe.get("export", {})
    leads = _real_leads(of, data, pieces)
    equalise(made, leads, float(gate.get("equalise", 0.75)))
    wave = torch.from_numpy(analyse_lead(leads, HOP, RATE_HZ, made.front)[0])[:, :, None]
    states = [(f"state_{k:02d}", f"new_{k:02d}") for k in range(len(net.looking_back()))]
    exported: Exported = export(
        net,
        net.examples(),
        net.output_names(),
        calibration_stream(net, {"wave": wave}),
        out,
        "ecg",
        states=states,
        limits=Limits(int8_db=float(gate.get("least_db", 12.0))),
        seed=int(of["seed"]),
    )
    report = exported.report
    worst = streamed_error(exported, net, {"wave": wave[:1, ..., : 600 * HOP]})
    report["float_streamed_error"] = worst
    if not worst < 1e-3:
        raise ExportRefused(f"ecg: the float file is {worst:.2g} away from PyTorch after streaming 600 hops")
    coefficients = tables()
    parameters, macs = made.parameters_and_macs()
    meta = {
        "rate_hz": RATE_HZ,
        "unit": "mV",
        "hop": HOP,
        "look_ahead": LOOK_AHEAD,
        "delay_ms": 1000 * (HOP + LOOK_AHEAD) / RATE_HZ,
        "front": made.front,
        "form": {"kind": "blend"},
        "inputs": exported.inputs,
        "outputs": exported.outputs,
        "states": exported.states,
        "parameters": parameters,
        "mac_per_s": round(macs),
        "kilobytes": round(exported.kilobytes, 1),
        "seed": of["seed"],
        "data": ecg_hashes(data),
        "layout": net.layout(),
        "recipe": of,
        "steps": kept["steps"],
        "minutes": round(kept["seconds"] / 60, 1),
    }
    entry = ModelEntry("ecg", exported.int8_tflite, meta, coefficients)
    validation = EcgValidation(data, int(of["seed"]))
    as_float, as_int8 = validation(made.whole), validation(lambda x: denoise(entry, x))
    report["dev_float"], report["dev_int8"] = as_float, as_int8
    lost = as_float["mixed plain"] - as_int8["mixed plain"]
    report["int8_loss_db"] = round(lost, 3)
    if not lost <= float(gate.get("most_lost_db", 0.3)):
        raise ExportRefused(
            f"ecg: int8 loses {lost:.2f} dB of {as_float['mixed plain']:.2f}; calibrate better"
        )
    meta["export"] = report
    vector = leads[0]
    write_part(out, "ecg", meta, arrays=coefficients, vectors={"x": vector, "y": denoise(entry, vector)})
    return report
