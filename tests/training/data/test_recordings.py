"""What is learned from is read as its folders say."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from device.errors import BadInput
from training.data import recordings as data


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
        csv.writer(file).writerow(["8_AV", "8", "8", "AV", "absent", "no", "normal", "2", "2.0", "x"])
    after = data.data_hashes(compact)
    assert {key for key in before if before[key] != after[key]} == {"circor2022/index.csv"}


def test_a_folder_without_recordings_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no recordings; --data takes"):
        data.recordings(tmp_path)


def test_a_missing_sound_is_told(compact: Path) -> None:
    with pytest.raises(BadInput, match="7_AV.flac: cannot be read"):
        data.load(data.recordings(compact)[2])


def wav(path: Path, seconds: float = 2.0, rate: int = 2000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(int(seconds * rate)), rate)


def test_the_challenges_own_folders(tmp_path: Path) -> None:
    folder = tmp_path / "physionet2016" / "training-b"
    wav(folder / "b0001.wav")
    wav(folder / "b0002.wav", 3.0)
    (folder / "REFERENCE.csv").write_text("b0001,1\nb0002,-1\n")
    one, two = data.recordings(tmp_path)
    assert (one.database, one.label, one.quality, one.seconds) == ("b", "abnormal", "unknown", 2.0)
    assert (two.label, two.seconds) == ("normal", 3.0)
    (folder / "REFERENCE-SQI.csv").write_text("b0001,1,0\nb0002,-1,1\n")
    assert [r.quality for r in data.recordings(tmp_path)] == ["poor", "good"]
    assert data.load(two).shape == (6000,)


def test_circors_own_layout(tmp_path: Path) -> None:
    root = tmp_path / "circor2022"
    for name in ("7_AV", "7_MV", "9_PV"):
        wav(root / "training_data" / f"{name}.wav", 2.0, 4000)
    (root / "training_data" / "7_AV.tsv").write_text("0\t0.5\t0\n0.5\t0.6\t1\n")
    table(
        root / "training_data.csv",
        "Patient ID,Murmur,Murmur locations,Outcome,Additional ID",
        "7,Present,MV+PV,Abnormal,nan".replace("nan", ""),
        "9,Unknown,nan,Normal,7.0",
    )
    av, mv, pv = data.recordings(tmp_path)
    assert (av.murmur_here, mv.murmur_here, pv.murmur_here) == ("no", "yes", "unknown")
    assert (av.label, pv.label) == ("abnormal", "normal")
    # one child, two campaigns
    assert av.group == pv.group and av.fold == pv.fold
    assert data.load(av).shape == (4000,)
    assert data.states(tmp_path)["7_AV"] == [(0.0, 0.5, "unannotated"), (0.5, 0.6, "S1")]


def test_own_recordings_by_an_index(tmp_path: Path) -> None:
    own = tmp_path / "clinic"
    for name in ("one.wav", "sub/two.wav", "three.wav"):
        wav(own / name)
    rows = ("one.wav,normal,p1,,", "sub/two.wav,abnormal,p1,,yes", "three.wav,,p2,0,")
    table(own / "index.csv", "file,label,subject,fold,murmur", *rows)
    one, two, three = data.recordings(own)
    assert (one.database, one.group, one.label, one.murmur_here) == ("clinic", "clinic_p1", "normal", None)
    assert (two.label, two.murmur_here, two.fold) == ("abnormal", "yes", one.fold)
    assert (three.label, three.fold) == (None, 0)
    before = data.data_hashes(own)
    wav(own / "one.wav", 4.0)
    assert data.data_hashes(own) != before


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("one.wav,sick,p1,0,", "line 2: label 'sick'; use normal, abnormal"),
        ("one.wav,normal,p1,7,", "line 2: fold '7'"),
        ("one.wav,normal,p1,0,maybe", "line 2: murmur 'maybe'"),
        ("none.wav,normal,p1,0,", "none.wav: cannot be read"),
    ],
)
def test_a_wrong_line_of_an_own_index_is_told(tmp_path: Path, row: str, words: str) -> None:
    wav(tmp_path / "one.wav")
    table(tmp_path / "index.csv", "file,label,subject,fold,murmur", row)
    with pytest.raises(BadInput, match=words):
        data.recordings(tmp_path)


def test_an_index_without_subjects_is_told(tmp_path: Path) -> None:
    table(tmp_path / "index.csv", "file,label", "one.wav,normal")
    with pytest.raises(BadInput, match="no column subject"):
        data.recordings(tmp_path)
