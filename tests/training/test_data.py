"""What is learned from is read as its folders say."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from device.errors import BadInput
from training import data


def table(path: Path, head: str, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *rows]) + "\n")


@pytest.fixture
def compact(tmp_path: Path) -> Path:
    root = tmp_path / "physionet2016"
    table(
        root / "index.csv",
        "record,database,label,quality,subject,group,subject_basis,diagnosis,fold,seconds,sha256",
        "a1,a,abnormal,good,s1,a_s1,session,MVP,0,3.0,x",
        "e9,e,normal,unknown,,e_unlisted,unknown,,2,2.0,x",
    )
    table(root / "states.csv", "record,start_s,state", "a1,0.000,S2", "a1,0.100,diastole", "a1,0.500,noise")
    table(root / "noise_spans.csv", "record,start_s,end_s", "a1,0.500,3.000")
    root = tmp_path / "circor2022"
    table(
        root / "index.csv",
        "record,patient,group,position,murmur,murmur_here,outcome,fold,seconds,sha256",
        "7_AV,7,7,AV,present,no,abnormal,1,2.5,x",
    )
    table(root / "states.csv", "record,start_s,end_s,state", "7_AV,0.0,0.2,S1", "7_AV,0.2,0.5,unannotated")
    root = tmp_path / "noise"
    table(
        root / "index.csv",
        "file,kind,noncommercial,seconds,part",
        "breath/one.flac,breath,no,1.0,train",
        "breath/two.flac,breath,unknown,1.0,test",
    )
    (root / "breath").mkdir()
    for folder in ("physionet2016", "circor2022"):
        (tmp_path / folder / "audio").mkdir()
    soundfile.write(tmp_path / "physionet2016" / "audio" / "a1.flac", np.linspace(-0.5, 0.5, 6000), 2000)
    t = np.arange(4000) / 4000
    soundfile.write(root / "breath" / "one.flac", 0.5 * np.sin(2 * np.pi * 100 * t), 4000)
    return tmp_path


def test_recordings_carry_what_the_index_says(compact: Path) -> None:
    a, e, circor = data.recordings(compact)
    assert (a.record, a.database, a.label, a.quality, a.group, a.fold) == (
        "a1",
        "a",
        "abnormal",
        "good",
        "a_s1",
        0,
    )
    assert (a.murmur_here, a.meta["diagnosis"]) == (None, "MVP")
    assert (circor.database, circor.label, circor.murmur_here, circor.fold) == ("circor", "abnormal", "no", 1)
    assert (a.reportable, e.reportable, circor.reportable) == (True, False, True)
    # patients of one source are not those of another, even under one number
    assert circor.group == "circor_7"


def test_sound_is_float_at_2_khz(compact: Path) -> None:
    x = data.load(data.recordings(compact)[0])
    assert (x.dtype, x.shape) == (np.float32, (6000,))
    assert x[0] == pytest.approx(-0.5, abs=1e-3)


def test_states_last_until_the_next_and_the_last_to_the_end(compact: Path) -> None:
    states = data.states(compact)
    assert states["a1"] == [(0.0, 0.1, "S2"), (0.1, 0.5, "diastole"), (0.5, 3.0, "noise")]
    assert states["7_AV"] == [(0.0, 0.2, "S1"), (0.2, 0.5, "unannotated")]
    assert data.noise_spans(compact) == {"a1": [(0.5, 3.0)]}


def test_noise_says_whether_it_is_free_and_is_resampled(compact: Path) -> None:
    one, two = data.noises(compact)
    assert (one.free, one.part, two.free, two.part) == (True, "train", False, "test")
    x = data.load_noise(one)
    assert x.shape == (2000,)
    spectrum = np.abs(np.fft.rfft(x))
    assert spectrum.argmax() == 100


def test_hashes_change_with_the_index(compact: Path) -> None:
    before = data.data_hashes(compact)
    assert "physionet2016/index.csv" in before
    with (compact / "circor2022" / "index.csv").open("a", newline="") as file:
        csv.writer(file).writerow(["8_AV"] * 10)
    after = data.data_hashes(compact)
    assert {key for key in before if before[key] != after[key]} == {"circor2022/index.csv"}


def test_a_folder_without_recordings_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no recordings; --data takes"):
        data.recordings(tmp_path)


def test_a_missing_sound_is_told(compact: Path) -> None:
    with pytest.raises(BadInput, match="7_AV.flac: cannot be read"):
        data.load(data.recordings(compact)[2])
