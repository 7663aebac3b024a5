"""EDF and EDF+: the leads in mV, all else handed on byte for byte, heads weighed against the bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device.ecg.files import find_ecgs, read_ecg, write_ecg
from device.errors import BadInput
from device.spans import Gap
from tests.device.leads import beating

edfio = pytest.importorskip("edfio")

RATE = 250
X, _ = beating(8.0, RATE)


def written(path: Path, unit: str = "uV", annotations: bool = True) -> Path:
    per_mv = {"uV": 1000.0, "mV": 1.0}[unit]
    limit = (-5 * per_mv, 5 * per_mv)

    def signal(x: np.ndarray, rate: float, label: str, unit: str, limit: tuple[float, float]) -> object:
        return edfio.EdfSignal(x, rate, label=label, physical_dimension=unit, physical_range=limit)

    signals = [
        signal(np.sin(np.arange(800) / 50), 100, "EEG Fp1", "uV", (-2, 2)),
        signal(X * per_mv, RATE, "ECG II", unit, limit),
        signal(np.ones(8), 1, "SpO2", "%", (0, 100)),
    ]
    notes = [edfio.EdfAnnotation(1.5, None, "tired")] if annotations else None
    edfio.Edf(signals, data_record_duration=1, annotations=notes).write(path)
    return path


@pytest.mark.parametrize("unit", ["uV", "mV"])
@pytest.mark.parametrize("annotations", [True, False])
def test_the_lead_is_read_and_all_else_is_handed_on(tmp_path: Path, unit: str, annotations: bool) -> None:
    path = written(tmp_path / "night.EDF", unit, annotations)
    ecg = read_ecg(path)
    assert (ecg.kind, ecg.rate_hz, [lead.name for lead in ecg.leads]) == ("EDF", RATE, ["ECG II"])
    np.testing.assert_allclose(ecg.leads[0].samples, X, atol=2e-4)
    assert ecg.leads[0].rails_mv == (-5.0, 5.0)
    same = write_ecg(tmp_path / "same.edf", [ecg.leads[0].samples], ecg)
    assert same.read_bytes() == path.read_bytes()
    half = edfio.read_edf(write_ecg(tmp_path / "half.edf", [ecg.leads[0].samples / 2], ecg))
    before = edfio.read_edf(path)
    np.testing.assert_allclose(half.signals[1].data, before.signals[1].data / 2, atol=0.2)
    assert np.array_equal(half.signals[0].digital, before.signals[0].digital)
    assert [each.text for each in half.annotations] == (["tired"] if annotations else [])
    assert find_ecgs(tmp_path).files == sorted([path, same, tmp_path / "half.edf"])


@pytest.mark.parametrize(
    ("stated", "said"), [(-1, "never finished"), (0, "never finished"), (3, "states 3 s")]
)
def test_a_count_of_records_that_was_never_put_right(tmp_path: Path, stated: int, said: str) -> None:
    path = written(tmp_path / "a.edf")
    raw = bytearray(path.read_bytes())
    raw[236:244] = f"{stated:<8d}".encode()
    path.write_bytes(raw)
    ecg = read_ecg(path)
    assert ecg.samples == len(X) and any(said in note for note in ecg.notes)


def test_a_cut_file_gives_what_is_there(tmp_path: Path) -> None:
    path = written(tmp_path / "a.edf")
    path.write_bytes(path.read_bytes()[:-1000])
    ecg = read_ecg(path)
    assert 6 * RATE <= ecg.samples < len(X) and any("is truncated" in note for note in ecg.notes)
    np.testing.assert_allclose(ecg.leads[0].samples, X[: ecg.samples], atol=2e-4)


def test_parts_of_a_discontinuous_file_are_apart(tmp_path: Path) -> None:
    path = written(tmp_path / "a.edf")
    raw = path.read_bytes().replace(b"EDF+C", b"EDF+D", 1)
    for second in range(7, 3, -1):  # from the fifth second on, two seconds later
        raw = raw.replace(f"+{second}\x14\x14".encode(), f"+{second + 2}\x14\x14".encode(), 1)
    path.write_bytes(raw)
    ecg = read_ecg(path)
    assert ecg.leads[0].gaps == [Gap(4 * RATE, 6 * RATE)] and ecg.samples == len(X) + 2 * RATE
    np.testing.assert_allclose(ecg.leads[0].samples[6 * RATE :], X[4 * RATE :], atol=2e-4)
    assert write_ecg(tmp_path / "o.edf", [ecg.leads[0].samples], ecg).read_bytes() == raw


@pytest.mark.parametrize("junk", [b"", b"0       ", b"nonsense" * 100, b"\xffBIOSEMI" + bytes(1000)])
def test_what_is_no_edf_is_one_line(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "a.edf").write_bytes(junk)
    with pytest.raises(BadInput) as told:
        read_ecg(tmp_path / "a.edf")
    assert "\n" not in str(told.value)
    with pytest.raises(BadInput, match="no such file"):
        read_ecg(tmp_path / "b.edf")


def test_a_file_without_an_ecg_names_what_it_has(tmp_path: Path) -> None:
    signal = edfio.EdfSignal(
        np.ones(800), 100, label="EEG Fp1", physical_dimension="uV", physical_range=(-2, 2)
    )
    edfio.Edf([signal]).write(tmp_path / "a.edf")
    with pytest.raises(BadInput, match=r"no ECG among its signals \(EEG Fp1\)"):
        read_ecg(tmp_path / "a.edf")
