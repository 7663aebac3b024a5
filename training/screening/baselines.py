"""Train the screening networks that ours is compared with, all through one face.

    stethopi train classifier --model melcnn --data ../shared/data --out runs [--fold 0] [--resume]
    stethopi train classifier --model resnet18 --weights resnet18.pth      ImageNet weights from a file
    stethopi export classifier --model melcnn                              int8, checked by two gates

| model | hears | network |
|---|---|---|
| cnn1d | 2.5 s of waveform at 1 kHz | models.cnn1d; the loss on the mean over eight segments of a recording |
| melcnn, melcnn-light, melcnn-attention | 5 s of 128 mel bands | models.melcnn |
| resnet18 | the same | models.resnet18, from ImageNet where there is a file of weights, else from scratch |

A recipe is a TOML file (training/recipes/<model>.toml, table `[screener]`). Every draw is a function of
(seed, step): repeated or resumed, a run gives the same weights on the same machine. A run of a shipped recipe
takes two to ten minutes on one core; caches of what the networks hear are made once (five
minutes).

For a benchmark:

    inputs = Inputs(data, cache, "mel")                      # or "segments"; front_end_name(model) says which
    trained = train(load_recipe("melcnn"), inputs, chosen, out=folder)      # chosen: list of Recording
    trained.logits(recording)         float32 (windows, 2), murmur and abnormal, of a recording in `inputs`
    trained.windows(recording)        float64 (windows,): probability of abnormal of each window, unscaled
    trained.logits_of(sound)          the same of any sound at 2 kHz: noise added, denoised …
    trained.int8(folder)              the same object, computed by the int8 file on the device's interpreter

`train` takes the labels from the Recording objects it is given, so shuffled labels are recordings with other
labels (dataclasses.replace); which fold or source they are of is the caller's business. The mean of the
logits over a recording's windows is what a recording scores.

**leaky** is the protocol of the publications behind these models, named so wherever it is told: `leaky`
splits windows by chance, not patients, so that the test holds other windows, even overlapping ones, of the
very recordings that were trained on; and it scores copies of training recordings. First comes
`train(..., windows=split.train)`, then `trained.logits(recording)[split.test[record]]`, and all windows of
the recordings in `split.copies`.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from device.errors import BadInput
from device.screening.baseline_features import FRONT_ENDS, FrontEnd
from models.classifier import OUTPUTS
from models.cnn1d import Cnn1d
from models.melcnn import MelCnn, MelCnnAttention, MelCnnLight
from models.resnet18 import ResNet18, adapted
from training.core import loop
from training.data import recordings as training_data
from training.data.recordings import Recording
from training.metrics.classification import auc
from training.screening.corpus import targets
from training.screening.evaluate import describe
from training.screening.train import save_curve

__all__ = [
    "MODELS",
    "Inputs",
    "Leaky",
    "BaselineRecipe",
    "Trained",
    "build",
    "describe",
    "evaluate_screener",
    "front_end_name",
    "leaky",
    "load_screener",
    "load_screener_net",
    "load_baseline_recipe",
    "rotated",
    "train_screener",
]

_NETS: dict[str, tuple[str, Callable[..., nn.Module]]] = {
    "cnn1d": ("segments", Cnn1d),
    "melcnn": ("mel", MelCnn),
    "melcnn-light": ("mel", MelCnnLight),
    "melcnn-attention": ("mel", MelCnnAttention),
    "resnet18": ("mel", ResNet18),
}

MODELS = tuple(_NETS)
"""The models of this module; ours is trained by training.screening.train."""


@dataclass(frozen=True)
class BaselineRecipe:
    """Everything that decides the weights, beside the data and the recordings chosen. A TOML file's
    `[screener]` holds what differs from this.
    """

    model: str = "melcnn"
    seed: int = 1
    steps: int = 2000
    batch: int = 32
    """Recordings in a step."""
    group: int = 1
    """Windows of a recording in a step. The loss is on the mean of their logits."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    width: float = 1.0
    """Share of the network's channels; for trials."""
    shift: float = 0.1
    """A window is turned round in time by up to this share of its length."""
    time_masks: int = 1
    time_mask: float = 0.1
    """Share of the window that one mask covers at most."""
    band_masks: int = 1
    band_mask: float = 0.1
    scale: float = 0.2
    """Amplitudes are multiplied by 1 ± this."""
    folds: tuple[int, ...] = (2, 3, 4)
    """Trained on by the command; `train` itself takes the recordings it is given."""
    decide: int = 1
    outcome_weight: float = 0.15
    """As in training.screening.train: of CirCor's outcome as a label of abnormal where no murmur is heard."""
    no_murmur_weight: float = 0.5
    """As in training.screening.train: of "no murmur" for normal hearts where nobody noted murmurs."""
    int8_db: float = 15.0
    """Least signal over quantisation error of the logits that export accepts."""

    def digest(self) -> str:
        """Hash of all values, so that a changed recipe is not taken for a finished one."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()


def _known(model: str) -> str:
    if model not in _NETS:
        raise BadInput(f"model {model!r}: not known; there are ours, {', '.join(MODELS)}")
    return model


def load_baseline_recipe(model: str, path: Path | None = None, **changes: Any) -> BaselineRecipe:
    """The shipped recipe of a model, or `[screener]` of a TOML file. BadInput names an unknown model or key,
    a wrong type, or a file that is for another model.
    """
    where = str(path or f"{_known(model)}.toml")
    if path is None:
        text = resources.files("training").joinpath(f"recipes/{model}.toml").read_text("utf-8")
    else:
        try:
            text = Path(path).read_text("utf-8")
        except OSError as error:
            raise BadInput(
                f"{path}: the recipe cannot be read ({error.strerror}); give a TOML file"
            ) from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{where}: not TOML ({error})") from None
    if not isinstance(table.get("screener"), Mapping):
        raise BadInput(f"{where}: no [screener] table; see training/recipes/{model}.toml")
    default = BaselineRecipe(model=_known(model))
    fields = [f.name for f in dataclasses.fields(BaselineRecipe)]
    values: dict[str, Any] = {}
    for key, value in {**table["screener"], **changes}.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1, 0.0)[0]
            raise BadInput(f'{where}: [screener] {key}: no such key. Did you mean "{near}"?')
        like = getattr(default, key)
        if isinstance(like, tuple) and isinstance(value, list | tuple):
            value = tuple(value)
        elif isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, type(like)) or isinstance(value, bool):
            kind = type(like).__name__
            raise BadInput(f"{where}: [screener] {key} = {value!r}: a {kind} is needed")
        values[key] = value
    recipe = BaselineRecipe(**({"model": model} | values))
    if recipe.model != model:
        raise BadInput(f"{where}: a recipe for {recipe.model}, not for {model}; give --model {recipe.model}")
    for key in ("steps", "batch", "group"):
        if getattr(recipe, key) < 1:
            raise BadInput(f"{where}: [screener] {key} = {getattr(recipe, key)}: at least 1 is needed")
    return recipe


def rotated(recipe: BaselineRecipe, fold: int) -> BaselineRecipe:
    """The recipe with fold `fold` reported: the next one decides, the other three train."""
    if fold not in range(5):
        raise BadInput(f"fold {fold}: there are folds 0 to 4")
    return dataclasses.replace(
        recipe, folds=tuple(sorted((fold + k) % 5 for k in (2, 3, 4))), decide=(fold + 1) % 5
    )


def front_end_name(model: str) -> str:
    """`mel` or `segments`: what `Inputs` must hold for a model."""
    return _NETS[_known(model)][0]


def build(recipe: BaselineRecipe) -> nn.Module:
    """The untrained network of a recipe, its first weights drawn from the seed."""
    torch.manual_seed(recipe.seed)
    make = _NETS[_known(recipe.model)][1]
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


INPUTS_VERSION = 1
"""Raise it when device.screening.baseline_features, or device.dsp.mel, device.listening.presets and
training.data.recordings beneath it, come to give other values for the same files: what is kept is then
computed anew. Other words are no reason.
"""


class Inputs:
    """What the networks of one front end hear of all recordings, computed once and kept in a cache folder.

    front_end: `mel` or `segments`. The values are device.screening.baseline_features' own, bit for bit.
    """

    def __init__(
        self, data: Path, cache: Path, front_end: str, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.front: FrontEnd = FRONT_ENDS[front_end]
        self.recordings = training_data.recordings(data)
        self.hashes = training_data.data_hashes(data)
        key = json.dumps([str(Path(data).resolve()), self.hashes, front_end, INPUTS_VERSION]).encode()
        folder = Path(cache) / f"{front_end}-{hashlib.sha256(key).hexdigest()[:16]}"
        if not (folder / "done").is_file():
            say(
                f"computing what {front_end} networks hear of {len(self.recordings)} recordings into {folder}"
            )
            self._compute(folder)
        self._whole = np.load(folder / "whole.npy", mmap_mode="r")
        starts = np.load(folder / "starts.npy")
        self._place = {r.record: (starts[k], starts[k + 1]) for k, r in enumerate(self.recordings)}

    def _compute(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        found, starts = [], [0]
        for recording in self.recordings:
            found.append(self.front.whole(training_data.load(recording)))
            starts.append(starts[-1] + len(found[-1]))
        np.save(folder / "whole.npy", np.concatenate(found))
        np.save(folder / "starts.npy", np.array(starts))
        (folder / "done").write_text("complete\n")

    def into_memory(self) -> None:
        """Read everything into memory (0.4 GB of mel, 0.15 GB of segments), for training."""
        self._whole = np.array(self._whole)

    def whole(self, record: str) -> np.ndarray:
        """What the windows of a recording share, float16 (m, …)."""
        start, end = self._place[record]
        return self._whole[start:end]

    def count(self, record: str) -> int:
        """Windows of a recording."""
        return self.front.count(self.whole(record))

    def window(self, record: str, index: int) -> np.ndarray:
        """What the network sees of one window, float32 (height, width)."""
        return self.front.window(self.whole(record), index)

    def windows(self, record: str) -> np.ndarray:
        """All windows of a recording, float32 (windows, height, width)."""
        whole = self.whole(record)
        return np.stack([self.front.window(whole, k) for k in range(self.front.count(whole))])


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
        for k in range(r.batch):
            cell = self.cells[int(rng.integers(2))]
            i = cell[int(rng.integers(len(cell)))]
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
    net.eval()
    logits = torch.from_numpy(_float_network(net)(np.stack(x)))
    loss = _loss(logits, torch.tensor(labels), recipe)
    net.train()
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


def train_screener(
    recipe: BaselineRecipe,
    inputs: Inputs,
    chosen: Sequence[Recording],
    *,
    out: Path | None = None,
    windows: Mapping[str, Sequence[int]] | None = None,
    watch: Sequence[Recording] = (),
    weights: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
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
        kept = loop.load(final)
        if kept["key"] == key:
            say(f"{recipe.model}: trained before, nothing has changed")
            return load_screener(final, inputs)
    net = build(recipe)
    if weights is not None:
        _read_weights(net, recipe, Path(weights))
        say(f"{recipe.model}: starts from {weights}")
    elif recipe.model == "resnet18":
        say("resnet18: no file of ImageNet weights given (--weights), so training starts from scratch")
    channels = [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d) and m.out_channels > 2]
    layout = loop.layout_for(channels)
    net = net.to(memory_format=layout)  # type: ignore[call-overload]

    def loss_of(step: int) -> torch.Tensor:
        x, labels = map(torch.from_numpy, drawer.batch(step))
        return _loss(net(x.contiguous(memory_format=layout)), labels, recipe)

    plan = loop.TrainingPlan(
        recipe.steps, recipe.learning_rate, recipe.weight_decay, recipe.seed, every, stop_at=stop_at
    )
    curve = loop.learn(
        net,
        loss_of,
        plan,
        checkpoint=resume,
        key=key,
        told=lambda point: point | _watched(net, recipe, inputs, watch),
        name=recipe.model,
        say=say,
    )
    net = net.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    if final is not None and resume is not None and stop_at is None:
        loop.save(
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


def load_screener_net(path: Path) -> nn.Module:
    """The network alone of a checkpoint, in eval mode. BadInput when there is none."""
    return _read_checkpoint(path)[1]


def load_screener(path: Path, inputs: Inputs) -> Trained:
    """A trained model from its checkpoint. BadInput when there is none."""
    recipe, net, curve = _read_checkpoint(path)
    return Trained(recipe, net, inputs, _float_network(net), curve)


def _read_checkpoint(path: Path) -> tuple[BaselineRecipe, nn.Module, list[dict[str, float]]]:
    torch.set_num_threads(1)
    try:
        kept = loop.load(path)
    except FileNotFoundError:
        raise BadInput(
            f"{path}: not there; run `stethopi train classifier --model {Path(path).stem}` first"
        ) from None
    recipe = BaselineRecipe(**{**kept["recipe"], "folds": tuple(kept["recipe"]["folds"])})
    net = build(recipe)
    net.load_state_dict(kept["net"])
    return recipe, net.eval(), kept["curve"]


def evaluate_screener(trained: Trained, chosen: Sequence[Recording]) -> dict[str, dict[str, float]]:
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


@dataclass(frozen=True)
class Leaky:
    """A split that leaks, as in the publications: for comparison with what they print, and named so."""

    train: dict[str, list[int]]
    """Record → its windows that are trained on."""
    test: dict[str, list[int]]
    """Record → its other windows. Most of these recordings are trained on too."""
    copies: list[str]
    """Recordings that are trained on and scored as if they were a test set."""


def leaky(
    counts: Mapping[str, int], seed: int = 1, test_share: float = 0.2, copies_share: float = 0.1
) -> Leaky:
    """Split windows by chance, whoever they are from. counts: record → how many windows it has.

    copies_share: share of the recordings, all of whose windows stay in training, that serve as "test" once
    more (the 301 recordings of the Challenge 2016's validation folder are copies of training recordings).
    """
    rng = np.random.default_rng([seed, 2016])
    records = sorted(counts)
    copies = sorted(rng.choice(records, max(1, round(copies_share * len(records))), replace=False).tolist())
    kept = set(copies)
    split = Leaky({}, {}, copies)
    for record in records:
        drawn = rng.random(counts[record]) < test_share
        if record in kept:
            drawn[:] = False
        for into, mask in ((split.train, ~drawn), (split.test, drawn)):
            if mask.any():
                into[record] = np.flatnonzero(mask).tolist()
    return split
