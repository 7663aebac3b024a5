"""ECGs in tables as loggers, watches and spreadsheets write them: when each row was taken, and what it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from device.ecg.files import read_ecg, write_ecg
from device.errors import BadInput
from device.spans import Gap
from tests.device.leads import beating

RATE = 250
X, _ = beating(8.0, RATE)
N = len(X)


def rows(at: Callable[[int], str], head: str = "time,ecg (mV)", n: int = N) -> list[str]:
    return [head, *(f"{at(k)},{X[k]:.4f}" for k in range(n))]


def table(folder: Path, lines: list[str], end: str = "\n", encoding: str = "utf-8") -> Path:
    path = folder / "t.csv"
    path.write_bytes((end.join(lines) + end).encode(encoding))
    return path


def seconds(k: int) -> str:
    return f"{k / RATE:.3f}"


@pytest.fixture(params=["UTC", "Europe/Berlin", "America/New_York"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def iso(start: str) -> Callable[[int], str]:
    return lambda k: (datetime.fromisoformat(start) + timedelta(seconds=k / RATE)).isoformat()


def autumn(k: int) -> str:
    """The clock is put back by an hour after 4 s."""
    at = datetime(2023, 10, 29, 2, 59, 56) + timedelta(seconds=k / RATE)
    return (at - timedelta(hours=1) if k >= 4 * RATE else at).isoformat()


def spring(k: int) -> str:
    at = datetime(2023, 3, 26, 1, 59, 56) + timedelta(seconds=k / RATE)
    return (at + timedelta(hours=1) if k >= 4 * RATE else at).isoformat()


def time_of_day(form: str) -> Callable[[int], str]:
    return lambda k: (datetime(2024, 5, 1, 23, 59, 56) + timedelta(seconds=k / RATE)).strftime(form)


def minutes(k: int) -> str:
    whole = 59 * 60 + 56 + k / RATE
    return f"{int(whole) // 60 % 60}:{whole % 60:06.3f}"


@pytest.mark.parametrize(
    "at",
    [
        seconds,
        iso("2023-10-29T02:59:56"),
        iso("2023-10-29T02:59:56+02:00"),
        iso("2023-03-26T01:59:56"),
        autumn,
        spring,
        time_of_day("%H:%M:%S.%f"),
        time_of_day("%I:%M:%S.%f %p"),
        time_of_day("[%H:%M:%S.%f %d/%m/%Y]"),
        time_of_day("%d.%m.%Y %H:%M:%S.%f"),
        minutes,
        lambda k: str((2**32 - 4000 + 4 * k) % 2**32),
    ],
)
def test_times_give_the_same_everywhere(tmp_path: Path, zone: str, at: Callable[[int], str]) -> None:
    ecg = read_ecg(table(tmp_path, rows(at)))
    assert (ecg.rate_hz, ecg.samples, ecg.leads[0].gaps) == (RATE, N, [])
    np.testing.assert_allclose(ecg.leads[0].samples, X, atol=1e-4)


@pytest.mark.parametrize(
    ("at", "long"),
    [
        (lambda k: str(1600000000000 + (k // 73) * 292), 73),
        (lambda k: str(1600000000000 + (k // 73) * 292 + (k // 73 * 7) % 5), 73),  # jitter
        (lambda k: f"12:00:{(k + 100) // RATE:02d}", 250),  # seconds, the first one begun before
        (lambda k: f"{np.floor(k / RATE * 100) / 100:.2f}", 3),
    ],
)
def test_rows_that_share_a_time_are_spread(tmp_path: Path, at: Callable[[int], str], long: int) -> None:
    head = "timestamp_ms,ecg_mV" if long == 73 else "time,ecg_mV"
    ecg = read_ecg(table(tmp_path, rows(at, head)))
    assert (ecg.rate_hz, ecg.samples, ecg.leads[0].gaps) == (RATE, N, [])
    assert sum("share a time" in note for note in ecg.notes) == 1


def test_a_lost_batch_is_a_gap(tmp_path: Path) -> None:
    lines = rows(lambda k: str(1600000000000 + (k // 50) * 200), "timestamp_ms,ecg_mV")
    ecg = read_ecg(table(tmp_path, lines[:501] + lines[551:]))
    assert ecg.leads[0].gaps == [Gap(500, 550)] and ecg.samples == N


def test_a_row_written_twice_counts_once(tmp_path: Path) -> None:
    lines = rows(seconds)
    ecg = read_ecg(table(tmp_path, lines[:100] + lines[99:]))
    assert ecg.samples == N and any("1 row with the time of the one before" in note for note in ecg.notes)


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n", "\r\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_line_ends_encodings_and_units(tmp_path: Path, end: str, encoding: str) -> None:
    lines = ["Zeit;EKG (µV)", *(f"{k / RATE:.3f};{1000 * X[k]:.1f}".replace(".", ",") for k in range(N))]
    ecg = read_ecg(table(tmp_path, lines, end, encoding))
    np.testing.assert_allclose(ecg.leads[0].samples, X, atol=1e-4)
    assert ecg.notes == []
    out = write_ecg(tmp_path / "o.csv", [lead.samples for lead in ecg.leads], ecg)
    np.testing.assert_allclose(read_ecg(out).leads[0].samples, X, atol=1e-4)


@pytest.mark.parametrize("unit", ["nV", "uV", "µV", "μV", "mV", "V", "microvolts"])
def test_units(tmp_path: Path, unit: str) -> None:
    per_mv = {"n": 1e6, "u": 1e3, "µ": 1e3, "μ": 1e3, "m": 1.0, "V": 1e-3}[unit[0]]
    per_mv = 1e3 if unit == "microvolts" else per_mv
    lines = [f"time,ecg [{unit}]", *(f"{k / RATE:.3f},{X[k] * per_mv:.7f}" for k in range(N))]
    np.testing.assert_allclose(read_ecg(table(tmp_path, lines)).leads[0].samples, X, atol=1e-3)


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_last_row_that_is_cut_anywhere_is_left_out(tmp_path: Path, cut: int) -> None:
    path = table(tmp_path, rows(seconds))
    path.write_bytes(path.read_bytes()[: -cut - 1])
    ecg = read_ecg(path)
    assert ecg.samples == N - 1 and any("cut off" in note for note in ecg.notes)
    np.testing.assert_allclose(ecg.leads[0].samples, X[:-1], atol=1e-4)


def test_a_last_row_without_a_line_end_is_a_row(tmp_path: Path) -> None:
    path = table(tmp_path, rows(seconds))
    path.write_bytes(path.read_bytes()[:-1])
    assert read_ecg(path).samples == N and read_ecg(path).notes == []


def test_zero_bytes_and_footers_are_no_samples(tmp_path: Path) -> None:
    path = table(tmp_path, rows(seconds))
    path.write_bytes(path.read_bytes()[:-4] + bytes(4096))
    ecg = read_ecg(path)
    assert ecg.samples == N - 1 and any("4096 zero bytes" in note for note in ecg.notes)
    ecg = read_ecg(table(tmp_path, [*rows(seconds), "", "End of file", "Samples:,2000"]))
    assert ecg.samples == N and any("2 rows at its end without a time" in note for note in ecg.notes)
    out = write_ecg(tmp_path / "o.csv", [ecg.leads[0].samples], ecg)
    assert out.read_text().splitlines()[-2:] == ["End of file", "Samples:,2000"]


@pytest.mark.parametrize("bang", ["!", "{},!"])
def test_bangs_are_a_gap(tmp_path: Path, bang: str) -> None:
    lines = rows(seconds)
    lines[501:601] = [bang.format(seconds(k)) for k in range(500, 600)]
    ecg = read_ecg(table(tmp_path, lines))
    assert ecg.leads[0].gaps == [Gap(500, 600)] and (ecg.rate_hz, ecg.samples) == (RATE, N)
    assert (
        write_ecg(tmp_path / "o.csv", [ecg.leads[0].samples], ecg).read_text().splitlines()[501:601]
        == (lines[501:601])
    )


@pytest.mark.parametrize(
    "head",
    [
        ["Sample Rate,512 hertz", "Unit,mV", ""],
        ["# Sampling frequency: 512 Hz", "# unit mV"],
        ["Abtastrate;512", "EKG (mV)"],
        ["fs = 512", "ecg mV"],
        ["Sampling rate,0.512 kHz", "ecg mV"],
    ],
)
def test_a_rate_in_the_head_stands_for_times(tmp_path: Path, head: list[str]) -> None:
    ecg = read_ecg(table(tmp_path, [*head, *(f"{v:.4f}" for v in X)]))
    assert (ecg.rate_hz, ecg.samples) == (512, N)
    np.testing.assert_allclose(ecg.leads[0].samples, X, atol=1e-4)


def test_the_rate_is_asked_for_and_taken(tmp_path: Path) -> None:
    path = table(tmp_path, ["'sample #','MLII','V5'", *(f"{k},{X[k]:.4f},{-X[k]:.4f}" for k in range(N))])
    with pytest.raises(BadInput, match="no column of time among .*or give --rate HZ"):
        read_ecg(path)
    ecg = read_ecg(path, rate_hz=360)
    assert [lead.name for lead in ecg.leads] == ["MLII", "V5"] and ecg.rate_hz == 360
    np.testing.assert_allclose(ecg.leads[1].samples, -X, atol=1e-4)
    bare = table(tmp_path, [f"{v:.4f}" for v in X])
    assert read_ecg(bare, rate_hz=200).rate_hz == 200
    counted = table(tmp_path, [f"{k},{X[k]:.4f}" for k in range(N)])
    np.testing.assert_allclose(read_ecg(counted, rate_hz=360).leads[0].samples, X, atol=1e-4)
    timed = table(tmp_path, rows(seconds))
    assert read_ecg(timed, rate_hz=360).rate_hz == RATE
    assert "its times say 250 Hz" in read_ecg(timed, rate_hz=360).notes[0]


def test_a_pulse_wave_is_no_lead(tmp_path: Path) -> None:
    path = table(tmp_path, ["time,PLETH,II,resp", *(f"{k / RATE:.3f},0.5,{X[k]:.4f},1" for k in range(N))])
    assert [lead.name for lead in read_ecg(path).leads] == ["II"]
    path = table(tmp_path, ["time,pleth", *(f"{k / RATE:.3f},0.5" for k in range(N))])
    with pytest.raises(BadInput):
        read_ecg(path)


def test_an_open_quote_costs_nothing_else(tmp_path: Path) -> None:
    lines = rows(seconds, 'time,"ecg (mV)')
    lines[300] = lines[300].replace(",", ',"')
    ecg = read_ecg(table(tmp_path, lines))
    assert ecg.samples == N and "2 rows with a quote that is never closed" in ecg.notes[0]


@pytest.mark.parametrize("junk", ['"' * 300_000, "a," * 200_000, "\x80\x81" * 1000, "1,2\n" * 3, "\0" * 5000])
def test_whatever_stands_there_is_read_or_one_line(tmp_path: Path, junk: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(junk.encode("latin-1"))
    with pytest.raises(BadInput) as told:
        read_ecg(path)
    assert "\n" not in str(told.value)
