"""What the screening networks beside ours hear of all recordings, computed once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from device.screening.baseline_features import FRONT_ENDS, FrontEnd
from training.core.results import write_text
from training.core.say import Say
from training.data import recordings as training_data

__all__ = ["Inputs"]

INPUTS_VERSION = 1
"""Raise it when device.screening.baseline_features, or device.dsp.mel, device.listening.presets and
training.data.recordings beneath it, come to give other values for the same files: what is kept is then
computed anew. Other words are no reason.
"""


class Inputs:
    """What the networks of one front end hear of all recordings, computed once and kept in a cache folder.

    front_end: `mel` or `segments`. The values are device.screening.baseline_features' own, bit for bit.
    """

    def __init__(self, data: Path, cache: Path, front_end: str, say: Say = lambda text: None) -> None:
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
        write_text(folder / "done", "complete\n")

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
