"""Recordings on disk: to the bit, whole or not at all, and nothing of a crash is taken for an exam."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from device.durable import temporary_name
from device.errors import BadInput, StethopiError
from device.sources.files import read_sound
from device.storage.recorder import MOST_SPANS, Partial, Recorder, rescue, write_recording


def sound(n: int = 5000, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, n).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 6000), cuts=st.lists(st.integers(0, 6000), max_size=10))
def test_a_recording_is_what_was_heard(
    tmp_path_factory: pytest.TempPathFactory, n: int, cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("r")
    x = sound(n)
    recorder = Recorder(folder, "AV")
    edges = [0, *sorted(c % (n + 1) for c in cuts), n]
    for a, b in zip(edges, edges[1:], strict=False):
        recorder.append(x[a:b])
    assert recorder.samples == n and recorder.seconds == n / 2000
    found = recorder.finish()
    assert [p.name for p in folder.iterdir()] == ["AV.flac"]
    data = found.path.read_bytes()
    assert (found.size, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (found.samples, found.seconds, found.gaps, found.clipped) == (n, n / 2000, [], [])
    info = soundfile.info(found.path)
    assert (info.format, info.subtype, info.samplerate, info.frames) == ("FLAC", "PCM_24", 2000, n)
    y = soundfile.read(found.path, dtype="float64")[0]
    assert np.array_equal(y * 2**23, np.rint(x.astype(np.float64) * 2**23))


def test_24_bits_come_back_as_they_went_in(tmp_path: Path) -> None:
    """A recording of a 16-bit file loses nothing, and recording the recording again gives the same bytes."""
    x = (np.random.default_rng(2).integers(-32768, 32767, 4000) / 32768).astype(np.float32)
    one = write_recording(tmp_path / "a.flac", x)
    assert np.array_equal(read_sound(one.path).samples, x)
    assert write_recording(tmp_path / "b.flac", read_sound(one.path).samples).sha256 == one.sha256


def test_full_scale_stays_on_its_side(tmp_path: Path) -> None:
    """24 bits reach from -1 to just under +1: the loudest peak must not come back as its own mirror image."""
    x = np.array([1.0, -1.0, 1.5, -1.5, 0.0, 1.0], np.float32)
    recorder = Recorder(tmp_path, "AV")
    recorder.append(x)
    for found in (recorder.finish(), write_recording(tmp_path / "a.flac", x)):
        steps = np.rint(soundfile.read(found.path, dtype="float64")[0] * 2**23).astype(int).tolist()
        assert steps == [2**23 - 1, -(2**23), 2**23 - 1, -(2**23), 0, 2**23 - 1]


def test_clipping_and_gaps_are_listed(tmp_path: Path) -> None:
    x = sound(1000)
    x[100:105] = 1.0
    x[300:302] = -1.7
    x[500] = 1.0
    for cut in (0, 101, 301, 999):
        with Recorder(tmp_path, f"AV-{cut}") as recorder:
            recorder.append(x[:cut])
            recorder.append(x[cut:])
            recorder.mark_gap(40, 60)
            recorder.mark_gap(55, 70)
            recorder.mark_gap(990, 1200)
            recorder.mark_clipped(103, 110)
            found = recorder.finish()
        assert found.clipped == [[100, 110], [300, 302]]
        assert found.gaps == [[40, 70], [990, 1000]]


def test_the_lists_stay_short(tmp_path: Path) -> None:
    x = np.tile(np.array([1, 1, 0], np.float32), 4000)
    recorder = Recorder(tmp_path, "AV")
    for start in range(0, len(x), 7):
        recorder.append(x[start : start + 7])
    found = recorder.finish()
    assert 0 < len(found.clipped) <= MOST_SPANS
    assert found.clipped[0][0] == 0 and found.clipped[-1][1] == 11999


def test_an_empty_recording_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing was recorded; check the microphone"):
        Recorder(tmp_path, "AV").finish()
    assert list(tmp_path.iterdir()) == []


def test_discarded_is_gone_and_closed_is_not(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "AV")
    recorder.append(sound())
    recorder.discard()
    assert list(tmp_path.iterdir()) == []
    with Recorder(tmp_path, "PV") as recorder:
        recorder.append(sound())
    assert [p.name for p in tmp_path.iterdir()] == ["PV.partial"]
    write_recording(tmp_path / "MV.flac", sound())
    for taken in ("PV", "MV"):
        with pytest.raises(StethopiError, match="there is a recording of this name already"):
            Recorder(tmp_path, taken)


def test_a_spool_can_be_listened_to_as_it_stands(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "AV")
    recorder.append(sound(3000))
    heard = read_sound(tmp_path / "AV.partial")
    assert len(heard.samples) == 3000 and np.abs(heard.samples - sound(3000)).max() < 2**-22
    recorder.close()


CHILD = """
import sys, os, numpy as np
from pathlib import Path
from device.storage.recorder import Recorder
recorder = Recorder(Path(sys.argv[1]), "exam-AV")
for second in range(3):
    recorder.append(np.full(2000, 0.25, np.float32))
