"""The ways to let the classifier hear cleaned sound, and how they are compared."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from device.inference import bundle as bundles
from device.screening.screen import Int8Network, screen_recording
from device.settings.specs import HeartSettings
from device.sources.synthetic import synthesise
from training.benchmarks.classifier_input import compare_inputs, hear_each_way, main
from training.reports.classifier_input import INPUT_NAMES, inputs_table


def _recordings(n: int) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(
            group=f"s{k // 2}",
            label="abnormal" if k % 2 else "normal",
            murmur_here="yes" if k % 2 else "no",
            database="circor",
        )
        for k in range(n)
    ]


def test_what_cleaned_sound_brings_is_found_and_what_changes_nothing_is_not() -> None:
    rng = np.random.default_rng(1)
    said = []
    for k in range(60):
        truth = k % 2
        raw = float(np.clip(0.5 + 0.1 * (truth - 0.5) + 0.3 * rng.standard_normal(), 0, 1))
        better = 0.9 if truth else 0.1
        said.append(
            {
                "raw": (raw, raw),
                "cleaned": (better, better),
                **{way: (raw, raw) for way in INPUT_NAMES if way != "cleaned"},
            }
        )
    found = compare_inputs(said, _recordings(60), 0.5, 1)
    assert (found["recordings"], found["subjects"]) == (60, 30)
    assert found["ways"]["cleaned"]["macc"]["one"]["value"] == 1.0
    assert found["ways"]["cleaned"]["macc"]["difference"]["low"] > 0
    assert found["ways"]["cleaned"]["murmur_auc"]["difference"]["low"] > 0
    assert found["ways"]["mean"]["macc"]["difference"]["value"] == 0
    text = inputs_table(found)
    assert text.count("\n") == 8
    assert "+0.000 [+0.000, +0.000]" in text


def test_each_way_is_heard_through_the_devices_own_stages() -> None:
    bundle = bundles.load()
    network = Int8Network(bundle.model("classifier"))
    x = synthesise(HeartSettings(noise_db=0, seed=3, rate_hz=2000), 8.0).samples
    found = hear_each_way(bundle, network, x)
    alone = screen_recording(x, bundle.model("classifier"), network=network)
    assert found["raw"] == (alone.probability, alone.murmur)
    assert set(found) == {"raw", *INPUT_NAMES}
    between = sorted((found["raw"][0], found["cleaned"][0]))
    assert between[0] <= found["mean"][0] <= between[1]
    assert found["better"] in (found["raw"], found["cleaned"])


def test_each_so_many_th_must_be_one_or_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--every", "0", "--results", str(tmp_path)]) == 2
    assert "--every 0" in capsys.readouterr().err
