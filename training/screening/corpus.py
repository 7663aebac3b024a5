"""The recordings as the screening network learns from them: features, labels, states."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from device.rates import WORKING_RATE_HZ
from device.screening import features
from models.classifier import STATES
from training.core.results import write_text
from training.core.say import Say
from training.data import recordings as training_data
from training.data.recordings import Recording
from training.screening.recipe import Recipe

__all__ = ["Corpus", "targets"]


UNKNOWN = 255


def _frame_states(spans: Sequence[tuple[float, float, str]], count: int, period_s: float) -> np.ndarray:
    """State of each frame's middle, uint8 (count,); UNKNOWN where noise, unannotated or beyond. The sound
    of a short recording repeats, and so do its states: `period_s` is its own length.
    """
    codes = np.full(count, UNKNOWN, np.uint8)
    middle = (np.arange(count) * features.FRAME_HOP + features.FRAME / 2) / WORKING_RATE_HZ % period_s
    for start, end, state in spans:
        if state in STATES:
            codes[(middle >= start) & (middle < end)] = STATES.index(state)
    return codes


FEATURES_VERSION = 1
"""Raise it when device.dsp.mel, device.screening.features or training.data.recordings come to give other band
powers, states or recordings for the same files: what is kept is then computed anew. Other words for the same
are no reason.
"""


class Corpus:
    """All recordings with their band powers and states, computed once and kept in a cache folder.

    `power(i)`: float32 (frames, 32) of recording i, at least a window long; `states(i)`: uint8 (frames,).
    """

    def __init__(self, data: Path, cache: Path, say: Say = lambda text: None) -> None:
        self.recordings: list[Recording] = training_data.recordings(data)
        self.noises = [n for n in training_data.noises(data) if n.free and n.part == "train"]
        self.hashes = training_data.data_hashes(data)
        said = [str(Path(data).resolve()), self.hashes, repr(features.GRID), FEATURES_VERSION]
        key = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]
        folder = cache / f"features-{key}"
        if not (folder / "done").is_file():
            say(f"computing features of {len(self.recordings)} recordings into {folder}")
            self._compute(data, folder)
        self._power = np.load(folder / "power.npy", mmap_mode="r")
        self._states = np.load(folder / "states.npy")
        self._starts = np.load(folder / "starts.npy")
        self._noise_power = np.load(folder / "noise_power.npy")
        self._noise_starts = np.load(folder / "noise_starts.npy")

    def _compute(self, data: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        spans = training_data.states(data)
        power, codes, starts = [], [], [0]
        for recording in self.recordings:
            x = training_data.load(recording)
            frames = features.screening_frames_of(features.at_least_a_window(x))
            power.append(frames)
            codes.append(
                _frame_states(spans.get(recording.record, ()), len(frames), len(x) / WORKING_RATE_HZ)
            )
            starts.append(starts[-1] + len(frames))
        noise, noise_starts = [], [0]
        for item in self.noises:
            frames = features.screening_frames_of(features.at_least_a_window(training_data.load_noise(item)))
            noise.append(frames)
            noise_starts.append(noise_starts[-1] + len(frames))
        empty = np.zeros((0, features.BANDS), np.float32)
        np.save(folder / "power.npy", np.concatenate(power))
        np.save(folder / "states.npy", np.concatenate(codes))
        np.save(folder / "starts.npy", np.array(starts))
        np.save(folder / "noise_power.npy", np.concatenate([empty, *noise]))
        np.save(folder / "noise_starts.npy", np.array(noise_starts))
        write_text(folder / "done", "complete\n")

    def into_memory(self) -> None:
        """Read all band powers into memory (0.4 GB for both corpora), for training."""
        self._power = np.array(self._power)

    def power(self, index: int) -> np.ndarray:
        return self._power[self._starts[index] : self._starts[index + 1]]

    def states(self, index: int) -> np.ndarray:
        return self._states[self._starts[index] : self._starts[index + 1]]

    def noise(self, index: int) -> np.ndarray:
        return self._noise_power[self._noise_starts[index] : self._noise_starts[index + 1]]


def targets(recording: Recording, recipe: Recipe) -> tuple[float, float, float, float]:
    """(murmur, its weight, abnormal, its weight) of a recording; weight 0 where nothing is known."""
    murmur, murmur_weight = 0.0, 0.0
    if recording.murmur_here in ("yes", "no"):
        murmur, murmur_weight = float(recording.murmur_here == "yes"), 1.0
    elif recording.murmur_here is None and recording.label == "normal":
        murmur_weight = recipe.no_murmur_weight
    abnormal, abnormal_weight = float(recording.label == "abnormal"), float(recording.label is not None)
    if recording.murmur_here is not None:
        # a murmur that is heard there is a finding, whatever the outcome was; an outcome without one is
        # hearsay
        if recording.murmur_here == "yes":
            abnormal = 1.0
        elif recording.murmur_here == "unknown":
            abnormal_weight = 0.0
        else:
            abnormal_weight *= recipe.outcome_weight if abnormal else 1.0
    return murmur, murmur_weight, abnormal, abnormal_weight


def told(labels: np.ndarray, taught: np.ndarray) -> np.ndarray:
    """Labels (n, 4) as of `targets`, with a teacher's probabilities (n, 2) of murmur and of abnormal, at half
    the weight, where nothing is noted; where the teacher heard nothing either (nan) all stays.
    """
    labels = labels.copy()
    for head in (0, 1):
        unknown = (labels[:, 2 * head + 1] == 0) & ~np.isnan(taught[:, head])
        labels[unknown, 2 * head] = taught[unknown, head]
        labels[unknown, 2 * head + 1] = 0.5
    return labels
