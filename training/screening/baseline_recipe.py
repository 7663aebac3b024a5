"""The recipes of the screening networks that ours is compared with, training/recipes/<model>.toml."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device.errors import BadInput
from training.core.recipe import load_settings, read, shipped

__all__ = [
    "SCREENING_BASELINES",
    "BaselineRecipe",
    "front_end_name",
    "known_baseline",
    "load_baseline_recipe",
    "rotated",
]

FRONT_END_OF = {
    "cnn1d": "segments",
    "melcnn": "mel",
    "melcnn-light": "mel",
    "melcnn-attention": "mel",
    "resnet18": "mel",
}

SCREENING_BASELINES = tuple(FRONT_END_OF)
"""The screening networks beside ours, which training.screening.train trains."""


@dataclass(frozen=True)
class BaselineRecipe:
    """Everything that decides the weights, beside the data and the recordings chosen. A TOML file's
    `[baseline]` holds what differs from this.
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


def known_baseline(model: str) -> str:
    if model not in FRONT_END_OF:
        raise BadInput(f"model {model!r}: not known; there are ours, {', '.join(SCREENING_BASELINES)}")
    return model


def load_baseline_recipe(model: str, path: Path | None = None, **changes: Any) -> BaselineRecipe:
    """The shipped recipe of a model, or `[baseline]` of a TOML file. BadInput names an unknown model or key,
    a wrong type, or a file that is for another model.
    """
    path = path or shipped(known_baseline(model))
    if "baseline" not in read(path):
        raise BadInput(
            f"{path}: no [baseline] table, which up to 0.3.0 was called [screener]; see"
            f" training/recipes/{model}.toml"
        )
    recipe = load_settings(BaselineRecipe, path, "baseline", **({"model": model} | changes))
    where = str(path)
    if recipe.model != model:
        raise BadInput(f"{where}: a recipe for {recipe.model}, not for {model}; give --model {recipe.model}")
    for key in ("steps", "batch", "group"):
        if getattr(recipe, key) < 1:
            raise BadInput(f"{where}: [baseline] {key} = {getattr(recipe, key)}: at least 1 is needed")
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
    return FRONT_END_OF[known_baseline(model)]
