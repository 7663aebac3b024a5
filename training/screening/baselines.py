"""Train the screening networks that ours is compared with, all through one face.

    stethopi train classifier --model melcnn --data ../shared/data --out runs [--fold 0] [--resume]
    stethopi train classifier --model resnet18 --weights resnet18.pth      ImageNet weights from a file
    stethopi export classifier --model melcnn                              int8, checked by two gates

| model | hears | network |
|---|---|---|
| cnn1d | 2.5 s of waveform at 1 kHz | models.cnn1d; the loss on the mean over eight segments of a recording |
| melcnn, melcnn-light, melcnn-attention | 5 s of 128 mel bands | models.melcnn |
| resnet18 | the same | models.resnet18, from ImageNet where there is a file of weights, else from scratch |

A recipe is a TOML file (training/recipes/<model>.toml, table `[baseline]`). Every draw is a function of
(seed, step): repeated or resumed, a run gives the same weights on the same machine. A run of a shipped recipe
takes two to ten minutes on one core; caches of what the networks hear are made once (five
minutes).

For a benchmark:

    inputs = Inputs(data, cache, "mel")                      # or "segments"; front_end_name(model) says which
    recipe = load_baseline_recipe("melcnn")
    trained = train_screening_baseline(recipe, inputs, chosen, out=folder)      # chosen: list of Recording
    trained.logits(recording)         float32 (windows, 2), murmur and abnormal, of a recording in `inputs`
    trained.windows(recording)        float64 (windows,): probability of abnormal of each window, unscaled
    trained.logits_of(sound)          the same of any sound at 2 kHz: noise added, denoised …
    trained.int8(folder)              the same object, computed by the int8 file on the device's interpreter

Labels are taken from the Recording objects that are given, so shuffled labels are recordings with other
labels (dataclasses.replace); which fold or source they are of is the caller's business. The mean of the
logits over a recording's windows is what a recording scores.

The protocol of the publications, training.screening.leaky: trained with `windows=split.train`, judged by
`trained.logits(recording)[split.test[record]]` and all windows of the recordings in `split.copies`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from device.errors import BadInput
from device.screening.baseline_features import FrontEnd
from models.classifier import OUTPUTS
from models.cnn1d import Cnn1d
from models.melcnn import MelCnn, MelCnnAttention, MelCnnLight
from models.resnet18 import ResNet18, adapted
from training.core import checkpoint as checkpoints
from training.core import loop
from training.core.say import Say
from training.core.schedules import adamw
from training.data.recordings import Recording
from training.metrics.classification import auc
from training.screening.baseline_inputs import Inputs
from training.screening.baseline_recipe import BaselineRecipe, front_end_name, known_baseline
from training.screening.corpus import targets
from training.screening.train import CLIP, curve_points, save_curve, screening_cycle

__all__ = [
    "Trained",
    "build_screening_baseline",
    "evaluate_screening_baseline",
    "load_screening_baseline",
    "load_screening_baseline_net",
    "train_screening_baseline",
]

_NETS: dict[str, Callable[..., nn.Module]] = {
    "cnn1d": Cnn1d,
    "melcnn": MelCnn,
    "melcnn-light": MelCnnLight,
    "melcnn-attention": MelCnnAttention,
    "resnet18": ResNet18,
}


def build_screening_baseline(recipe: BaselineRecipe) -> nn.Module:
    """The untrained network of a recipe, its first weights drawn from the seed."""
    torch.manual_seed(recipe.seed)
    make = _NETS[known_baseline(recipe.model)]
    if recipe.width == 1.0:
        return make()

    def scaled(channels: int) -> int:
        return max(8, int(round(channels * recipe.width / 8)) * 8)

    if recipe.model == "resnet18":
        return make(scaled(64))
    plain = make()
    body = [m.out_channels for m in plain.body if isinstance(m, nn.Conv2d) and m.groups == 1]  # type: ignore[union-attr]
    if recipe.model == "melcnn-attention":
        body = body[:1] + body[1::2]
    return make([scaled(c) for c in body])


BaselineNetwork = Callable[[np.ndarray], np.ndarray]
"""float32 (windows, height, width) → logits float32 (windows, 2)."""


def _float_network(net: nn.Module) -> BaselineNetwork:
    def run(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            parts = [net(torch.from_numpy(x[k : k + 64])[:, None]) for k in range(0, len(x), 64)]
        return torch.cat(parts).numpy()

    return run


@dataclass(frozen=True)
class Trained:
    """A trained model on its front end; see the top of this module for its use."""

    recipe: BaselineRecipe
    net: nn.Module
    inputs: Inputs
    network: BaselineNetwork
    """What computes the logits: the float net, or its int8 file."""
    curve: list[dict[str, float]]
    """Every few hundred steps: step, loss, and of the recordings that decide loss and AUC."""
    kind: str = "float"
    cost: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Of an int8 model: parameters, mac_per_window, kilobytes, int8_db."""

    @property
    def front(self) -> FrontEnd:
        return self.inputs.front

    def logits(self, recording: Recording) -> np.ndarray:
        """Logits (windows, 2), OUTPUTS, of a recording that is in the inputs."""
        return self.network(self.inputs.windows(recording.record))

    def logits_of(self, sound: np.ndarray) -> np.ndarray:
        """Logits (windows, 2) of any sound at 2 kHz, float32 (n,)."""
        return self.network(self.front.windows(sound))

    def windows(self, recording: Recording) -> np.ndarray:
        """Probability of abnormal of each window, float64 (windows,), as the net says it, unscaled."""
        return 1.0 / (1.0 + np.exp(-self.logits(recording)[:, 1].astype(np.float64)))

    def int8(self, folder: Path, calibration: Sequence[Recording] | None = None) -> Trained:
        """The same model as an int8 file, `folder`/<model>.tflite, run by the device's interpreter.

        calibration: recordings whose windows fix the scales (default: the recipe's training folds). Raises
        training.export.export.ExportRefused when a gate does not hold.
        """
        from device.inference.bundle import ModelEntry
        from device.screening.screen import Int8Network
        from training.export.export import Limits, export

        recipe = self.recipe
        chosen = list(calibration or [r for r in self.inputs.recordings if r.fold in recipe.folds])
        rng = np.random.default_rng([recipe.seed, 77])
        picks = [chosen[int(k)] for k in rng.integers(len(chosen), size=200)]
        examples = np.stack(
            [self.inputs.window(r.record, int(rng.integers(self.inputs.count(r.record)))) for r in picks]
        )[:, None]
        result = export(
            self.net,
            {"x": torch.zeros(1, 1, *self.front.shape)},
            ["logits"],
            {"x": examples},
            Path(folder),
            recipe.model,
            limits=Limits(int8_db=recipe.int8_db),
            seed=recipe.seed,
        )
        one = Int8Network(
            ModelEntry(recipe.model, result.int8_tflite, {"inputs": result.inputs, "outputs": result.outputs})
        )
        cost = {
            "parameters": result.report["parameters"],
            "mac_per_window": result.report["macs"],
            "kilobytes": round(result.kilobytes, 1),
            "int8_db": result.report["int8_db"]["logits"],
        }

        def run(x: np.ndarray) -> np.ndarray:
            return np.stack([one(row) for row in x])

        return dataclasses.replace(self, network=run, kind="int8", cost=cost)


