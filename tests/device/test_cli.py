"""`stethopi-device`: what a person types and reads, with the released bundle."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device.checks import bench, doctor
from device.cli import build_parser, main
from device.contract.codec import from_json
from device.contract.exam import Exam
from device.contract.topics import read
from device.daemon.models import load_models
from device.settings.settings import Settings
from device.sources.files import read_sound
from device.storage.outbox import Outbox
from tests.brokers import Mosquitto, free_port
from tests.device.exams import make_exam
from tests.device.hosts import Ingest
from tests.waiting import until

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def _quiet_logging() -> Iterator[None]:
    """basicConfig of a command must not outlive its test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    """Write a settings file; its state folder is the test's."""

    def write(**sections: dict[str, Any]) -> Path:
        table = {"device": {"id": "stetho-1", "fleet": "village", "state_dir": str(tmp_path / "state")}}
        for section, values in sections.items():
            table[section] = {**table.get(section, {}), **values}
        path = tmp_path / "device.toml"
        lines = []
        for section, values in table.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


def parcels(folder: Path) -> list[tuple[Exam, dict[str, Path]]]:
    box = Outbox(folder / "state" / "outbox")
    found = []
    while (parcel := box.claim()) is not None:
        found.append((read(Exam, parcel.result), {s.site: s.path for s in parcel.sounds}))
    box.close()
    return found


# ---- exam


