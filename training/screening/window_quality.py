"""Which windows of a recording count, found once and kept: the quality of every window of all recordings.

The quality of a window does not depend on the network that screens it. So many networks can be scored on the
same recordings (training.benchmarks.screening_units) without judging the sound anew for each: what they
give is what `training.screening.operating_point.screen_logits` gives, from the band powers that training
keeps anyway.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from device.inference.bundle import ModelEntry
from device.screening import features, quality, screen
from training.core.results import write_arrays
from training.core.say import Say
from training.data import recordings as training_data
from training.data.recordings import Recording
from training.screening.corpus import Corpus

__all__ = ["HeardWindows", "batched", "one_by_one"]

JUDGED_VERSION = 1
"""Raise it when device.screening.quality or device.screening.screen come to judge the same sound differently,
or to take other windows of it: all are then judged anew. Other words for the same are no reason."""


class HeardWindows:
    """The windows of all recordings on the device's grid, with the bundle's judgement of their quality.

    `starts`, `scores`: of a recording's windows that are not silent, the first frame and the quality.
    """

    def __init__(self, data: Path, cache: Path, entry: ModelEntry, say: Say = lambda text: None) -> None:
        recordings = training_data.recordings(data)
        hashes = training_data.data_hashes(data)
        said = hashlib.sha256(json.dumps([str(Path(data).resolve()), hashes]).encode())
        said.update(json.dumps([repr(features.GRID), JUDGED_VERSION]).encode())
        for name in sorted(entry.arrays):
            said.update(name.encode() + np.ascontiguousarray(entry.arrays[name]).tobytes())
        file = Path(cache) / f"heard-{said.hexdigest()[:16]}.npz"
        if not file.is_file():
            say(f"judging the windows of {len(recordings)} recordings into {file}, once")
            self._judge(recordings, entry, file)
        with np.load(file) as kept:
            ends, self._starts, self._scores = kept["ends"], kept["starts"], kept["scores"]
        begins = [0, *ends[:-1].tolist()]
        self._place = {r.record: slice(a, int(b)) for r, a, b in zip(recordings, begins, ends, strict=True)}

    @staticmethod
    def _judge(recordings: Sequence[Recording], entry: ModelEntry, file: Path) -> None:
        starts: list[int] = []
        scores: list[float] = []
        ends: list[int] = []
        nothing = np.zeros(2, np.float32)
        for recording in recordings:
            x = training_data.load(recording)
            for window in screen.screen_recording(x, entry, network=lambda _: nothing).windows:
                if window.probability is not None:
                    starts.append(window.start // features.FRAME_HOP)
                    scores.append(window.quality)
            ends.append(len(starts))
        write_arrays(
            file, {"ends": np.array(ends), "starts": np.array(starts, np.int32), "scores": np.array(scores)}
        )

    def windows(self, record: str) -> tuple[np.ndarray, np.ndarray]:
        """(first frame, quality) of each window of a recording that is not silent."""
        place = self._place[record]
        return self._starts[place], self._scores[place]

    def counting(self, record: str) -> np.ndarray:
        """First frames of the windows that count: the good ones, or all where none is good."""
        starts, scores = self.windows(record)
        good = starts[scores >= quality.GOOD]
        return good if len(good) else starts

    def inputs(self, corpus: Corpus, index: int, starts: np.ndarray, view: features.View) -> np.ndarray:
        """What a network sees of these windows of recording `index`, float32 (windows, bands, 248)."""
        power = corpus.power(index)
        seen = [features.network_input(power[s : s + features.FRAMES], view) for s in starts.tolist()]
        return np.stack(seen) if seen else np.zeros((0, view.bands, features.FRAMES), np.float32)

    def logits(
        self,
        corpus: Corpus,
        chosen: Sequence[Recording],
        view: features.View,
        network: Callable[[np.ndarray], np.ndarray],
    ) -> np.ndarray:
        """Mean logits of the windows that count, float64 (recordings, 2); nan where nothing is heard.

        network: float32 (windows, bands, 248) → (windows, 2).
        """
        index = {r.record: i for i, r in enumerate(corpus.recordings)}
        rows = np.full((len(chosen), 2), np.nan)
        for k, recording in enumerate(chosen):
            i = index[recording.record]
            x = self.inputs(corpus, i, self.counting(recording.record), view)
            if len(x):
                rows[k] = network(x).astype(np.float64).mean(axis=0)
        return rows


def batched(net: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """A net of models.classifier for `HeardWindows.logits`."""

    def run(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(x)[:, None]).numpy()

    return run


def one_by_one(network: screen.Network) -> Callable[[np.ndarray], np.ndarray]:
    """An int8 network for `HeardWindows.logits`."""
    return lambda x: np.stack([network(row) for row in x])
