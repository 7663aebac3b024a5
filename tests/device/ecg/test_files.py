"""ECG recordings on disk: what is read, what is written back, what cannot be had and how that is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from device.ecg.files import find_ecgs, read_ecg, write_ecg
from device.errors import BadInput
from device.sources.files import write_sound
from tests.device.leads import beating, write_record


def refusal(path: Path) -> str:
    with pytest.raises(BadInput) as told:
        read_ecg(path)
    assert "\n" not in str(told.value)
    return str(told.value).replace(str(path.parent) + "/", "")


def table(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


# ---- WFDB


@pytest.mark.parametrize("fmt", [16, 212])
@pytest.mark.parametrize("name", ["100", "100.hea", "100.dat"])
def test_a_record_comes_back_as_it_was(tmp_path: Path, fmt: int, name: str) -> None:
    x, _ = beating(4.0)
    write_record(tmp_path, "100", [x, -x / 2], fmt=fmt)
    ecg = read_ecg(tmp_path / name)
    assert (ecg.kind, ecg.rate_hz, ecg.samples, ecg.notes) == ("WFDB", 360, 1440, [])
    assert [lead.name for lead in ecg.leads] == ["lead 1", "lead 2"]
    np.testing.assert_allclose(ecg.leads[0].samples, x, atol=0.0026)
    np.testing.assert_allclose(ecg.leads[1].samples, -x / 2, atol=0.0026)
    assert ecg.leads[0].rails_mv == (-10.24, 10.235)
    write_ecg(tmp_path / "out", [lead.samples for lead in ecg.leads], ecg)
    assert (tmp_path / "out.dat").read_bytes() == (tmp_path / "100.dat").read_bytes()
    before, after = ((tmp_path / f"{n}.hea").read_text() for n in ("100", "out"))
    assert after == before.replace("100 2", "out 2").replace("100.dat", "out.dat")


def test_a_record_with_flac_inside_stays_one(tmp_path: Path) -> None:
    x, _ = beating(3.0, 250)
    digital = np.rint(x * 200).astype(np.int16)
    soundfile.write(tmp_path / "sel.dat", digital, 250, format="FLAC", subtype="PCM_16")
    (tmp_path / "sel.hea").write_text("sel 1 250/360.0 750\nsel.dat 516 200.0(0)/mV 11 1024 0 0 0 MLII\n")
    ecg = read_ecg(tmp_path / "sel")
    np.testing.assert_array_equal(np.rint(ecg.leads[0].samples * 200), digital)
    write_ecg(tmp_path / "clean.hea", [ecg.leads[0].samples], ecg)
    found, _ = soundfile.read(tmp_path / "clean.dat", dtype="int16")
    np.testing.assert_array_equal(found, digital)
    assert "250/360.0" in (tmp_path / "clean.hea").read_text()


def test_what_a_record_does_not_know_is_a_gap_and_stays_one(tmp_path: Path) -> None:
    x, _ = beating(3.0)
    write_record(tmp_path, "r", [x])
    data = np.fromfile(tmp_path / "r.dat", "<i2")
    data[100:140] = -32768
    data.tofile(tmp_path / "r.dat")
    ecg = read_ecg(tmp_path / "r")
    assert ecg.leads[0].gaps == [(100, 140)] and not ecg.leads[0].samples[100:140].any()
    assert "40 samples in 1 place are not known" in ecg.notes[0]
    write_ecg(tmp_path / "out", [ecg.leads[0].samples + 0.5], ecg)
    after = np.fromfile(tmp_path / "out.dat", "<i2")
    assert (after[100:140] == -32768).all() and (after[:100] == data[:100] + 100).all()


def test_what_is_no_voltage_is_handed_on(tmp_path: Path) -> None:
    x, _ = beating(3.0)
    header = write_record(tmp_path, "r", [x, x])
    header.write_text(header.read_text().replace("/mV 12 0 ", "/mmHg 12 0 ", 2).replace("/mmHg", "/mV", 1))
    ecg = read_ecg(header)
    assert [lead.voltage for lead in ecg.leads] == [True, False]
    assert "is in mmHg, no voltage" in ecg.notes[0]
    write_ecg(tmp_path / "out", [np.zeros(1080), np.zeros(1080)], ecg)
    after = np.fromfile(tmp_path / "out.dat", "<i2").reshape(-1, 2)
    assert not after[:, 0].any() and (after[:, 1] == np.rint(x * 200)).all()


def test_a_cut_off_record_gives_what_is_there(tmp_path: Path) -> None:
    x, _ = beating(4.0)
    write_record(tmp_path, "r", [x])
    data = (tmp_path / "r.dat").read_bytes()
    (tmp_path / "r.dat").write_bytes(data[:2000])
    ecg = read_ecg(tmp_path / "r")
    assert ecg.samples == 1000 and "is truncated: 2.778 s of the promised 4.000 s" in ecg.notes[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "r.hea").unlink(), "r: no such record (r.hea is not there); check the name"),
        (lambda f: (f / "r.dat").unlink(), "r.hea: names r.dat, which is not there; copy it there"),
        (lambda f: (f / "r.dat").write_bytes(b""), "r.hea: its signal file is empty"),
        (lambda f: header_of(f, " 360 ", " 44100 "), "rate of 44100 Hz is not from 100 to 1000 Hz"),
        (lambda f: header_of(f, " 360 ", " 50 "), "rate of 50 Hz is not from 100 to 1000 Hz"),
        (lambda f: header_of(f, " 16 ", " 310 "), "signal format 310 is not read here"),
        (lambda f: header_of(f, " 16 ", " 16x2 "), "several rates"),
        (lambda f: header_of(f, "r.dat 16", "../r.dat 16"), "no plain file name"),
        (lambda f: (f / "r.hea").write_text("nonsense\n"), "is no WFDB header"),
        (lambda f: (f / "r.hea").write_bytes(b""), "is no WFDB header"),
        (lambda f: (f / "r.hea").write_text("r/2 1 360 720\nr_1 360\nr_2 360\n"), "has several segments"),
        (lambda f: header_of(f, "/mV", "/mmHg"), "none of its signals is a voltage of an ECG"),
    ],
)
def test_a_record_that_cannot_be_had_is_refused_in_one_line(tmp_path: Path, change, said: str) -> None:
    write_record(tmp_path, "r", [beating(3.0)[0]])
    change(tmp_path)
    assert said in refusal(tmp_path / "r")


def header_of(folder: Path, old: str, new: str) -> None:
    path = folder / "r.hea"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# ---- WAV and FLAC


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("rate_hz", [100, 500, 1000])
def test_full_scale_is_five_millivolts(tmp_path: Path, suffix: str, rate_hz: int) -> None:
    x, _ = beating(3.0, rate_hz)
    write_sound(tmp_path / f"a{suffix}", x / 5.0, rate_hz)
    ecg = read_ecg(tmp_path / f"a{suffix}")
    assert (ecg.rate_hz, ecg.kind) == (rate_hz, suffix[1:].upper())
    np.testing.assert_allclose(ecg.leads[0].samples, x, atol=2e-4)
    write_ecg(tmp_path / f"b{suffix}", [ecg.leads[0].samples], ecg)
    assert (tmp_path / f"b{suffix}").read_bytes() == (tmp_path / f"a{suffix}").read_bytes()


def test_a_wav_of_a_rate_that_is_no_ecgs_is_refused(tmp_path: Path) -> None:
    write_sound(tmp_path / "a.wav", np.zeros(8000), 8000)
    says = refusal(tmp_path / "a.wav")
    assert "its rate of 8000 Hz is not from 100 to 1000 Hz; resample it" in says
    assert says.endswith("sox a.wav out.wav rate 500")


# ---- CSV


@pytest.mark.parametrize(
    ("head", "row", "newline"),
    [
        (["time,ecg"], "{t:.6f},{mv:.5f}", "\n"),
        (["Time (s);ECG (mV)"], "{t:.6f};{mv:.5f}", "\n"),
        (["t_ms\tuV"], "{ms:.3f}\t{uv:.2f}", "\r\n"),
        (["index,timestamp,MLII"], "{n},{t:.7f},{mv:.5f}", "\n"),
        (["Zeit;Spannung"], "{komma_t};{komma_mv}", "\n"),
        (["'Elapsed time','MLII'", "'hh:mm:ss.mmm','mV'"], "'{clock}',{mv:.5f}", "\n"),
        ([], "{t:.6f},{mv:.5f}", "\n"),
        (["seconds|V1"], "{t:.6f}|{mv:.5f}", "\n"),
        (["datetime,lead I"], "{iso},{mv:.5f}", "\n"),
        (["ECG,elapsed_s,beat"], "{mv:.5f},{t:.6f},N", "\n"),
    ],
)
def test_a_table_is_understood_and_written_back(
    tmp_path: Path, head: list[str], row: str, newline: str
) -> None:
    x, _ = beating(5.0, 360)
    rows = [*head]
    for n, mv in enumerate(x.astype(float)):
        t = n / 360
        rows.append(
            row.format(
                n=n,
                t=t,
                ms=1e3 * t,
                mv=mv,
                uv=1e3 * mv,
                komma_t=f"{t:.6f}".replace(".", ","),
                komma_mv=f"{mv:.5f}".replace(".", ","),
                clock=f"00:{int(t // 60):02d}:{t % 60:06.3f}",
                iso=f"2026-03-01T10:00:{t:09.6f}",
            )
        )
    path = tmp_path / "a.csv"
    path.write_bytes((newline.join(rows) + newline).encode())
    ecg = read_ecg(path)
    assert (ecg.kind, ecg.rate_hz, ecg.samples, len(ecg.leads)) == ("CSV", 360, 1800, 1)
    np.testing.assert_allclose(ecg.leads[0].samples, x, atol=2e-5)
    write_ecg(tmp_path / "b.csv", [ecg.leads[0].samples + 0.25], ecg)
    again = read_ecg(tmp_path / "b.csv")
    np.testing.assert_allclose(again.leads[0].samples, x + 0.25, atol=1e-4)
    before, after = ((tmp_path / f"{n}.csv").read_bytes().split(newline.encode()) for n in "ab")
    assert len(after) == len(before) and after[: len(head)] == [
        line.replace(b"'", b"'") for line in before[: len(head)]
    ]


def test_all_leads_of_a_table_are_read_and_other_columns_stay(tmp_path: Path) -> None:
    x, _ = beating(3.0, 250)
    rows = ["time,I,II,label", *(f"{n / 250:.3f},{v:.4f},{2 * v:.4f},N" for n, v in enumerate(x))]
    ecg = read_ecg(table(tmp_path / "a.csv", rows))
    assert [lead.name for lead in ecg.leads] == ["I", "II"] and ecg.rate_hz == 250
    write_ecg(tmp_path / "b.csv", [np.zeros(750), np.ones(750)], ecg)
    assert (tmp_path / "b.csv").read_text().splitlines()[1] == "0.000,0.0000,1.0000,N"


def test_rows_that_are_missing_are_a_gap(tmp_path: Path) -> None:
    x, _ = beating(4.0, 250)
    rows = ["time,mV", *(f"{n / 250:.4f},{v:.4f}" for n, v in enumerate(x) if not 300 <= n < 400)]
    rows[10] = rows[10].split(",")[0] + ",nan"
    ecg = read_ecg(table(tmp_path / "a.csv", rows))
    assert ecg.samples == 1000 and ecg.leads[0].gaps == [(9, 10), (300, 400)]
    assert "101 samples in 2 places are missing or no numbers" in ecg.notes[0]
    write_ecg(tmp_path / "b.csv", [np.zeros(1000)], ecg)
    after = (tmp_path / "b.csv").read_text().splitlines()
    assert len(after) == len(rows) and after[10].endswith(",nan")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["one,two", "a,b"], "holds no table of numbers"),
        (["x,y", "5,1", "3,2", "4,3"], "no column of time among x, y; name one time"),
        (["time,mV", "0.000,1", "0.004,2", "0.003,3", "0.008,3"], "the time of sample 3 does not rise"),
        (["seconds,mV", "0,1", "1,2", "2,3", "3,4"], "rate of 1 Hz is not from 100 to 1000 Hz"),
        (["time,note", "0.000,a", "0.004,b", "0.008,c"], "holds no table of numbers"),
        (["time,label", "0.000,1", "0.004,2", "0.008,1"], "no column of numbers"),
        (["time,mV", "0.000,1", "x,2", "0.008,3"], "is no number"),
    ],
)
def test_a_table_that_cannot_be_had_is_refused_in_one_line(
    tmp_path: Path, rows: list[str], said: str
) -> None:
    assert said in refusal(table(tmp_path / "a.csv", rows))


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "a.csv")
    assert "is a folder" in refusal(tmp_path)
    with pytest.raises(BadInput, match="no WFDB record, WAV, FLAC, CSV or EDF"):
        find_ecgs(tmp_path)


# ---- WFDB headers weighed against the samples


def record(
    folder: Path, line: str, digital: np.ndarray, first: str = "r 1 360 1440", name: str = "r"
) -> Path:
    (folder / f"{name}.dat").write_bytes(digital.astype("<i2").tobytes())
    (folder / f"{name}.hea").write_bytes(f"{first}\n{line}\n# a comment\n".encode("latin-1"))
    return folder / f"{name}.hea"


X, _ = beating(4.0)


@pytest.mark.parametrize(
    ("line", "scale"),
    [
        ("r.dat 16 -200/mV 12 0 0 0 0 II", -200),
        ("r.dat 16 200/mV 11 1024 0 0 0 II", 200),  # a zero that the samples are nowhere near
        ("r.dat 16 200/mV 4 0 0 0 0 II", 200),  # fewer bits than the samples have
        ("r.dat 16 0/mV 12 0 0 0 0 II", 200),
        ("r.dat 16 1/\xb5V 16 0 0 0 0 II", 1000),
        ("r.dat 16 1/uV 16 0 0 0 0 II", 1000),
        ("r.dat 16 2000000/V 16 0 0 0 0 II", 2000),
        ("folder/r.dat 16 200/mV 12 0 0 0 0 II", 200),
    ],
)
def test_gain_zero_bits_and_units_give_millivolts(tmp_path: Path, line: str, scale: int) -> None:
    zero = 1024 if " 1024 " in line else 0
    header = record(tmp_path, line, np.rint(X * scale) + zero)
    if zero:  # the baseline is where the header says, the range is not
        header = record(
            tmp_path, line.replace("200/mV", "200(1024)/mV").replace("1024 0 0", "0 0 0"), X * scale + zero
        )
    lead = read_ecg(header).leads[0]
    np.testing.assert_allclose(lead.samples, X, atol=0.006)
    low, high = lead.rails_mv or (-99.0, 99.0)
    assert low < X.min() and X.max() < high
    write_ecg(tmp_path / "out", [lead.samples], read_ecg(header))
    written = (tmp_path / "out.hea").read_bytes()
    assert b"# a comment" in written and (b"1/\xb5V" in written) == ("\xb5" in line)
    np.testing.assert_allclose(read_ecg(tmp_path / "out").leads[0].samples, X, atol=0.012)


def test_a_record_whose_name_has_a_folder_is_read(tmp_path: Path) -> None:
    header = record(
        tmp_path, "beats/7.dat 16 200/mV 12 0 0 0 0 I", np.rint(X * 200), "beats/7 1 360 1440", "7"
    )
    np.testing.assert_allclose(read_ecg(header).leads[0].samples, X, atol=0.003)
    (tmp_path / "beats").mkdir()
    (tmp_path / "7.dat").rename(tmp_path / "beats" / "7.dat")
    assert read_ecg(header).samples == 1440


@pytest.mark.parametrize("gain", ["100/NU", "100", "100/mV"])
def test_a_pulse_wave_is_handed_on_and_no_ecg(tmp_path: Path, gain: str) -> None:
    both = np.stack([np.rint(X * 200), np.full(1440, 50.0)], axis=1)
    header = record(tmp_path, "r.dat 16 200/mV 16 0 0 0 0 II", both, "r 2 360 1440")
    header.write_text(header.read_text().replace("# a", f"r.dat 16 {gain} 16 0 0 0 0 PLETH\n# a"))
    ecg = read_ecg(header)
    assert [(lead.name, lead.voltage) for lead in ecg.leads] == [("II", True), ("PLETH", False)]
    assert any("PLETH" in note and "handed on as it is" in note for note in ecg.notes)


def test_a_channel_of_a_sound_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([0 * X, X / 5], axis=1), 360, subtype="FLOAT")
    ecg = read_ecg(path, channel="loudest")
    np.testing.assert_allclose(ecg.leads[0].samples, X, atol=1e-5)
    assert "channel 1 is silent" in read_ecg(path).notes[1]
