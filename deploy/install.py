"""Make the stethoscope a service of this machine: user, folders, settings, unit; or take it away again.

    sudo /opt/stethopi/bin/stethopi-install --dry-run      say what would be done
    sudo /opt/stethopi/bin/stethopi-install --start
    sudo /opt/stethopi/bin/stethopi-install --remove

Settings that are there stay as they are; exams and settings outlive --remove. --root writes below another
folder, an image's for example, and runs nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from device.cli import run_command
from device.durable import make_folder, replacing
from device.errors import BadInput, StethopiError
from device.settings.settings import Settings

__all__ = ["Step", "build_parser", "install_steps", "main", "remove_steps"]

UNIT = "stethopi-device.service"
SETTINGS = Path("/etc/stethopi/device.toml")
_FILES = {
    "sysusers.conf": Path("/etc/sysusers.d/stethopi.conf"),
    "tmpfiles.conf": Path("/etc/tmpfiles.d/stethopi.conf"),
    "polkit.rules": Path("/etc/polkit-1/rules.d/50-stethopi.rules"),
    UNIT: Path("/etc/systemd/system") / UNIT,
}
_JOURNAL = Path("/etc/systemd/journald.conf.d/stethopi.conf")
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""What the sandbox of the unit hides from the service."""


@dataclass(frozen=True)
class Step:
    """One thing to do: a file to write, a file to take away, or a command to run."""

    path: Path | None = None
    text: str | None = None
    """None with a path: take the file away."""
    mode: int = 0o644
    command: tuple[str, ...] = ()
    may_fail: bool = False

    def __str__(self) -> str:
        if self.path is None:
            return "run    " + " ".join(self.command)
        return f"remove {self.path}" if self.text is None else f"write  {self.path}"

    def do(self, root: Path) -> None:
        """StethopiError with the remedy when it cannot be done."""
        if self.path is None:
            if root != Path("/"):
                return
            try:
                subprocess.run(self.command, check=True, capture_output=True, text=True)
            except (OSError, subprocess.CalledProcessError) as error:
                if not self.may_fail:
                    said = (getattr(error, "stderr", None) or "failed").strip().splitlines()[-1]
                    raise StethopiError(
                        f"{' '.join(self.command)}: {said}; mend it, then install again"
                    ) from error
            return
        place = root / self.path.relative_to("/")
        try:
            if self.text is None:
                place.unlink(missing_ok=True)
                return
            make_folder(place.parent)
            with replacing(place) as temporary:
                temporary.write_text(self.text, "utf-8")
                temporary.chmod(self.mode)
        except OSError as error:
            raise StethopiError(f"{place}: {error.strerror}; run it with sudo, or with --root DIR") from error


def _shipped(name: str) -> str:
    return (files("deploy") / "systemd" / name).read_text("utf-8")


def _settings() -> str:
    """The reference, with the state folder that belongs to the service."""
    text, says = Settings.reference(), "# state_dir = "
    line = next(line for line in text.splitlines() if line.startswith(says))
    return text.replace(line, 'state_dir = "/var/lib/stethopi"')


def install_steps(
    program: Path, root: Path = Path("/"), *, start: bool = False, journal: bool = False
) -> Iterator[Step]:
    """What makes it a service. program: the `stethopi-device` that the unit is to run."""
    yield Step(_FILES["sysusers.conf"], _shipped("sysusers.conf"))
    yield Step(command=("systemd-sysusers",))
    settings = root / SETTINGS.relative_to("/")
    if not settings.exists():
        yield Step(SETTINGS, _settings(), 0o640)
    yield Step(_FILES["tmpfiles.conf"], _shipped("tmpfiles.conf"))
    yield Step(command=("systemd-tmpfiles", "--create", str(_FILES["tmpfiles.conf"])))
    yield Step(_FILES["polkit.rules"], _shipped("polkit.rules"))
    unit = _shipped(UNIT).replace("/opt/stethopi/bin/stethopi-device", str(program))
    yield Step(_FILES[UNIT], unit)
    if journal:
        yield Step(_JOURNAL, _shipped("journald.conf"))
        yield Step(command=("systemctl", "restart", "systemd-journald"))
    yield Step(command=("systemctl", "daemon-reload"))
    yield Step(command=("systemctl", "enable", UNIT))
    if start:
        yield Step(command=("systemctl", "restart", UNIT))


def remove_steps() -> Iterator[Step]:
    """What takes the service away. Settings, exams and the user stay: the exams are theirs."""
    yield Step(command=("systemctl", "disable", "--now", UNIT), may_fail=True)
    for path in (_FILES[UNIT], _FILES["tmpfiles.conf"], _FILES["polkit.rules"], _JOURNAL):
        yield Step(path)
    yield Step(command=("systemctl", "daemon-reload"), may_fail=True)


def _program(given: Path | None) -> Path:
    """The program for the unit; BadInput where the service could not run it."""
    program = given or Path(sys.executable).with_name("stethopi-device")
    if not program.is_absolute():
        program = Path.cwd() / program
    if not program.is_file() or not os.access(program, os.X_OK):
        raise BadInput(
            f"{program}: there is no such program; run: python3 -m venv /opt/stethopi && "
            "/opt/stethopi/bin/pip install '.[pi]'"
        )
    if any(c.isspace() or c in "%\"'\\" for c in str(program)):
        raise BadInput(f"{program}: a unit cannot name it; install into a folder of plain letters")
    if any(str(program).startswith(f"{folder}/") for folder in _HIDDEN):
        raise BadInput(
            f"{program}: the service may not look into that folder; install into /opt/stethopi: "
            "python3 -m venv /opt/stethopi && /opt/stethopi/bin/pip install '.[pi]'"
        )
    return program


def _install(arguments: argparse.Namespace) -> int:
    root = arguments.root
    if not root.is_dir():
        raise BadInput(f"--root {root}: no such folder; name one that holds a system")
    if arguments.remove:
        steps = list(remove_steps())
    else:
        program = _program(arguments.program)
        steps = list(install_steps(program, root, start=arguments.start, journal=arguments.volatile_journal))
    if root == Path("/") and not arguments.dry_run:
        if shutil.which("systemctl") is None:
            raise StethopiError("this machine has no systemd; run stethopi-device run by other means")
        if os.geteuid() != 0:
            raise StethopiError("it takes root to install a service; run it with sudo, or with --dry-run")
    for step in steps:
        print(f"would {step}" if arguments.dry_run else step, flush=True)
        if not arguments.dry_run:
            step.do(root)
    if not (arguments.dry_run or arguments.remove):
        unit = UNIT.removesuffix(".service")
        print(f"settings: {SETTINGS}; state: systemctl status {unit}; log: journalctl -u {unit}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="stethopi-install",
        description="Make the stethoscope a systemd service of this machine, or take it away again. Settings "
        "and exams that are there stay.",
        epilog="example: sudo /opt/stethopi/bin/stethopi-install --start",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--start", action="store_true", help="start it now, not only at the next boot")
    parser.add_argument(
        "--remove", action="store_true", help="take the service away; settings and exams stay"
    )
    parser.add_argument(
        "--volatile-journal",
        action="store_true",
        help="keep the journal of the whole machine in memory: it spares the card and ends with the power",
    )
    parser.add_argument(
        "--program", type=Path, metavar="FILE", help="stethopi-device to run (default: beside this Python)"
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("/"),
        metavar="DIR",
        help="write below DIR, and run nothing (default /)",
    )
    parser.set_defaults(func=_install)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run it; the exit code."""
    return run_command(build_parser, {}, argv)


if __name__ == "__main__":
    raise SystemExit(main())