class _Drawer:
    """Batches as a pure function of (seed, step)."""

    def __init__(
        self,
        recipe: BaselineRecipe,
        inputs: Inputs,
        chosen: Sequence[Recording],
        windows: Mapping[str, Sequence[int]] | None,
    ) -> None:
        self.recipe, self.inputs = recipe, inputs
        self.cells: tuple[list[int], list[int]] = ([], [])
        self.chosen: list[Recording] = []
        self.allowed: list[np.ndarray] = []
        self.drawn: list[str] = []
        """Records of the last batch."""
        rows = []
        for recording in chosen:
            label = targets(recording, recipe)  # type: ignore[arg-type]
            allowed = np.arange(inputs.count(recording.record))
            if windows is not None:
                allowed = np.array(sorted(windows.get(recording.record, ())), int)
            if label[1] + label[3] == 0 or not len(allowed):
                continue
            # an outcome that counts little and a heart without a murmur are no finding to be drawn for
            found = max(label[0] * label[1], label[2] * label[3]) >= 0.5
            self.cells[int(found)].append(len(self.chosen))
            self.chosen.append(recording)
            self.allowed.append(allowed)
            rows.append(label)
        if not all(self.cells):
            raise BadInput("training needs recordings of normal and of abnormal hearts; choose other folds")
        self.labels = np.array(rows, np.float32)

    def key(self) -> str:
        """Hash of what is drawn from: recordings, their labels and windows."""
        said = [
            [r.record, *map(float, row), len(a), int(a.sum())]
            for r, row, a in zip(self.chosen, self.labels, self.allowed, strict=True)
        ]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """x (batch · group, 1, height, width), a recording's windows side by side; labels (batch, 4).

        Normal and abnormal are drawn equally often, the recordings of a class evenly.
        """
        r, rng = self.recipe, np.random.default_rng([self.recipe.seed, step])
        x = np.empty((r.batch * r.group, 1, *self.inputs.front.shape), np.float32)
        labels = np.empty((r.batch, 4), np.float32)
        self.drawn = []
        for k in range(r.batch):
            cell = self.cells[int(rng.integers(2))]
            i = cell[int(rng.integers(len(cell)))]
            self.drawn.append(self.chosen[i].record)
            labels[k] = self.labels[i]
            whole, allowed = self.inputs.whole(self.chosen[i].record), self.allowed[i]
            for g in range(r.group):
                seen = self.inputs.front.window(whole, int(allowed[rng.integers(len(allowed))]))
                x[k * r.group + g, 0] = self._changed(seen, rng)
        return x, labels

    def _changed(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Time shift, masks in time and frequency, amplitude."""
        r = self.recipe
        height, width = x.shape
        most = int(r.shift * width)
        x = np.roll(x, int(rng.integers(-most, most + 1)), axis=1)
        for count, share, length, axis in (
            (r.time_masks, r.time_mask, width, 1),
            (r.band_masks if height > 1 else 0, r.band_mask, height, 0),
        ):
            for _ in range(count):
                long = int(rng.integers(0, int(share * length) + 1))
                first = int(rng.integers(0, length - long + 1))
                if axis:
                    x[:, first : first + long] = 0.0
                else:
                    x[first : first + long] = 0.0
        return x * np.float32(1.0 + rng.uniform(-r.scale, r.scale))


def _loss(logits: torch.Tensor, labels: torch.Tensor, recipe: BaselineRecipe) -> torch.Tensor:
    """logits (batch · group, 2), labels (batch, 4): cross entropy of the mean over a recording."""
    mean = logits.reshape(len(labels), -1, 2).mean(1)
    smooth = recipe.label_smoothing
    total = logits.new_zeros(())
    for column in range(len(OUTPUTS)):
        target = labels[:, 2 * column] * (1 - 2 * smooth) + smooth
        weight = labels[:, 2 * column + 1]
        each = nn.functional.binary_cross_entropy_with_logits(mean[:, column], target, reduction="none")
        total = total + (each * weight).sum() / weight.sum().clamp(min=1.0)
    return total


def _watched(
    net: nn.Module, recipe: BaselineRecipe, inputs: Inputs, watch: Sequence[Recording], most: int = 300
) -> dict[str, float]:
    """Loss, and AUC of abnormal by recording, on up to `most` recordings, two windows each."""
    usable = [r for r in watch if targets(r, recipe)[3] > 0]  # type: ignore[arg-type]
    if not usable:
        return {}
    usable = [usable[int(k)] for k in np.linspace(0, len(usable) - 1, min(most, len(usable)))]
    x, labels = [], []
    for r in usable:
        count = inputs.count(r.record)
        x += [inputs.window(r.record, k) for k in (count // 3, (2 * count) // 3)]
        labels.append(targets(r, recipe))  # type: ignore[arg-type]
    logits = torch.from_numpy(_float_network(net.eval())(np.stack(x)))
    loss = _loss(logits, torch.tensor(labels), recipe)
    truth = np.array(labels)
    sure = truth[:, 3] >= 1.0
    scores = logits.reshape(len(labels), 2, 2).mean(1)[:, 1].numpy()
    return {"watched_loss": float(loss), "watched_auc": auc(scores[sure], truth[sure, 2] > 0.5)}


def _read_weights(net: nn.Module, recipe: BaselineRecipe, weights: Path) -> None:
    """Published ImageNet weights of ResNet-18 into `net`."""
    if not isinstance(net, ResNet18):
        raise BadInput(f"--weights {weights}: only resnet18 takes them; leave it out for {recipe.model}")
    try:
        kept = torch.load(weights, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise BadInput(
            f"--weights {weights}: not there; give a ResNet-18 state dict, or leave it out"
        ) from None
    except Exception as error:  # whatever torch's reader says of a file that is none
        raise BadInput(
            f"--weights {weights}: not a file of PyTorch weights ({type(error).__name__}); give a ResNet-18"
            " state dict saved by torch.save"
        ) from None
    if isinstance(kept, Mapping) and isinstance(kept.get("state_dict"), Mapping):
        kept = kept["state_dict"]
    if not isinstance(kept, Mapping):
        raise BadInput(f"--weights {weights}: holds no state dict; give the one published for ResNet-18")
    try:
        net.load_state_dict(adapted(net, kept))
    except ValueError as problem:
        raise BadInput(
            f"--weights {weights}: does not fit ResNet-18 ({problem}); give the state dict published for it"
        ) from None


def train_screening_baseline(
    recipe: BaselineRecipe,
    inputs: Inputs,
    chosen: Sequence[Recording],
    *,
    out: Path | None = None,
    windows: Mapping[str, Sequence[int]] | None = None,
    watch: Sequence[Recording] = (),
    weights: Path | None = None,
    say: Say = lambda text: None,
    every: int = 200,
    stop_at: int | None = None,
) -> Trained:
    """Train on the recordings `chosen` (those without a usable label are passed over).

    out: a folder of this run alone. A finished run of the same recipe, recordings and labels there is loaded;
        a broken-off one goes on from `resume.pt`; done, `<model>.pt` and `curve.json` are written.
    windows: record → numbers of its windows that may be used (leaky); default all of all.
    watch: recordings whose loss and AUC are noted in the curve every `every` steps; they decide nothing.
    weights: for resnet18, a published state dict to start from.
    stop_at: break off after this step, with a checkpoint (for tests).
    """
    torch.set_num_threads(1)
    if inputs.front.name != front_end_name(recipe.model):
        raise ValueError(f"{recipe.model} hears {front_end_name(recipe.model)}, not {inputs.front.name}")
    drawer = _Drawer(recipe, inputs, chosen, windows)
    there = weights is not None and Path(weights).is_file()
    start_from = hashlib.sha256(Path(str(weights)).read_bytes()).hexdigest() if there else ""
    key = hashlib.sha256((recipe.digest() + drawer.key() + start_from).encode()).hexdigest()
    final, resume = (out / f"{recipe.model}.pt", out / "resume.pt") if out else (None, None)
    if final is not None and final.is_file():
        kept = checkpoints.load(final)
        if kept["key"] == key:
            say(f"{recipe.model}: trained before, nothing has changed")
            return load_screening_baseline(final, inputs)
    net = build_screening_baseline(recipe)
    if weights is not None:
        _read_weights(net, recipe, Path(weights))
        say(f"{recipe.model}: starts from {weights}")
    elif recipe.model == "resnet18":
        say("resnet18: no file of ImageNet weights given (--weights), so training starts from scratch")
    channels = [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d) and m.out_channels > 2]
    layout = loop.layout_for(channels)
    net = net.to(memory_format=layout)  # type: ignore[call-overload]

    def loss_of(batch: tuple[np.ndarray, ...], step: int) -> torch.Tensor:
        x, labels = map(torch.from_numpy, batch)
        return _loss(net(x.contiguous(memory_format=layout)), labels, recipe)

    done = loop.learn(
        net,
        drawer.batch,
        loss_of,
        adamw(net, recipe.learning_rate, recipe.weight_decay),
        screening_cycle(recipe.learning_rate, recipe.steps),
        loop.TrainingPlan(recipe.steps, recipe.seed, every, every, clip=CLIP, stop_at=stop_at),
        checkpoint=loop.Checkpoint(resume, key) if resume else None,
        validate=lambda weights: _watched(net, recipe, inputs, watch),
        files=lambda: drawer.drawn,
        name=recipe.model,
        say=say,
    )
    curve = curve_points(done)
    net = net.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    if final is not None and resume is not None and stop_at is None:
        checkpoints.save(
            final,
            {
                "key": key,
                "recipe": {**dataclasses.asdict(recipe), "folds": list(recipe.folds)},
                "net": net.state_dict(),
                "curve": curve,
                "data": inputs.hashes,
            },
        )
        save_curve(final.with_name("curve.json"), curve)
        resume.unlink(missing_ok=True)
    return Trained(recipe, net, inputs, _float_network(net), curve)


def load_screening_baseline_net(path: Path) -> nn.Module:
    """The network alone of a checkpoint, in eval mode. BadInput when there is none."""
    return _read_checkpoint(path)[1]


def load_screening_baseline(path: Path, inputs: Inputs) -> Trained:
    """A trained model from its checkpoint. BadInput when there is none."""
    recipe, net, curve = _read_checkpoint(path)
    return Trained(recipe, net, inputs, _float_network(net), curve)


def _read_checkpoint(path: Path) -> tuple[BaselineRecipe, nn.Module, list[dict[str, float]]]:
    torch.set_num_threads(1)
    try:
        kept = checkpoints.load(path)
    except FileNotFoundError:
        raise BadInput(
            f"{path}: not there; run `stethopi train classifier --model {Path(path).stem}` first"
        ) from None
    recipe = BaselineRecipe(**{**kept["recipe"], "folds": tuple(kept["recipe"]["folds"])})
    net = build_screening_baseline(recipe)
    net.load_state_dict(kept["net"])
    return recipe, net.eval(), kept["curve"]


def evaluate_screening_baseline(trained: Trained, chosen: Sequence[Recording]) -> dict[str, dict[str, float]]:
    """By database: how many, AUC of abnormal, and AUC of murmur where that is known, by recording."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    for recording in chosen:
        if recording.label is not None:
            logits = trained.logits(recording).mean(0)
            heard = {"yes": 1.0, "no": 0.0}.get(recording.murmur_here or "", float("nan"))
            rows.setdefault(recording.database, []).append(
                (*map(float, logits), float(recording.label == "abnormal"), heard)
            )
    table: dict[str, dict[str, float]] = {}
    for database, values in sorted(rows.items()):
        v = np.array(values)
        table[database] = {"n": float(len(v)), "abnormal": auc(v[:, 1], v[:, 2] > 0.5)}
        known = ~np.isnan(v[:, 3])
        if known.any():
            table[database]["murmur"] = auc(v[known, 0], v[known, 3] > 0.5)
    return table
