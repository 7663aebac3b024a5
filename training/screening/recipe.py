"""The recipe of the screening network."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device.screening import features
from training.core.recipe import load_settings, shipped

__all__ = ["Recipe", "load_recipe"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, beside the data. A TOML file's `[classifier]` holds what
    differs.
    """

    seed: int = 1
    steps: int = 4000
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    channels: tuple[int, ...] = (16, 24, 32, 32, 48, 64, 64)
    dropout: float = 0.2
    average: float = 0.998
    """Decay of the running mean of the weights, which is what is kept."""
    folds: tuple[int, ...] = (2, 3, 4)
    decide: int = 1
    hold_out: tuple[str, ...] = ()
    """Databases left out altogether."""
    shares: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {
            "circor": 0.45,
            "a": 0.2,
            "b": 0.08,
            "c": 0.03,
            "d": 0.04,
            "e": 0.1,
            "f": 0.1,
        }
    )
    """Share of the draws by database; databases not named here get 0.1."""
    label_smoothing: float = 0.05
    murmur_weight: float = 1.0
    abnormal_weight: float = 1.0
    state_weight: float = 0.3
    outcome_weight: float = 0.15
    """Weight of CirCor's outcome as a label of abnormal where no murmur is heard: it is mostly not audible.
    """
    synthetic_murmur: float = 0.3
    """Share of the draws without a finding that get a murmur put in: the same heart and microphone, one with
    and one without, so that nothing but the murmur tells them apart.
    """
    extra_sounds: float = 0.0
    """Share of the draws without a finding that get a low sound put into each diastole: a third or a fourth
    heart sound, or a rumble. They are abnormal; whether there is a murmur is not asked."""
    no_murmur_weight: float = 0.5
    """Weight of "no murmur" for recordings of normal hearts where nobody noted murmurs."""
    noise_share: float = 0.4
    noise_snr_db: tuple[float, float] = (-3.0, 20.0)
    floor_share: float = 0.4
    floor_db: tuple[float, float] = (-45.0, -8.0)
    filter_db: float = 8.0
    low_cut: float = 0.0
    """Share of the draws whose lowest one to four bands are taken away, as by a chest piece that does not
    pass them."""
    bands: int = features.BANDS
    """So many of the 32 bands, from the lowest up, are heard at all."""
    range_db: float = 0.0
    """A floor so far under each band's loud frames is put beneath every window; 0: none."""
    stretch: tuple[float, float] = (0.8, 1.3)
    shift_bands: float = 1.5
    time_masks: int = 2
    time_mask_frames: int = 20
    band_masks: int = 1
    band_mask_bands: int = 4
    mixup: float = 0.0
    prune_ratio: float = 0.25
    finetune_steps: int = 1000
    finetune_learning_rate: float = 1e-3
    int8_db: float = 12.0
    """Least signal over quantisation error of the logits that export accepts."""
    murmur_share: float = 0.0
    """Share of the murmur logit in the score of abnormal; the rest is the abnormal logit's."""
    undecided: float = 0.02
    """Recordings whose probability is this close to the threshold are `unsure`."""

    @property
    def view(self) -> features.View:
        return features.View(self.bands, self.range_db)

    def digest(self) -> str:
        """Hash of all values, so that a changed recipe is not taken for a finished one."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_recipe(path: Path | None = None, **changes: Any) -> Recipe:
    """The shipped recipe, or `[classifier]` of a file, with some keys changed. BadInput names wrong ones."""
    return load_settings(Recipe, path or shipped("classifier"), "classifier", **changes)
