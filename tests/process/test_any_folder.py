"""The programs in a folder that holds `device/`, `models/` … of somebody else: theirs is never run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest

from tests.process.programs import ROOT
from tests.waiting import until

pytestmark = pytest.mark.process

TRAP = "raise SystemExit('code of the folder was run')\n"
NAMES = ("device", "models", "host", "deploy", "training", "ctypes", "numpy")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where somebody works who has packages of these names, too."""
    made = tmp_path / "theirs"
    for name in NAMES:
        (made / name).mkdir(parents=True)
        (made / name / "__init__.py").write_text(TRAP)
    return made


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The console scripts of pyproject.toml, as pip writes them."""
    made = tmp_path / "bin"
    made.mkdir()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    for name, place in scripts.items():
        module, _, function = place.partition(":")
        # child processes of multiprocessing read it again, hence the condition
        lines = ["#!" + sys.executable, "import sys", f"from {module} import {function}"]
        lines += ["if __name__ == '__main__':", f"    sys.exit({function}())"]
        (made / name).write_text("\n".join(lines) + "\n")
        (made / name).chmod(0o755)
    return made


def run(folder: Path, *command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_an_exam_and_a_verdict_use_what_is_installed(
    programs: Path, folder: Path, murmur_recording: Path
) -> None:
    exam = (programs / "stethopi-device", "exam", "--source", "synthetic", "--seconds", "6", "--fast")
    done = run(folder, *exam)
    assert done.returncode == 0, done.stderr
    done = run(folder, sys.executable, "-I", "-m", *("device", *exam[1:]))
    assert done.returncode == 0, done.stderr
    done = run(
        folder, programs / "stethopi", "classify", "--processes", "2", murmur_recording, murmur_recording
    )
    assert done.returncode == 0, done.stderr


def test_another_package_called_models_hides_no_bundle(programs: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "site"
    (theirs / "models").mkdir(parents=True)
    (theirs / "models" / "__init__.py").write_text("answer = 42\n")
    code = (
        "from device.denoise import baseline; from device.inference import bundle; "
        "bundle.load(); print(baseline.classic_file('unet-classic'))"
    )
    done = run(tmp_path, sys.executable, "-c", code, PYTHONPATH=str(theirs))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_file()


def test_the_installer_runs_as_root_only_what_is_installed(programs: Path, folder: Path) -> None:
    done = run(folder, programs / "stethopi-install", "--dry-run", "--program", "/bin/true")
    assert done.returncode == 0 and "would run    systemctl daemon-reload" in done.stdout, done.stderr
    assert "usage: stethopi-install" in run(folder, programs / "stethopi-install", "--help").stdout


def test_the_demo_starts_the_installed_stethoscope(programs: Path, folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    with log.open("wb") as file:
        demo = subprocess.Popen(
            [str(programs / "stethopi"), "demo", "--no-browser", "--http", "0"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )

    def online() -> bool:
        assert demo.poll() is None, log.read_text()
        found = re.search(r"http://[\d.]+:\d+", log.read_text())
        if not found:
            return False
        with urllib.request.urlopen(f"{found.group()}/api/devices", timeout=30) as answer:
            return b"demo-stethoscope" in answer.read()

    try:
        until(online, "the stethoscope online")
    finally:
        demo.terminate()
        demo.wait(timeout=60)


def test_the_bench_measures_what_is_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from device.checks import bench

    monkeypatch.chdir(folder)
    assert bench._import_s("device.errors") > 0.0
    assert (bench.daemon_figures()["start_s"] or 0.0) > 0.0


def test_nothing_that_is_advised_takes_code_from_the_folder() -> None:
    """`python -m` looks into the current folder first; -I does not."""
    texts = [p for p in ROOT.glob("*.md") if p.name != "CHANGELOG.md"]
    for room in ("docs", "device", "host", "deploy", "models"):
        texts += [p for p in (ROOT / room).rglob("*") if p.suffix in (".md", ".py", ".service", ".toml")]
    advice = re.compile(r"python[0-9.]* -m (device|host|deploy|models)\b")
    assert [str(p.relative_to(ROOT)) for p in texts if advice.search(p.read_text("utf-8"))] == []