def test_one_exam_of_a_real_recording(
    config: Callable[..., Path], tmp_path: Path, murmur_recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "exam",
        "--config",
        str(config()),
        "--source",
        f"file:{murmur_recording}",
        "--site",
        "PV",
        "--fast",
    ]
    assert main([*arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    exam = from_json(Exam, said["exam"])
    assert said["delivered"] is False
    assert [site.site for site in exam.sites] == ["PV"]
    whole = read_sound(murmur_recording)
    assert exam.sites[0].samples == len(whole.samples)
    ((kept, files),) = parcels(tmp_path)
    assert kept == exam
    assert (read_sound(files["PV"]).samples == whole.samples).all()
    # the same sound again: the same windows and verdict
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert re.search(rf"^verdict +{exam.verdict.label}", text, re.M)
    assert "set [mqtt] host to deliver it" in text
    assert "no medical device" in text
    again = parcels(tmp_path)[1][0]
    assert again.sites[0].windows == exam.sites[0].windows and again.verdict == exam.verdict


def test_seconds_are_just_so_many(
    config: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["exam", "--config", str(config()), "--source", "synthetic", "--seconds", "6", "--fast"]) == 0
    assert "MV: 6.0 s (longest)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["exam", "--source", "file:nothing.wav"], "nothing.wav"),
        (["exam", "--source", "telephone"], "no such kind"),
        (["run", "--config", "nowhere.toml"], "nowhere.toml: no such settings file"),
        (["bench", "--rate", "50"], "--rate 50: not from 2000 to 192000 Hz"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DEBUG", raising=False)
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stethopi:")]
    assert len(lines) == 1 and says in lines[0]


def test_debug_adds_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEBUG", "1")
    assert main(["settings", "--config", "nowhere.toml"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "301", "soon"])
def test_seconds_out_of_range_are_usage(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["exam", "--seconds", seconds])
    assert ended.value.code == 2
    assert "from 1 to 300" in capsys.readouterr().err


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "exam", "doctor", "bench", "settings"):
        with pytest.raises(SystemExit) as ended:
            build_parser().parse_args([command, "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert "example: stethopi-device" in text and "--config FILE" in text
    assert main([]) == 2
    assert "print every setting, or check a file" in capsys.readouterr().err, "the menu"


def test_settings_are_printed_and_checked(
    config: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["settings"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "printed.toml").write_text(printed)
    assert Settings.load(tmp_path / "printed.toml") == Settings.load(None)
    assert main(["settings", "--config", str(config())]) == 0
    assert "all is well" in capsys.readouterr().out


# ---- doctor and bench


def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}


def test_doctor_finds_all_well_and_proves_the_models(
    config: Callable[..., Path], mosquitto: Mosquitto, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(source={"spec": "synthetic"}, mqtt={"host": mosquitto.host, "port": mosquitto.port})
    assert main(["doctor", "--config", str(path), "--json"]) == 0
    found = findings(capsys)
    assert all(check["state"] in ("ok", "note") for check in found.values())
    assert "speaks MQTT 5" in found["broker"]["says"]
    assert "stored vector" in found["denoiser"]["says"] and "stored windows" in found["classifier"]["says"]
    assert found["outbox"]["says"] == "empty: no exam was recorded yet"


def test_doctor_names_what_is_missing_and_the_remedy(
    config: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(
        source={"spec": f"file:{tmp_path / 'gone.wav'}"},
        mqtt={"host": "127.0.0.1", "port": free_port()},
        bundle={"path": str(tmp_path / "no-bundle")},
        panel={"kind": "gpio"},
    )
    assert main(["doctor", "--config", str(path), "--json"]) == 1
    bad = {name: check for name, check in findings(capsys).items() if check["state"] == "bad"}
    assert set(bad) == {"models", "source", "panel", "broker"}
    assert "connection refused" in bad["broker"]["says"] and "[mqtt]" in bad["broker"]["remedy"]
    assert "no-bundle" in bad["models"]["says"]
    assert all(check["remedy"] for check in bad.values())


def test_doctor_reads_the_outbox_while_the_daemon_has_it(
    config: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(source={"spec": "synthetic"})
    box = Outbox(tmp_path / "state" / "outbox")
    (box.sounds / "cut-AV.flac").write_bytes(b"x")
    box.close()
    box = Outbox(tmp_path / "state" / "outbox")
    assert main(["doctor", "--config", str(path)]) == 0
    text = capsys.readouterr().out
    assert "0 waiting, 0 delivered" in text and "1 recordings that were cut off are kept in" in text
    box.close()


def test_doctor_says_what_to_delete_on_a_full_card(
    config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(source={"spec": "synthetic"}, outbox={"quota_mb": 1})
    box = Outbox(tmp_path / "state" / "outbox")
    (box.sounds / "partial").mkdir()
    (box.sounds / "partial" / "cut-AV.wav").write_bytes(bytes(3_000_000))
    exam = make_exam({"AV": bytes(900_000)})
    (box.sounds / "waits.flac").write_bytes(bytes(900_000))
    box.put(exam, {"AV": box.sounds / "waits.flac"})
    box.close()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=90_000_000))
    found = {check.name: check for check in doctor.checks(path) if check.state == doctor.BAD}
    assert found["disk"].says.endswith("90 MB free")
    assert "delete recordings that were cut off in" in found["disk"].remedy
    assert (
        "sound/partial (3 MB), old logs" in found["disk"].remedy and "quarantine" not in found["disk"].remedy
    )
    assert found["outbox"].says == "1 waiting use up [outbox] quota_mb = 1: no exam begins"
    assert found["outbox"].remedy.endswith("or raise quota_mb")


def test_doctor_says_when_the_machine_computes_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    from device.denoise import stream as denoise
    from device.screening import screen

    monkeypatch.setattr(denoise, "vector_difference_db", lambda bundle, name="denoiser": 12.0)
    real = screen.Int8Network.__call__
    monkeypatch.setattr(screen.Int8Network, "__call__", lambda self, x: real(self, x) + 3.0)
    found = {check.name: check for check in doctor.model_checks()}
    for name in ("denoiser", "ecg model", "classifier"):
        assert found[name].state == doctor.BAD
        assert "computes wrongly" in found[name].remedy


def test_doctor_tells_of_a_settings_file_that_is_wrong(
    config: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(mqtt={"hots": "pi-host"})
    assert main(["doctor", "--config", str(path)]) == 1
    assert re.search(r"^BAD +settings .*hots: no such key", capsys.readouterr().out, re.M)


def test_bench_measures_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--seconds", "7", "--rate", "8000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    stages = {stage["stage"]: stage for stage in found["stages"]}
    assert set(stages) == {"decimate", "denoise", "quality", "rhythm", "classify"}
    for stage in stages.values():
        assert 0 < stage["p50_ms"] <= stage["p99_ms"] <= stage["p999_ms"]
        assert stage["steps"] > 0 and stage["missed"] >= 0 and stage["real_time_factor"] > 0
    # 7 s of sound less the samples that wait for a whole hop
    assert 860 <= stages["denoise"]["steps"] <= 875
    assert found["windows"] == 2 and found["memory_mb"] > 10 and found["import_s"] > 0
    assert all(value > 0 for value in found["mac_per_s"].values())
    table = bench.table(found)
    assert "MMAC/s" in table and "denoise" in table


def test_the_shipped_path_loads_the_bundle() -> None:
    models = load_models(Settings())
    assert type(models.denoiser).__name__ == "Denoiser" and type(models.judge).__name__ == "Screener"
    assert models.version


# ---- as a process


def start(config: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "device", *(arguments or ("run",)), "--config", str(config)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def read_until(process: subprocess.Popen[str], wanted: str) -> str:
    """Lines of its stderr up to the one that holds `wanted`."""
    assert process.stderr is not None
    text = ""
    for line in process.stderr:
        text += line
        if wanted in line:
            return text
    pytest.fail(f"it ended without saying {wanted!r}:\n{text}")


@pytest.mark.process
def test_killed_in_an_exam_a_partial_is_reported_and_no_exam(
    config: Callable[..., Path], tmp_path: Path
) -> None:
    path = config(source={"spec": "synthetic"}, exam={"autostart": True, "min_s": 50, "max_s": 60})
    process = start(path)
    read_until(process, "recording AV")
    (spool,) = until(lambda: list((tmp_path / "state/outbox/sound").glob("*.partial")))
    until(lambda: spool.stat().st_size > 3000)
    process.kill()
    process.wait()
    again = start(path)
    text = read_until(again, "recording AV")
    assert re.search(r"partial recording of \d\.\d s found, kept as .*/partial/", text)
    (second,) = until(lambda: list((tmp_path / "state/outbox/sound").glob("*.partial")))
    until(lambda: second.stat().st_size > 3000)
    again.send_signal(signal.SIGTERM)
    assert again.wait(60) == 0
    # the first is a partial, the second was ended as it was
    ((exam, _),) = parcels(tmp_path)
    assert exam.ended == "stopped" and exam.id in second.name


@pytest.mark.process
def test_killed_after_put_there_is_exactly_one_exam_at_the_host(
    config: Callable[..., Path], tmp_path: Path, mosquitto: Mosquitto
) -> None:
    mosquitto.kill()
    path = config(
        source={"spec": "synthetic"},
        exam={"autostart": True, "exams": 1, "sites": ["AV"], "min_s": 3, "max_s": 3},
        mqtt={"host": mosquitto.host, "port": mosquitto.port},
    )
    process = start(path)
    text = read_until(process, "is in the outbox")
    process.kill()
    process.wait()
    exam_id = re.findall(r"exam (\S+) is in the outbox", text)[0]
    mosquitto.start()
    silent = config(
        source={"spec": "synthetic"},
        exam={"autostart": False},
        mqtt={"host": mosquitto.host, "port": mosquitto.port},
    )
    with Ingest(mosquitto.host, mosquitto.port) as host:
        again = start(silent)
        until(lambda: host.stored)
        (path_kept,) = (tmp_path / "state/outbox/sound").glob("*.flac")
        assert host.stored == {exam_id: {"AV": path_kept.read_bytes()}}
        again.send_signal(signal.SIGTERM)
        assert again.wait(60) == 0
        assert host.wrong == []
        assert list(host.results) == [exam_id]


@pytest.mark.process
def test_ctrl_c_ends_cleanly(config: Callable[..., Path]) -> None:
    process = start(config(source={"spec": "synthetic"}))
    read_until(process, "listening to synthetic heart")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
