"""`stethopi denoise` and `stethopi classify` as a user meets them: real processes, real files."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from device.rates import WORKING_RATE_HZ
from host import cli
from host.files import batch

JSON_KEYS = {"file", "label", "probability", "murmur_probability", "quality", "reasons", "windows"}
JSON_KEYS |= {"window_probabilities", "troubles"}


def stethopi(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "host.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def classified(*paths: Path) -> tuple[int, list[dict], str]:
    run = stethopi("classify", "--json", *paths)
    return run.returncode, [json.loads(line) for line in run.stdout.splitlines()], run.stderr


def heart(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


@pytest.mark.parametrize("rate", [2000, 4000, 8000, 11025, 44100, 96000])
@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_output_has_the_rate_and_length_of_the_input(tmp_path: Path, rate: int, ending: str) -> None:
    samples = np.random.default_rng(rate).normal(0, 0.05, 3 * rate + 7).astype(np.float32)
    soundfile.write(tmp_path / f"in.{ending}", samples, rate)
    assert cli.main(["denoise", str(tmp_path / f"in.{ending}"), str(tmp_path / f"out.{ending}")]) == 0
    info = soundfile.info(tmp_path / f"out.{ending}")
    assert (info.samplerate, info.frames, info.channels) == (rate, len(samples), 1)


@pytest.mark.parametrize("rate", [2000, 4000, 22050, 48000])
def test_output_is_aligned_with_the_input(tmp_path: Path, normal_recording: Path, rate: int) -> None:
    from scipy.signal import resample_poly

    x = heart(normal_recording)
    x = x if rate == WORKING_RATE_HZ else resample_poly(x, rate, WORKING_RATE_HZ).astype(np.float32)
    soundfile.write(tmp_path / "in.wav", x, rate, subtype="FLOAT")
    assert cli.main(["denoise", str(tmp_path / "in.wav"), str(tmp_path / "out.wav")]) == 0
    y = heart(tmp_path / "out.wav")
    spectrum = np.fft.rfft(x, 2 * len(x)).conj() * np.fft.rfft(y, 2 * len(x))
    lag = int(np.argmax(np.fft.irfft(spectrum)))
    lag = lag - 2 * len(x) if lag > len(x) else lag
    assert abs(lag) / rate <= 0.5 / WORKING_RATE_HZ


def test_a_folder_in_gives_a_folder_out_with_the_same_names(tmp_path: Path, normal_recording: Path) -> None:
    x = heart(normal_recording)[:6000]
    (tmp_path / "in" / "ward").mkdir(parents=True)
    names = ["one.wav", "two.flac", "ward/three.wav", "ward/four.wav", "five.wav"]
    for name in names:
        soundfile.write(tmp_path / "in" / name, x, 2000)
    (tmp_path / "in" / "notes.txt").write_text("not a sound")
    assert stethopi("denoise", tmp_path / "in", tmp_path / "out").returncode == 0
    written = sorted(
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()
    )
    assert written == sorted(names)
    again = [heart(tmp_path / "out" / name) for name in names]
    assert all(np.allclose(again[0], one, atol=2**-14) for one in again)


def test_strength_zero_gives_the_sound_back(tmp_path: Path, normal_recording: Path) -> None:
    assert cli.main(["denoise", "--strength", "0", str(normal_recording), str(tmp_path / "out.wav")]) == 0
    assert np.abs(heart(tmp_path / "out.wav") - heart(normal_recording)).max() <= 2**-15


@pytest.mark.parametrize("rate", [2000, 44100])
def test_the_classic_net_cleans_a_file_too(tmp_path: Path, rate: int) -> None:
    samples = np.random.default_rng(1).normal(0, 0.05, 2 * rate + 7).astype(np.float32)
    soundfile.write(tmp_path / "in.wav", samples, rate)
    order = ["denoise", str(tmp_path / "in.wav"), str(tmp_path / "out.wav"), "--model", "unet-classic"]
    assert cli.main(order) == 0
    info = soundfile.info(tmp_path / "out.wav")
    assert (info.samplerate, info.frames) == (rate, len(samples))
    assert np.std(heart(tmp_path / "out.wav")) < 0.9 * np.std(samples)  # noise alone: some of it is taken


@pytest.mark.parametrize(
    ("model", "says"),
    [("lunet", "no such network; there is unet-classic"), ("unet-classic:none.tflite", "no such file")],
)
def test_another_net_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, says: str
) -> None:
    soundfile.write(tmp_path / "in.wav", np.zeros(4000, dtype=np.float32), 2000)
    order = ["denoise", str(tmp_path / "in.wav"), str(tmp_path / "out.wav"), "--model", model]
    assert cli.main(order) == 2
    assert says in capsys.readouterr().err
    assert cli.main([*order[:3], "--model", "unet-classic", "--kind", "ecg"]) == 2
    assert "heart sound only" in capsys.readouterr().err
    assert not (tmp_path / "out.wav").exists()


def test_plots_are_pictures(tmp_path: Path, murmur_recording: Path) -> None:
    plot = tmp_path / "before-after.png"
    assert cli.main(["denoise", str(murmur_recording), str(tmp_path / "o.wav"), "--plot", str(plot)]) == 0
    assert cli.main(["classify", str(murmur_recording), "--plot", str(tmp_path / "plots")]) == 0
    for picture in (plot, tmp_path / "plots" / f"{murmur_recording.stem}.png"):
        assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 20_000


def test_classify_tells_a_verdict_a_line(normal_recording: Path, murmur_recording: Path) -> None:
    code, lines, _ = classified(normal_recording, murmur_recording)
    assert code == 0
    assert [line["file"] for line in lines] == [str(normal_recording), str(murmur_recording)]
    for line in lines:
        assert set(line) >= JSON_KEYS
        assert line["label"] in ("normal", "abnormal", "unsure")
        assert 0 <= line["probability"] <= 1 and 0 <= line["quality"] <= 1
        assert 0 <= line["murmur_probability"] <= 1
        assert line["windows"] == len(line["window_probabilities"]) == 5
    assert lines[0]["probability"] < lines[1]["probability"]
    assert lines[0]["murmur_probability"] < lines[1]["murmur_probability"]


def test_the_same_recordings_give_the_same_lines_in_any_number_of_processes(
    tmp_path: Path, normal_recording: Path
) -> None:
    x = heart(normal_recording)
    for k in range(6):
        soundfile.write(tmp_path / f"{k}.wav", x[k * 500 : k * 500 + 12000], 2000)
    one = stethopi("classify", "--json", "--processes", 1, tmp_path)
    two = stethopi("classify", "--json", "--processes", 2, tmp_path)
    assert one.stdout == two.stdout and len(one.stdout.splitlines()) == 6


# --- bad input: one line, its outcome as promised -------------------------------------------------


def one_line(run: subprocess.CompletedProcess[str], path: Path) -> None:
    lines = run.stderr.strip().splitlines()
    assert run.returncode == 2
    assert len(lines) == 1 and lines[0].startswith("stethopi: ") and str(path) in lines[0], run.stderr


@pytest.mark.parametrize("what", ["missing", "empty", "text", "soundless folder"])
def test_unusable_input_is_one_line_and_exit_2(tmp_path: Path, what: str) -> None:
    path = tmp_path / "in.wav"
    if what == "empty":
        path.touch()
    elif what == "text":
        path.write_text("heart sounds, as told by a text\n" * 100)
    elif what == "soundless folder":
        path = tmp_path / "folder"
        path.mkdir()
    one_line(stethopi("denoise", path, tmp_path / "out.wav"), path)
    assert not (tmp_path / "out.wav").exists()
    run = stethopi("classify", path)
    assert run.returncode == 2 and "Traceback" not in run.stderr and str(path) in run.stderr
    code, lines, _ = classified(path)
    assert code == 2 and set(lines[0]) == {"file", "error"} and lines[0]["file"] == str(path)


def test_a_bad_file_does_not_stop_the_rest(tmp_path: Path, normal_recording: Path) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    soundfile.write(tmp_path / "good.wav", heart(normal_recording), 2000)
    code, lines, _ = classified(tmp_path)
    assert code == 2
    assert "error" in lines[0] and lines[1]["label"] in ("normal", "abnormal", "unsure")
    run = stethopi("denoise", tmp_path, tmp_path / "out")
    assert run.returncode == 2 and [p.name for p in (tmp_path / "out").iterdir()] == ["good.wav"]


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_of_a_truncated_file_what_is_there_is_used_and_said(
    tmp_path: Path, normal_recording: Path, ending: str
) -> None:
    whole = tmp_path / f"whole.{ending}"
    soundfile.write(whole, heart(normal_recording), 2000)
    cut = tmp_path / f"cut.{ending}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    run = stethopi("denoise", cut, tmp_path / f"out.{ending}")
    assert run.returncode == 0
    assert "truncated" in run.stderr and str(cut) in run.stderr
    frames = soundfile.info(tmp_path / f"out.{ending}").frames
    assert 0.5 < frames / soundfile.info(whole).frames < 0.75
    code, lines, _ = classified(cut)
    assert code == 0 and lines[0]["windows"] >= 1


def test_of_two_channels_the_first_is_used_and_said(tmp_path: Path, normal_recording: Path) -> None:
    x = heart(normal_recording)
    soundfile.write(tmp_path / "mono.wav", x, 2000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([x, 0.1 * np.sign(x)], axis=1), 2000)
    for name in ("mono", "stereo"):
        run = stethopi("denoise", tmp_path / f"{name}.wav", tmp_path / f"{name}-out.wav")
        assert run.returncode == 0
    assert "first" in run.stderr
    assert np.array_equal(heart(tmp_path / "mono-out.wav"), heart(tmp_path / "stereo-out.wav"))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_sample_format_is_read(tmp_path: Path, normal_recording: Path, subtype: str) -> None:
    x = heart(normal_recording)
    soundfile.write(tmp_path / "in.wav", x / np.abs(x).max() * 0.9, 2000, subtype=subtype)
    assert stethopi("denoise", tmp_path / "in.wav", tmp_path / "out.wav").returncode == 0
    code, lines, _ = classified(tmp_path / "in.wav")
    assert code == 0 and lines[0]["probability"] is not None


def test_nan_is_a_gap_and_said(tmp_path: Path, normal_recording: Path) -> None:
    x = heart(normal_recording).copy()
    x[4000:4100] = np.nan
    x[9000] = np.inf
    soundfile.write(tmp_path / "in.wav", x, 2000, subtype="FLOAT")
    run = stethopi("denoise", tmp_path / "in.wav", tmp_path / "out.wav")
    assert run.returncode == 0 and "gap" in run.stderr
    assert np.isfinite(heart(tmp_path / "out.wav")).all()
    code, lines, stderr = classified(tmp_path / "in.wav")
    assert code == 0 and "gap" in stderr and np.isfinite(lines[0]["quality"])


@pytest.mark.parametrize(("seconds", "silent", "reason"), [(8.0, True, "silence"), (1.5, False, "2 s")])
def test_silence_and_too_short_are_unsure_with_the_reason(
    tmp_path: Path, normal_recording: Path, seconds: float, silent: bool, reason: str
) -> None:
    x = heart(normal_recording)[: int(seconds * 2000)] * (0 if silent else 1)
    soundfile.write(tmp_path / "in.wav", x, 2000)
    code, lines, _ = classified(tmp_path / "in.wav")
    assert code == 0 and lines[0]["label"] == "unsure"
    assert any(reason in text for text in lines[0]["reasons"])
    assert stethopi("denoise", tmp_path / "in.wav", tmp_path / "out.wav").returncode == 0
    if silent:
        assert not heart(tmp_path / "out.wav").any()


def test_the_input_is_never_the_output(tmp_path: Path) -> None:
    path = tmp_path / "in.wav"
    soundfile.write(path, np.zeros(4000), 2000)
    before = path.read_bytes()
    one_line(stethopi("denoise", path, path), path)
    os.symlink(path, tmp_path / "same.wav")
    assert stethopi("denoise", path, tmp_path / "same.wav").returncode == 2
    assert path.read_bytes() == before


def test_what_cannot_be_written_is_one_line_and_leaves_nothing(
    tmp_path: Path, normal_recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_way, out = tmp_path / "file", tmp_path / "out.wav"
    in_the_way.write_text("")
    for arguments, code in (
        (["denoise", normal_recording, in_the_way / "out.wav"], 1),
        (["denoise", normal_recording, out, "--plot", tmp_path / "picture.pdf"], 2),
        (["denoise", normal_recording.parent, tmp_path / "clean", "--plot", in_the_way], 2),
        (["classify", normal_recording, "--plot", in_the_way], 2),
    ):
        assert cli.main([str(argument) for argument in arguments]) == code
        said = capsys.readouterr()
        assert said.err.startswith("stethopi: ") and said.err.count("\n") == 1, said.err
        assert str(arguments[-1]) in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_in_a_folder_nothing_is_left_out_in_silence(tmp_path: Path, normal_recording: Path) -> None:
    folder, x = tmp_path / "in", heart(normal_recording)[:6000]
    folder.mkdir()
    soundfile.write(folder / "Herzton, links 1.wav", x, 2000)
    soundfile.write(folder / "Herzton, links 1.flac", x, 2000)
    (folder / "gone.wav").symlink_to("nowhere.wav")
    (folder / "loop.wav").symlink_to("loop.wav")
    run = stethopi("denoise", folder, tmp_path / "out", "--plot", tmp_path / "pictures")
    assert run.returncode == 2
    assert [line.split(": ")[1] for line in run.stderr.splitlines()] == [
        str(folder / "gone.wav"),
        str(folder / "loop.wav"),
    ]
    assert len(list((tmp_path / "out").iterdir())) == len(list((tmp_path / "pictures").iterdir())) == 2


def test_interrupted_it_says_one_line_and_leaves_no_process(tmp_path: Path, normal_recording: Path) -> None:
    for n in range(400):
        (tmp_path / f"{n}.flac").symlink_to(normal_recording.absolute())
    command = [sys.executable, "-m", "host.cli", "classify", "--json", "--processes", "2", str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        assert run.stdout is not None and run.stdout.readline()
        os.killpg(run.pid, signal.SIGINT)  # as the terminal does: to every process of the command
        _, said = run.communicate(timeout=120)
    assert run.returncode == 130 and "Traceback" not in said
    assert said.splitlines()[-1] == "stethopi: interrupted"
    with pytest.raises(ProcessLookupError):
        for _ in range(3000):
            os.killpg(run.pid, 0)
            time.sleep(0.01)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    run = stethopi("classify", tmp_path / "pipe.wav")
    assert run.returncode == 2
    assert "pipe.wav: is no regular file" in run.stderr


def test_rates_outside_the_range_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "slow.wav"
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + 2000, b"WAVE", b"fmt ", 16, 1, 1, 1000, 2000, 2, 16, b"data", 2000
    )
    path.write_bytes(header + bytes(2000))
    run = stethopi("denoise", path, tmp_path / "out.wav")
    one_line(run, path)
    assert "2000" in run.stderr.replace(",", "").replace(" Hz", "") or "2 kHz" in run.stderr


def test_no_torch_and_no_tensorflow_are_loaded(normal_recording: Path) -> None:
    code = (
        "import sys; from host import cli; cli.main(['classify', sys.argv[1]]); "
        "print(sorted({'torch', 'tensorflow', 'onnx'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(normal_recording)], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "[]"


# ---- whatever one file does, the others go on


def run_bytes(*arguments: object, encoding: str = "utf-8") -> tuple[int, bytes, bytes]:
    run = subprocess.run(
        [sys.executable, "-m", "host.cli", *map(os.fsencode, arguments)],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    return run.returncode, run.stdout, run.stderr


NAMES = (b"M\xfcller.wav", b"a$b$c_{.wav", "心音.wav".encode(), b"n" * 240 + b".wav", b"new\nline.wav")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_of_any_bytes(tmp_path: Path, normal_recording: Path, encoding: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    soundfile.write(folder / "a.wav", heart(normal_recording)[:12000], 2000)
    for name in NAMES[: 5 if encoding == "utf-8" else 3]:
        os.link(folder / "a.wav", os.fsencode(folder) + b"/" + name)
    code, out, _ = run_bytes("classify", "--json", folder, "--plot", tmp_path / "plots", encoding=encoding)
    assert code == 0
    told = [os.fsencode(json.loads(line)["file"]) for line in out.decode(encoding).splitlines()]
    assert sorted(told) == sorted(os.fsencode(path) for path in folder.iterdir())
    assert len(list((tmp_path / "plots").iterdir())) == len(told)
    code, out, _ = run_bytes("classify", folder, encoding=encoding)
    assert code == 0 and len(out.splitlines()) == len(told) + 1 and rb"M\xfcller" in out
    code, _, _ = run_bytes("denoise", folder, tmp_path / "out", encoding=encoding)
    assert code == 0 and sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(folder))


@pytest.mark.parametrize(
    "error", [ValueError("odd\nvalue"), MemoryError(), RecursionError(), OSError(5, "I/O error")]
)
def test_any_error_is_one_line_of_its_file(
    tmp_path: Path,
    normal_recording: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", heart(normal_recording)[:12000], 2000)
    read = batch.read_sound

    def breaks(path: Path, **more: object) -> object:
        if path.name == "a.wav":
            raise error
        return read(path, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(batch, "read_sound", breaks)
    assert batch.classify([tmp_path], as_json=True) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and str(tmp_path / "a.wav") in err
    first, second = map(json.loads, out.splitlines())
    assert "error" in first and "label" in second
    assert batch.denoise(tmp_path, tmp_path / "out") == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.wav"]


def _killed_by_three(job: int) -> str:
    if job == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return str(job)


def _lost(job: int) -> str:
    return f"lost {job}"


def test_a_process_that_is_killed_costs_its_file_alone() -> None:
    found = list(batch._each(_killed_by_three, _lost, range(6), 2, "test"))
    assert found == ["0", "1", "2", "lost 3", "4", "5"]


def test_links_other_kinds_and_shut_folders_are_told(
    tmp_path: Path,
    normal_recording: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, far = tmp_path / "in", tmp_path / "far"
    for place in (folder, far, folder / "shut"):
        place.mkdir()
        soundfile.write(place / "a.wav", heart(normal_recording)[:12000], 2000)
    (folder / "linked").symlink_to(far)
    (far / "loop").symlink_to(folder)
    for name in ("._a.wav", "b.m4a", "c.m4a", "d.mp3"):
        (folder / name).touch()
    look = os.scandir

    def shut(path: Path) -> object:
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return look(path)

    monkeypatch.setattr(os, "scandir", shut)
    assert batch.classify([folder], as_json=True) == 2
    out, err = capsys.readouterr()
    assert [Path(json.loads(line)["file"]).parent.name for line in out.splitlines()] == ["in", "linked"]
    assert "shut: cannot be looked into (Permission denied)" in err
    assert "3 files of other kinds left out (.m4a, .mp3)" in err
    assert batch.denoise(folder, tmp_path / "out") == 2
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.wav")) == [
        "a.wav",
        "linked/a.wav",
    ]


def test_the_loudest_channel_is_cleaned_and_judged(tmp_path: Path, normal_recording: Path) -> None:
    x = heart(normal_recording)
    soundfile.write(tmp_path / "mono.wav", x, 2000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([0 * x, x], axis=1), 2000)
    run = stethopi("denoise", tmp_path / "stereo.wav", tmp_path / "o.wav")
    assert "channel 1 is silent, channel 2 is not; give --channel 2 or --channel loudest" in run.stderr
    for channel in ("2", "loudest"):
        assert (
            stethopi("denoise", tmp_path / "stereo.wav", tmp_path / "s.wav", "--channel", channel).returncode
            == 0
        )
        assert stethopi("denoise", tmp_path / "mono.wav", tmp_path / "m.wav").returncode == 0
        assert np.array_equal(heart(tmp_path / "m.wav"), heart(tmp_path / "s.wav"))
    run = stethopi("classify", tmp_path / "stereo.wav", tmp_path / "mono.wav", "--json", "--channel", 2)
    assert run.returncode == 2 and "has 1 channel, and no channel 2" in run.stderr
    run = stethopi("denoise", tmp_path / "mono.wav", tmp_path / "m.wav", "--channel", "0")
    assert run.returncode == 2 and "must be a channel from 1, or loudest" in run.stderr


def test_floating_point_that_flac_clips_is_said(tmp_path: Path, normal_recording: Path) -> None:
    x = heart(normal_recording)
    soundfile.write(tmp_path / "f.wav", x / np.abs(x).max() * 3, 2000, subtype="FLOAT")
    run = stethopi("denoise", tmp_path / "f.wav", tmp_path / "o.flac")
    assert run.returncode == 0 and "beyond full scale and are clipped there" in run.stderr
    run = stethopi("denoise", tmp_path / "f.wav", tmp_path / "o.wav")
    assert "clipped there" not in run.stderr and np.abs(heart(tmp_path / "o.wav")).max() > 1.5
