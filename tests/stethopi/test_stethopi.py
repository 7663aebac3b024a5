"""`import stethopi`: the same samples and verdicts as the commands, and errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile

import stethopi
from device.contract.vocabulary import Moment
from host.cli import main
from host.store.store import Store
from tests.host.arrivals import SOUNDS, beats, flac, put

CIRCOR = Path(__file__).resolve().parents[1] / "data" / "circor"
MURMUR = CIRCOR / "68379_MV.flac"


@pytest.fixture
def at_8_khz(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Five seconds in a file that keeps every bit of a float32."""
    x, _ = soundfile.read(MURMUR, dtype="float32", stop=10_000)
    x = np.repeat(x, 4)
    path = tmp_path / "heart.wav"
    soundfile.write(path, x, 8000, subtype="FLOAT")
    return path, x


def test_denoise_gives_the_samples_of_the_command(tmp_path: Path, at_8_khz: tuple[Path, np.ndarray]) -> None:
    path, x = at_8_khz
    for strength in (1.0, 0.4):
        assert main(["denoise", str(path), str(tmp_path / "clean.wav"), "--strength", str(strength)]) == 0
        clean, rate_hz = soundfile.read(tmp_path / "clean.wav", dtype="float32")
        assert rate_hz == 8000
        np.testing.assert_array_equal(stethopi.denoise(x, 8000, strength=strength), clean)


def test_a_file_and_its_recording_are_cleaned_alike(at_8_khz: tuple[Path, np.ndarray]) -> None:
    recording = stethopi.read(at_8_khz[0])
    clean = stethopi.denoise(recording)
    assert (recording.rate_hz, recording.file_rate_hz, recording.seconds) == (2000, 8000, 5.0)
    assert clean.dtype == np.float32 and clean.shape == recording.samples.shape
    np.testing.assert_array_equal(stethopi.denoise(str(at_8_khz[0])), clean)
    np.testing.assert_array_equal(stethopi.denoise(recording.samples, 2000), clean)


def test_classify_and_screen_say_what_the_command_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    assert main(["classify", str(CIRCOR), str(tmp_path), "--json"]) == 2
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rows = stethopi.classify([CIRCOR, tmp_path])
    assert [row.to_dict() for row in rows] == printed and len(rows) == 3
    assert rows[-1].findings is None and "neither a WAV nor a FLAC" in str(rows[-1].error)
    for row in rows[:2]:
        assert stethopi.screen(row.file) == row.findings == stethopi.screen(stethopi.read(row.file))


def test_a_folder_without_recordings_is_a_row_with_its_error(tmp_path: Path) -> None:
    [row] = stethopi.classify(tmp_path)
    assert row.to_dict() == {"file": str(tmp_path), "error": row.error} and "no WAV or FLAC" in str(row.error)


def test_what_is_no_number_is_a_gap_as_in_a_file(tmp_path: Path) -> None:
    x = beats()
    x[4000:6000] = np.nan
    soundfile.write(tmp_path / "gap.wav", x, 2000, subtype="FLOAT")
    assert stethopi.read(tmp_path / "gap.wav").gaps == ((4000, 6000),)
    assert stethopi.screen(x, 2000) == stethopi.screen(tmp_path / "gap.wav")
    assert "gap" in str(stethopi.screen(x, 2000).reasons)


def test_the_heart_rate_of_seventy_beats() -> None:
    assert stethopi.heart_rate(beats(), 2000) == pytest.approx(70.0, abs=0.5)
    assert stethopi.heart_rate(beats(2.0), 2000) is None


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: stethopi.denoise(beats()), "rate_hz: an array does not tell its rate"),
        (lambda: stethopi.denoise(beats(), 1000), "rate_hz of 1000 Hz: not from"),
        (lambda: stethopi.denoise(np.zeros((2, 10), np.float32), 2000), r"float32 and shape \(2, 10\)"),
        (lambda: stethopi.screen(np.zeros(10, np.int16), 2000), "floating-point samples in ±1"),
        (lambda: stethopi.denoise(beats(), 2000, strength=2.0), "strength=2: not from 0"),
        (lambda: stethopi.screen(stethopi.read(MURMUR), 4000), "rate_hz=4000: a recording is at 2000 Hz"),
        (lambda: stethopi.open_store("/nowhere"), "/nowhere: no store of exams"),
        (lambda: stethopi.open_bundle("/nowhere"), "/nowhere/bundle.json: not there"),
    ],
)
def test_wrong_input_is_refused_with_the_remedy(call: Callable[[], object], text: str) -> None:
    with pytest.raises(stethopi.BadInput, match=text):
        call()


def test_exams_are_read_while_the_host_writes(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        first = put(store, {"MV": flac(beats())})
        with stethopi.open_store(tmp_path) as exams:
            second = put(store, SOUNDS, leave_out=1)
            newest, oldest = exams.exams()
            assert exams.exams(limit=1) == [newest]
            assert (newest.result, oldest.result) == (second, first)
            assert (newest.complete, oldest.complete) == (False, True)
            assert oldest.sounds == {"MV": store.sound_path(first.id, "MV")}
            assert exams.exam(first.id) == oldest
            with pytest.raises(stethopi.BadInput, match="no-such-exam: no such exam"):
                exams.exam("no-such-exam")
    row = oldest.to_dict()
    assert (row["exam"], row["label"], row["complete"]) == (first.id, first.verdict.label, True)
    json.dumps(row)


def test_when_an_exam_began_is_told_where_a_clock_knew_it(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        known = put(store, SOUNDS)
        lost = put(store, SOUNDS, started=Moment("1" * 32, 50.0, 0.0, "none"))
        with stethopi.open_store(tmp_path) as exams:
            assert exams.exam(known.id).started == datetime.fromtimestamp(known.started.wall_s, UTC)
            assert exams.exam(lost.id).started is None
            put(store, SOUNDS, started=Moment("1" * 32, 60.0, 1.8e9, "synchronised"))
            corrected = exams.exam(lost.id).started
    assert corrected == datetime.fromtimestamp(1.8e9 - 10.0, UTC)


def test_a_store_that_nobody_writes_is_read_and_a_broken_one_told(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        put(store, SOUNDS)
    with stethopi.open_store(tmp_path) as exams:
        assert len(exams.exams()) == 1
    (tmp_path / "exams.sqlite").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(stethopi.StethopiError, match="cannot be read"):
        stethopi.open_store(tmp_path)
