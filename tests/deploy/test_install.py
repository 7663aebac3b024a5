"""The installer: what it writes, what it leaves alone, and a unit that opens no door too many."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import install
from device import errors
from device.delivery.link import Link
from device.settings.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
UNIT = ROOT / "deploy" / "systemd" / "stethopi-device.service"
MOST_EXPOSED = 2.5
"""By `systemd-analyze security`: 0 is locked up, 10 is open."""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program where a service may have one."""
    monkeypatch.setattr(install, "_HIDDEN", ("/home",))
    made = tmp_path / "opt" / "stethopi-device"
    made.parent.mkdir()
    made.write_text("#!/bin/sh\n")
    made.chmod(0o755)
    return made


def written(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): p.read_text() for p in sorted(root.rglob("*")) if p.is_file()}


def test_it_writes_the_service_below_a_root(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "image"
    root.mkdir()
    assert install.main(["--program", str(program), "--root", str(root), "--start"]) == 0
    assert sorted(written(root)) == [
        "etc/polkit-1/rules.d/50-stethopi.rules",
        "etc/stethopi/device.toml",
        "etc/systemd/system/stethopi-device.service",
        "etc/sysusers.d/stethopi.conf",
        "etc/tmpfiles.d/stethopi.conf",
    ]
    unit = written(root)["etc/systemd/system/stethopi-device.service"]
    assert f"ExecStart={program} run --config /etc/stethopi/device.toml\n" in unit
    settings = Settings.load(root / "etc/stethopi/device.toml")
    assert settings.device.state_dir == Path("/var/lib/stethopi")
    assert (root / "etc/stethopi/device.toml").stat().st_mode & 0o777 == 0o640
    assert "systemctl restart" in capsys.readouterr().out


def test_settings_that_are_there_stay_and_outlive_the_service(program: Path, tmp_path: Path) -> None:
    settings = tmp_path / "etc/stethopi/device.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text('[device]\nid = "mine"\n')
    arguments = ["--program", str(program), "--root", str(tmp_path)]
    assert install.main(arguments) == 0
    once = written(tmp_path)
    assert install.main([*arguments, "--volatile-journal"]) == 0
    twice = written(tmp_path)
    assert "Storage=volatile" in twice.pop("etc/systemd/journald.conf.d/stethopi.conf")
    assert once == twice
    assert install.main(["--remove", "--root", str(tmp_path)]) == 0
    left = written(tmp_path)
    assert left["etc/stethopi/device.toml"] == '[device]\nid = "mine"\n'
    assert not [path for path in left if path.endswith((".service", "journald.conf.d/stethopi.conf"))]


def test_a_dry_run_does_nothing(program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = written(tmp_path)
    assert install.main(["--dry-run", "--start", "--program", str(program), "--root", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert written(tmp_path) == before
    assert all(line.startswith("would ") for line in said)
    assert "would run    systemd-sysusers" in said and "would write  /etc/stethopi/device.toml" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--root", "/nowhere"], "--root /nowhere: no such folder"),
        (["--program", "/nowhere/stethopi-device"], "pip install '.[pi]'"),
        (
            ["--program", "{home}/stethopi-device"],
            "may not look into that folder; install into /opt/stethopi",
        ),
        (["--program", "{spaced}/stethopi-device"], "install into a folder of plain letters"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"home": tmp_path / "home", "spaced": tmp_path / "with space"}
    for place in places.values():
        place.mkdir()
        shutil.copy("/bin/true", place / "stethopi-device")
    monkeypatch.setattr(install, "_HIDDEN", (str(places["home"]),))
    assert install.main(["--dry-run", *(word.format(**places) for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error


def test_a_command_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(errors.StethopiError, match=r"false: failed; mend it"):
        install.Step(command=("false",)).do(Path("/"))
    install.Step(command=("false",), may_fail=True).do(Path("/"))
    install.Step(command=("false",)).do(tmp_path)  # a root that is not this machine's: nothing is run


def test_without_root_it_says_so() -> None:
    """As another user, who can write nothing."""
    if os.geteuid() == 0:
        with pytest.raises(errors.StethopiError, match="run it with sudo"):
            install.Step(Path("/proc/nothing"), "text").do(Path("/"))
        return
    run = subprocess.run([sys.executable, "-m", "deploy.install"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode != 0 and "sudo" in run.stderr


# ---- the unit


def directives() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_the_sandbox_is_tight_enough() -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.fail("systemd-analyze is not installed; type: apt-get install -y systemd")
    run = subprocess.run(
        [program, "security", "--offline=true", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_COLORS": "0", "LC_ALL": "C"},
        check=False,
    )
    exposed = re.search(r"exposure level for \S+: ([0-9.]+)", run.stdout)
    assert exposed, run.stdout + run.stderr
    assert float(exposed[1]) <= MOST_EXPOSED


def test_the_unit_waits_longer_than_the_daemon_may_take() -> None:
    from device.daemon import daemon, service

    said = directives()
    assert said["Type"] == ["notify"] and said["Restart"] == ["always"]
    watchdog_s, stop_s = float(said["WatchdogSec"][0]), float(said["TimeoutStopSec"][0])
    assert daemon.SILENT_AFTER_S < service.SAMPLES_S < watchdog_s
    assert stop_s > daemon.END_S + 30
    assert said["User"] == ["stethopi"] and said["NoNewPrivileges"] == ["yes"]
    assert "StartLimitIntervalSec" in said, "it is started again, however often"
    # a loop that rests between tries of the broker must not look dead
    assert Link._rest and service.UPLINK_S > 60


def test_user_and_groups_are_made_that_the_unit_asks_for() -> None:
    users = (ROOT / "deploy/systemd/sysusers.conf").read_text()
    for group in directives()["SupplementaryGroups"][0].split():
        assert re.search(rf"^m stethopi {group}$", users, re.MULTILINE), group
    assert re.search(r"^u stethopi ", users, re.MULTILINE)
