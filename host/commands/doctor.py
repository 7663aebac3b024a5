"""`stethopi doctor`: what is there, what is missing, and the remedy; for the computer beside the doctor.

Python, packages, the interpreter, the bundle with its stored vectors, ports, the store's disk, a broker when
one is given. Exit code 0 when everything that is needed works, 1 when not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from device.checks.doctor import BAD, GOOD, NOTE, Check, model_checks, show
from device.errors import StethopiError

__all__ = ["add_parser", "checks"]

_PACKAGES = {
    "numpy": "every computation",
    "soundfile": "FLAC",
    "paho-mqtt": "talking to the broker",
    "scipy": "figures",
    "matplotlib": "--plot",
    "starlette": "the dashboard",
    "uvicorn": "the dashboard",
    "websockets": "the moving waveform",
    "jinja2": "the dashboard",
    "sqlalchemy": "the store",
    "amqtt": "the embedded broker and the demo",
}
_LEAST_FREE_MB = 500
_ASSETS = (
    "templates/base.html",
    "static/css/base.css",
    "static/js/home.js",
    "static/fonts/inter-latin.woff2",
)


def _python() -> Iterator[Check]:
    # an older one did not get so far: this file would not have been read
    yield Check("Python", GOOD, sys.version.split()[0])


def _packages() -> Iterator[Check]:
    from importlib import metadata

    for package, use in _PACKAGES.items():
        try:
            yield Check(package, GOOD, metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Check(package, BAD, f"missing; {use} needs it", "pip install 'stethopi[host]'")


def _pages() -> Iterator[Check]:
    from importlib import resources

    folder = Path(str(resources.files("host"))) / "dashboard"
    missing = [name for name in _ASSETS if not (folder / name).is_file()]
    if missing:
        yield Check("pages", BAD, f"missing: {', '.join(missing)}", "install stethopi again")
    else:
        yield Check("pages", GOOD, "templates, scripts and typeface are installed")


def _ports() -> Iterator[Check]:
    from host.commands.serve import DEFAULT_HTTP_PORT
    from host.ingest.embedded_broker import DEFAULT_PORT, port_is_free

    for name, port, option in (
        ("port of the dashboard", DEFAULT_HTTP_PORT, "--http 127.0.0.1:PORT"),
        ("port of a broker", DEFAULT_PORT, "--embedded-broker PORT"),
    ):
        if port_is_free(port):
            yield Check(name, GOOD, f"{port} is free")
        else:
            yield Check(name, NOTE, f"{port} is taken", f"another is used by itself, or choose one: {option}")


def _disk(store: Path) -> Iterator[Check]:
    import os
    import shutil

    folder = store
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        yield Check("store", BAD, f"{store} cannot be written", "give another folder with --store DIR")
        return
    free = shutil.disk_usage(folder).free / 1e6
    if free < _LEAST_FREE_MB:
        yield Check(
            "store", BAD, f"{store}: {free:.0f} MB free", "free some disk: exams wait on their devices"
        )
    else:
        yield Check("store", GOOD, f"{store}: {free / 1000:.1f} GB free")


def _broker(url: str, password_file: Path | None) -> Iterator[Check]:
    from device.delivery.link import broker_answers
    from host.ingest.address import broker_at

    broker = broker_at(url, password_file)
    version, says = broker_answers(broker)
    if version is None:
        yield Check("broker", BAD, f"{broker}: {says}", "start it, or correct address, user and password")
    else:
        yield Check("broker", GOOD, f"{broker} speaks MQTT {'5' if version == 5 else '3.1.1'}")


def checks(
    store: Path | None = None,
    *,
    bundle: Path | None = None,
    broker: str | None = None,
    password_file: Path | None = None,
) -> Iterator[Check]:
    """Every finding, one after the other; a check that fails in an unforeseen way is a finding too."""
    from host.commands.serve import default_store

    parts: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("Python", _python),
        ("packages", _packages),
        ("models", lambda: model_checks(bundle)),
        ("pages", _pages),
        ("ports", _ports),
        ("store", lambda: _disk(store or default_store())),
    ]
    if broker is not None:
        parts.append(("broker", lambda: _broker(broker, password_file)))
    for name, part in parts:
        try:
            yield from part()
        except ImportError as error:
            yield Check(
                name, BAD, f"not tried: {error.name or error} is missing", "pip install 'stethopi[host]'"
            )
        except StethopiError as error:
            says, _, remedy = str(error).partition("; ")
            yield Check(name, BAD, says, remedy)


def _run(arguments: argparse.Namespace) -> int:
    found: list[Check] = []
    for check in checks(
        arguments.store,
        bundle=arguments.bundle,
        broker=arguments.broker,
        password_file=arguments.password_file,
    ):
        found.append(check)
        if not arguments.json:
            print(show(check, width=22), flush=True)
    bad = sum(check.state == BAD for check in found)
    if arguments.json:
        print(json.dumps({"ok": not bad, "checks": [asdict(check) for check in found]}, indent=2))
    elif bad:
        print(f"{bad} of {len(found)} checks failed; the line of each says what to do")
    else:
        print("everything that is needed is there; try: stethopi demo")
    return 1 if bad else 0


def add_parser(commands: Any) -> None:
    """Add `doctor` to the subparsers of `stethopi`."""
    parser = commands.add_parser(
        "doctor",
        help="say what is there, what is missing, and the remedy",
        description="Check this installation: packages, models with their stored vectors, ports, disk, and a "
        "broker if one is given.",
        epilog="example: stethopi doctor --broker mqtt://pi-host:1883",
    )
    parser.add_argument("--store", type=Path, metavar="DIR", help="the folder that serve would use")
    parser.add_argument("--broker", metavar="URL", help="ask this broker too: mqtt://[USER@]HOST[:PORT]")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="the broker's password for USER")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="model bundle (default: the released one)")
    parser.add_argument("--json", action="store_true", help="one JSON object for programs")
    parser.set_defaults(func=_run)
