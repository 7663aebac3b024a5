"""`stethopi denoise --kind ecg`: each kind into itself, aligned to the sample, and what cannot be had."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from device.ecg.files import read_ecg, write_ecg
from device.sources.files import write_sound
from host import cli
from host.files import batch as offline
from tests.device.leads import Through, beating, write_record


@pytest.fixture(autouse=True)
def through(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle whose ECG model changes nothing, not even the baseline."""
    entry = SimpleNamespace(name="ecg", tflite=Path("ecg.tflite"))
    real = offline._model
    monkeypatch.setattr(offline, "_model", lambda b, name: entry if name == "ecg" else real(b, name))
    monkeypatch.setattr("device.ecg.track.open_cleaner", lambda entry, strength=1.0: Holding())


class Holding(Through):
    """As the real one: what is no number holds the last value."""

    def process(self, x: np.ndarray) -> np.ndarray:
        return super().process(np.nan_to_num(x))


def run(*arguments: Any) -> int:
    return cli.main(["denoise", "--kind", "ecg", *map(str, arguments)])


def table(path: Path, x: np.ndarray, rate_hz: int) -> Path:
    rows = ["time,ecg_mV", *(f"{n / rate_hz:.5f},{v:.5f}" for n, v in enumerate(x))]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("rate_hz", [100, 250, 360, 500, 1000])
@pytest.mark.parametrize("kind", ["record", "wav", "flac", "csv"])
def test_out_is_of_ins_kind_rate_length_and_alignment(tmp_path: Path, kind: str, rate_hz: int) -> None:
    x, _ = beating(6.01, rate_hz, noise_mv=0.0)
    if kind == "record":
        write_record(tmp_path, "in", [x, -x], rate_hz)
        source, target = tmp_path / "in", tmp_path / "out"
    elif kind == "csv":
        source, target = table(tmp_path / "in.csv", x, rate_hz), tmp_path / "out.csv"
    else:
        source, target = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
        write_sound(source, x / 5, rate_hz)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert run(source, target) == 0
    found = read_ecg(target)
    assert (found.rate_hz, found.samples, found.kind) == (rate_hz, len(x), read_ecg(source).kind)
    for n, lead in enumerate(found.leads):
        wanted = -x if n else x
        # what passes through 360 Hz comes back; a beat is 1 mV high, its flanks 90 mV/s steep
        inside = slice(rate_hz // 2, -rate_hz // 2)
        assert np.abs(lead.samples - wanted)[inside].max() < (0.02 if rate_hz > 100 else 0.09)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before, "inputs are never changed"


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    x, _ = beating(12.0)
    write_record(tmp_path, "in", [x])
    assert run(tmp_path / "in.hea", tmp_path / "out", "--plot", tmp_path / "p.png") == 0
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"


def test_a_folder_into_a_folder_and_one_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, _ = beating(4.0)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    write_record(tmp_path / "in", "a", [x])
    table(tmp_path / "in" / "sub" / "b.csv", x, 360)
    (tmp_path / "in" / "splits.csv").write_text("record,part\na,train\nb,test\n")
    assert run(tmp_path / "in", tmp_path / "out", "--processes", 1) == 2
    made = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert made == ["a.dat", "a.hea", "sub/b.csv"]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "splits.csv: holds no table of numbers" in said


def test_what_is_no_ecg_stays_as_it_was_and_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, _ = beating(10.0)
    x[1000:1500] = 5.0  # lead off: the end of the range
    x[2000:2600] = 0.25  # flat
    write_sound(tmp_path / "in.wav", x / 5, 360)
    assert run(tmp_path / "in.wav", tmp_path / "out.wav") == 0
    said = capsys.readouterr().err
    assert "lead off for 1.4 s, first at 2.8 s; left as it is, nothing is invented" in said
    assert "flat line for 1.7 s, first at 5.6 s" in said
    before, after = (read_ecg(tmp_path / f"{n}.wav").leads[0].samples for n in ("in", "out"))
    assert (after[1000:1500] == before[1000:1500]).all() and (after[2001:2600] == before[2001:2600]).all()


def test_one_lead_that_is_none_is_handed_on_beside_a_good_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, _ = beating(5.0)
    write_record(tmp_path, "in", [x, np.zeros_like(x)])
    assert run(tmp_path / "in", tmp_path / "out") == 0
    assert "lead 2: is a flat line" in capsys.readouterr().err
    assert not read_ecg(tmp_path / "out").leads[1].samples.any()


def no_numbers(folder: Path) -> Path:
    (folder / "in.csv").write_text("t,mV\n" + "".join(f"{n / 250:.3f},nan\n" for n in range(1000)))
    return folder / "in.csv"


def a_record(x: np.ndarray, rate_hz: int = 360, without: str = "") -> Any:
    def make(folder: Path) -> Path:
        write_record(folder, "in", [x.astype(np.float32)], rate_hz)
        if without:
            (folder / without).unlink()
        return folder / "in"

    return make


GOOD = beating(5.0)[0]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "100", "no such record"),
        (a_record(GOOD, without="in.dat"), "names in.dat, which is not there; copy it there"),
        (a_record(GOOD, 8000), "rate of 8000 Hz is not from 100 to 1000 Hz; resample it"),
        (no_numbers, "holds no numbers (NaN) to speak of; export it again"),
        (a_record(np.full(1800, 0.4)), "is a flat line: nothing was connected"),
        (a_record(np.full(1800, 10.235)), "the lead was off: it lies at the end of its range"),
    ],
    ids=["no record", "no dat", "rate", "NaN", "flat", "lead off"],
)
def test_bad_input_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any, said: str
) -> None:
    source = make(tmp_path)
    assert run(source, tmp_path / f"out{source.suffix}") == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("stethopi: ") and said in told
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("in.csv", "out.wav", "must be CSV, as in.csv is"),
        ("in.wav", "out", "must be WAV or FLAC, as in.wav is"),
        ("in.hea", "out.csv", "must be a WFDB record, as in.hea is"),
        ("in.hea", "in", "the output is the input"),
        ("in", "in.dat", "the output is the input"),
        ("in.hea", "o u t", "a record's name holds letters"),
    ],
)
def test_an_output_that_cannot_be_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, target: str, said: str
) -> None:
    write_record(tmp_path, "in", [GOOD])
    table(tmp_path / "in.csv", GOOD, 360)
    write_sound(tmp_path / "in.wav", GOOD / 5, 360)
    assert run(tmp_path / source, tmp_path / target) == 2
    assert said in capsys.readouterr().err


def test_an_output_is_whole_or_not_there(tmp_path: Path) -> None:
    write_record(tmp_path, "in", [GOOD])
    ecg = read_ecg(tmp_path / "in")
    (tmp_path / "out.hea").mkdir()  # the header cannot be written
    with pytest.raises(Exception, match="cannot be written"):
        write_ecg(tmp_path / "out", [GOOD], ecg)
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".part")]


def test_a_bundle_without_the_model_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from device.errors import StethopiError

    def none(bundle: Any, name: str) -> Any:
        raise StethopiError("b: the bundle has no ecg; it has denoiser, classifier")

    monkeypatch.setattr(offline, "_model", none)
    write_record(tmp_path, "in", [GOOD])
    assert run(tmp_path / "in", tmp_path / "out") == 1
    assert "the bundle has no ecg" in capsys.readouterr().err
