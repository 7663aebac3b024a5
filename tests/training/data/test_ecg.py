"""Records, parts and mixtures of the ECG: what is read, what is refused, what must never meet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device.errors import BadInput
from tests.training.ecg_folders import RATE, ecg_folder, lead, write_record

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ecg_folder(tmp_path_factory.mktemp("ecg"))


def test_a_record_comes_in_millivolts_at_its_own_rate(tmp_path: Path) -> None:
    from training.data.ecg import read_record

    x = np.stack([np.linspace(-1, 1, 500), np.full(500, 0.25)], 1)
    write_record(tmp_path, "a", x, rate=250)
    found = read_record(tmp_path / "a.hea")
    assert (found.rate_hz, found.leads, found.samples.shape) == (250, ("lead0", "lead1"), (2, 500))
    assert np.allclose(found.samples, x.T, atol=1e-3)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    from training.data.ecg import read_record, splits

    with pytest.raises(BadInput, match=r"nobody\.hea: no such record"):
        read_record(tmp_path / "nobody")
    write_record(tmp_path, "a", np.zeros((400, 1)))
    (tmp_path / "a.dat").unlink()
    with pytest.raises(BadInput, match=r"a\.dat: not there, though a\.hea names it"):
        read_record(tmp_path / "a")
    write_record(tmp_path, "slow", np.zeros((400, 1)), rate=50)
    with pytest.raises(BadInput, match=r"slow\.hea: 50 samples a second"):
        read_record(tmp_path / "slow")
    (tmp_path / "torn.hea").write_text("torn one two\n")
    with pytest.raises(BadInput, match=r"torn\.hea: cannot be read"):
        read_record(tmp_path / "torn")
    with pytest.raises(BadInput, match="no WFDB record"):
        splits(tmp_path / "nowhere")


def test_unknown_and_flat_seconds_are_never_references(tmp_path: Path) -> None:
    from training.data.ecg import load_pieces

    x, _ = lead(np.random.default_rng(1), 30)
    x[5 * RATE : 6 * RATE] = np.nan
    x[10 * RATE : 13 * RATE] = 0.4
    write_record(tmp_path / "ecg", "a", x[:, None])
    (tmp_path / "ecg" / "splits.csv").write_text("record,database,patient,part\na,own,p,train\n")
    (piece,) = load_pieces(tmp_path, ("train",))
    assert np.isfinite(piece.samples).all()
    bad = set(np.flatnonzero(~piece.usable).tolist())
    assert {5, 10, 11, 12} <= bad <= {4, 5, 6, 9, 10, 11, 12, 13}


def test_no_patient_is_on_two_sides(data: Path, tmp_path: Path) -> None:
    from training.data.ecg import splits

    parts: dict[str, set[str]] = {}
    for s in splits(data):
        parts.setdefault(s.patient, set()).add(s.part)
    assert all(len(p) == 1 for name, p in parts.items() if name)
    folder = tmp_path / "ecg"
    folder.mkdir()
    (folder / "splits.csv").write_text("record,database,patient,part\na,x,p1,train\nb,x,p1,test\n")
    with pytest.raises(BadInput, match="patient p1 is in train and in test"):
        splits(tmp_path)


def test_a_folder_without_a_table_is_split_by_patient(tmp_path: Path) -> None:
    from training.data.ecg import splits

    for name in [*(str(n) for n in range(100, 140)), "201", "202", "bw"]:
        (tmp_path / f"{name}.hea").write_text(f"{name} 1 360 10\n")
    found = {s.record: s for s in splits(tmp_path)}
    assert found["bw"].part == "noise"
    assert found["201"].patient == found["202"].patient
    assert found["201"].part == found["202"].part
    assert {s.part for s in found.values()} == {"train", "dev", "test", "noise"}
    (tmp_path / "RECORDS").write_text("100\n101\n")
    assert [s.record for s in splits(tmp_path)] == ["100", "101"]


def test_noise_of_the_parts_never_overlaps(data: Path) -> None:
    from training.data.ecg import NoiseTracks, ecg_folder, read_record

    whole = read_record(ecg_folder(data) / "nstdb" / "ma").samples
    tracks = {part: NoiseTracks(data, part).tracks["ma"] for part in ("train", "dev", "test")}
    assert tracks["train"].shape[1] == 1200 * RATE
    joined = np.concatenate([tracks["train"], tracks["dev"], tracks["test"]], 1)
    assert np.array_equal(joined, whole)


def test_mixed_noise_holds_the_three_in_equal_parts(data: Path) -> None:
    from training.data.ecg import NoiseTracks

    noises = NoiseTracks(data, "train")
    for kind in ("bw", "em", "ma", "mixed", "gaussian", "mains"):
        x = noises.draw(np.random.default_rng(2), kind, 3600)
        assert abs(float(x.mean())) < 1e-9
        assert abs(float(x.std()) - 1) < 1e-9


def test_a_batch_is_a_function_of_seed_and_step(data: Path) -> None:
    from training.data.ecg import EcgMixSettings, Mixtures, NoiseTracks, load_pieces

    pieces, noises = load_pieces(data, ("train",)), NoiseTracks(data, "train")
    settings = EcgMixSettings(batch=4, samples=1440, dropout=0.5, speed=0.2, warp=0.2, blend=0.5, colour=0.7)
    a, b = (Mixtures(pieces, noises, settings, 3) for _ in range(2))
    a.batch(0)
    for x, y in zip(a.batch(7), b.batch(7), strict=True):
        assert x.shape == (4, 1440)
        assert np.isfinite(x).all()
        assert np.array_equal(x, y)
    assert not np.array_equal(a.batch(8)[0], a.batch(7)[0])
    assert np.isfinite(a.batch(8)[1]).all()
    assert len(a.drawn) == 4 and set(a.drawn) <= {p.record for p in pieces}
    with pytest.raises(BadInput, match="without noise of its own"):
        Mixtures(pieces, noises, EcgMixSettings(own_noise_db=90.0), 1)


def test_resampling_keeps_every_instant() -> None:
    from training.data.ecg import to_working_rate

    t = np.arange(2500) / 250
    y = to_working_rate(np.sin(2 * np.pi * 5 * t), 250)
    assert len(y) == 3600
    assert np.allclose(y[200:-200], np.sin(2 * np.pi * 5 * np.arange(3600) / 360)[200:-200], atol=2e-3)