os.kill(os.getpid(), 9)
"""


@pytest.mark.process
def test_a_killed_recording_is_found_once_and_kept(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", CHILD, tmp_path]).returncode == -9
    (found,) = rescue(tmp_path)
    assert found == Partial(tmp_path / "partial" / "exam-AV.wav", 3.0)
    assert str(found) == f"partial recording of 3.0 s found, kept as {tmp_path}/partial/exam-AV.wav"
    heard = read_sound(found.path)
    assert heard.notes == [] and np.all(heard.samples == 0.25) and heard.seconds == 3.0
    assert rescue(tmp_path) == []
    assert [p.name for p in tmp_path.iterdir()] == ["partial"]


def test_what_exams_have_stays_and_what_they_do_not_is_partial(tmp_path: Path) -> None:
    for name in ("known-AV", "lost-AV"):
        write_recording(tmp_path / f"{name}.flac", sound())
    Recorder(tmp_path, "lost-PV").close()
    (tmp_path / "exams.sqlite").touch()
    (tmp_path / ".x.flac.99.part").touch()
    found = rescue(tmp_path, known={"known-AV.flac"})
    assert [(p.path.name, p.seconds) for p in found] == [("lost-PV.wav", 0.0), ("lost-AV.flac", 2.5)]
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["exams.sqlite", "known-AV.flac", "partial"]


def test_a_crash_between_rename_and_unlink_is_one_recording(tmp_path: Path) -> None:
    for stem in ("known", "lost"):
        recorder = Recorder(tmp_path, stem)
        recorder.append(sound())
        recorder.close()
        write_recording(tmp_path / f"{stem}.flac", sound())
    assert [p.path.name for p in rescue(tmp_path, known={"known.flac"})] == ["lost.flac"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["known.flac", "partial"]


def test_the_temporary_file_is_kept_where_its_spool_is_gone(tmp_path: Path) -> None:
    """A power cut in `finish` may take the spool, which nobody synced, and leave the FLAC file half made."""
    whole = write_recording(tmp_path / "whole.flac", sound()).path.read_bytes()
    (tmp_path / ".AV.flac.77.part").write_bytes(whole[:3000])
    (tmp_path / ".MV.flac.77.part").write_bytes(whole[:3000])
    with Recorder(tmp_path, "MV") as recorder:
        recorder.append(sound())
    (tmp_path / ".TV.flac.77.part").touch()
    found = rescue(tmp_path, {"whole.flac"})
    assert sorted(partial.path.name for partial in found) == ["AV.flac", "MV.wav"]
    assert (tmp_path / "partial" / "AV.flac").read_bytes() == whole[:3000]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["partial", "whole.flac"]


def test_two_partials_of_one_name_are_both_kept(tmp_path: Path) -> None:
    for _ in range(2):
        with Recorder(tmp_path, "AV") as recorder:
            recorder.append(sound())
        rescue(tmp_path)
    assert sorted(p.name for p in (tmp_path / "partial").iterdir()) == ["AV-2.wav", "AV.wav"]


def test_no_folder_no_partials(tmp_path: Path) -> None:
    assert rescue(tmp_path / "nothing") == []


def test_a_spool_cut_anywhere_is_still_rescued(tmp_path: Path) -> None:
    for size in (0, 10, 44, 45, 100):
        with Recorder(tmp_path, f"cut-{size}") as recorder:
            recorder.append(sound())
        os.truncate(tmp_path / f"cut-{size}.partial", size)
    assert [round(p.seconds * 2000) for p in rescue(tmp_path)] == [0, 0, 18, 0, 0]


def test_the_file_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (done.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))[1]
    )
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append(f"rename {Path(b).name}"), replace(a, b))[1])
    write_recording(tmp_path / "AV.flac", sound())
    temporary = str(temporary_name(tmp_path / "AV.flac"))
    assert done == [temporary, "rename AV.flac", str(tmp_path)]


def test_a_full_disk_is_told_and_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(tmp_path, "AV")
    recorder.append(sound())

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            StethopiError, match=r"No space left on device\); free space on the card or choose"
        ):
            recorder.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["AV.partial"]
    assert len(rescue(tmp_path)) == 1


def test_a_spool_that_was_refused_once_goes_on_without_repeating(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path, "AV")
    file = recorder._file

    class Short:
        closed = False

        def __getattr__(self, name: str) -> object:
            return getattr(file, name)

        def write(self, data: memoryview) -> int:
            file.write(data[:100])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(recorder, "_file", Short())
    with pytest.raises(StethopiError, match="No space left"):
        recorder.append(sound())
    monkeypatch.setattr(recorder, "_file", file)
    recorder.append(sound(seed=2))
    found = recorder.finish()
    expected = np.concatenate([sound(), sound(seed=2)])
    assert np.abs(read_sound(found.path).samples - expected).max() < 2**-22


def test_the_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StethopiError, match="cannot be written"):
        Recorder(tmp_path / "file" / "sounds", "AV")
    with pytest.raises(StethopiError, match="cannot be written"):
        write_recording(tmp_path / "file" / "AV.flac", sound())


def test_a_recording_that_ended_before_is_cut_to_it(tmp_path: Path) -> None:
    x = sound(5000)
    recorder = Recorder(tmp_path, "AV")
    recorder.append(x)
    recorder.mark_gap(2900, 4000)
    found = recorder.finish(3000)
    assert (found.samples, found.gaps) == (3000, [[2900, 3000]])
    whole = write_recording(tmp_path / "whole.flac", x[:3000])
    assert found.sha256 == whole.sha256
