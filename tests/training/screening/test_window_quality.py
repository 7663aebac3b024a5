"""Windows judged once give every network the logits that the device's screening gives it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training import folders
from tests.training.rewritten import rewrite

pytestmark = pytest.mark.train


def test_a_network_hears_what_the_device_hears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from device.inference import bundle
    from device.screening import features
    from models.classifier import Classifier
    from training.screening.candidates import torch_network
    from training.screening.corpus import Corpus
    from training.screening.operating_point import screen_logits
    from training.screening.window_quality import HeardWindows, batched, one_by_one

    data = folders.make(tmp_path / "data", per_fold=1, seconds=6.0)
    entry = bundle.load().model("classifier")
    view = features.View.of(entry.meta)
    torch.manual_seed(3)
    net = Classifier((8,) * 7, view=view).eval()
    net.state_head = None
    corpus = Corpus(data, tmp_path / "cache")
    heard = HeardWindows(data, tmp_path / "cache", entry)
    chosen = corpus.recordings[::2]
    wanted = screen_logits(chosen, entry, torch_network(net))
    assert np.isfinite(wanted).all() and wanted.std() > 0
    np.testing.assert_allclose(heard.logits(corpus, chosen, view, batched(net)), wanted, atol=1e-5)
    single = one_by_one(torch_network(net))
    np.testing.assert_allclose(heard.logits(corpus, chosen, view, single), wanted, atol=1e-5)
    # the windows were kept: nothing is judged a second time
    monkeypatch.setattr("device.screening.screen.screen_recording", lambda *_, **__: 1 / 0)
    again = HeardWindows(data, tmp_path / "cache", entry)
    starts, scores = again.windows(chosen[0].record)
    assert starts.tolist() == [0, features.FRAMES_EVERY] and ((scores >= 0) & (scores <= 1)).all()


def test_judged_windows_outlive_a_rename_but_not_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from device.inference import bundle
    from training.screening import window_quality as heard

    data = folders.make(tmp_path / "data", per_fold=1, seconds=6.0)
    entry, cache = bundle.load().model("classifier"), tmp_path / "cache"

    def kept() -> list[str]:
        heard.HeardWindows(data, cache, entry)
        return sorted(path.name for path in cache.iterdir())

    once = kept()
    rewrite(monkeypatch, tmp_path)
    assert kept() == once and len(once) == 1
    monkeypatch.setattr(heard, "JUDGED_VERSION", heard.JUDGED_VERSION + 1)
    assert len(kept()) == 2
    entry = dataclasses.replace(entry, arrays={k: 1.01 * v for k, v in entry.arrays.items()})
    assert len(kept()) == 3, "another judge"
