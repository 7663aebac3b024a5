"""The check of sound and ECG on recordings made up in the layout of database a."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from device.settings.specs import HeartSettings
from device.sources.synthetic import Heart
from tests.device.leads import beating
from training.benchmarks import alignment as benchmark_alignment


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two synthetic hearts with their leads; R comes 40 ms before the onset of S1."""
    folder = tmp_path / "data" / "physionet2016"
    (folder / "audio").mkdir(parents=True)
    ecgs, index, states = [], ["record,start_sample,samples"], ["record,start_s,state"]
    for n, name in enumerate(("a0001", "a0002")):
        heart = Heart(HeartSettings(rate=70 + 5 * n, seed=n, noise_db=40))
        sound = np.concatenate([heart.render(2000 * s, 2000) for s in range(20)])
        soundfile.write(folder / "audio" / f"{name}.flac", sound, 2000)
        ecg, _ = beating(20.0, 500, 0.01, 70 + 5 * n, seed=n)
        ecgs.append(np.rint(ecg * 1000).astype(np.int16))
        index.append(f"{name},{10000 * n},10000")
        states += [f"{name},{a:.4f},{state}" for a, _, state in heart.states(0.0, 20.0)]
    soundfile.write(folder / "ecg_a.flac", np.concatenate(ecgs), 500, subtype="PCM_16")
    (folder / "ecg_index.csv").write_text("\n".join(index) + "\n")
    (folder / "index.csv").write_text("record,seconds\na0001,20.0\na0002,20.0\n")
    (folder / "states.csv").write_text("\n".join(states) + "\n")
    return tmp_path / "data"


def test_the_delay_from_r_to_s1_is_found_and_wrong_clocks_change_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark_alignment, "data_hashes", lambda folder: {})
    code = benchmark_alignment.main(["--data", str(data), "--results", str(tmp_path), "--simulate", "1"])
    assert code == 0
    found = json.loads((tmp_path / "ecg-alignment.json").read_text())
    assert found["recordings"] == 2
    assert found["r_to_s1_by_states_ms"]["median"] == pytest.approx(40, abs=4)
    assert 25 < found["r_to_s1_by_sound_ms"]["median"] < 75
    assert found["halves_apart_ms"]["p95"] < 5
    assert [clock["sound_ppm"] for clock in found["clocks"]] == [0.0, 200.0, -200.0]
    assert all(clock["error_ms_worst"] < 5 for clock in found["clocks"])
    assert found["clocks"][1]["drift_ppm"]["median"] == pytest.approx(-400, abs=20)


def test_data_without_an_ecg_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark_alignment.main(["--data", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "ecg_index.csv: is not there; give the folder" in said
