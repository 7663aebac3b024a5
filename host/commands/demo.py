"""`stethopi demo`: a virtual stethoscope, a broker and the dashboard, in one command and nothing to set up.

    stethopi demo                              a synthetic heart, with and without a murmur in turn
    stethopi demo --recording heart.wav        your recording, again and again

The stethoscope is the real daemon, `stethopi-device run`, in a process of its own; only its source is a file
or a synthetic heart. Broker, ingest, store and dashboard run in this one. Everything is written to a
temporary folder that goes when the demo ends (Ctrl-C).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device.errors import StethopiError

if TYPE_CHECKING:
    from device.delivery.link import Broker

__all__ = ["Stethoscope", "add_parser", "settings_text", "sources"]

PAUSE_S = 6.0
"""Between two exams."""

_SECONDS = 20
_FAILURES = 3
_END_S = 10.0

_TIED = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.executable, [sys.executable, "-P", "-m", "device.cli", "run", "--config", sys.argv[2]])
"""
"""The daemon, asking the kernel (PR_SET_PDEATHSIG) to be ended should the demo be killed without a word.

-P: or the folder that the demo was started in would come before what is installed, and a `device` that lies
there would run."""


def sources(recording: Path | None) -> Iterator[str]:
    """What the stethoscope hears, exam after exam."""
    if recording is not None:
        yield from itertools.repeat(f"file:{recording.absolute()}")
    for seed in itertools.count(1):
        murmur = "systolic" if seed % 2 else "none"
        rate = 64 + 7 * seed % 29
        yield (
            f"synthetic:murmur={murmur},grade=4,rate={rate},noise=white,noise_db=12,"
            f"seconds={_SECONDS},seed={seed}"
        )


def settings_text(source: str, broker: Broker, folder: Path, bundle: Path | None = None) -> str:
    """The settings file of the virtual stethoscope."""

    def quoted(value: object) -> str:
        return json.dumps(str(value), ensure_ascii=False)  # a JSON string is a TOML string

    return "\n".join(
        [
            "[device]",
            'id = "demo-stethoscope"',
            'fleet = "demo"',
            f"state_dir = {quoted(folder)}",
            "[source]",
            f"spec = {quoted(source)}",
            'pace = "real"',
            "[exam]",
            'sites = ["MV"]',
            f"max_s = {_SECONDS}",
            "good_windows = 10",
            "autostart = true",
            "exams = 1",
            "[mqtt]",
            f"host = {quoted(broker.host)}",
            f"port = {broker.port}",
            *(["[bundle]", f"path = {quoted(bundle.absolute())}"] if bundle else []),
            "",
        ]
    )


class Stethoscope:
    """The daemon as a process, started again for every exam; `tend` is to be called often.

    Raises StethopiError, with what the daemon said last, when it fails several times in a row.
    """

    def __init__(
        self,
        hears: Iterator[str],
        broker: Broker,
        folder: Path,
        *,
        bundle: Path | None = None,
        pause_s: float = PAUSE_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.exams = 0
        self._hears, self._broker, self._folder, self._bundle = hears, broker, folder, bundle
        self._pause_s, self._monotonic = pause_s, monotonic
        self._log = folder / "stethoscope.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._next_s = monotonic()
        self._failures = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def tend(self) -> None:
        """Start the next exam when it is time; take note of one that ended."""
        if self._process is None:
            if self._monotonic() >= self._next_s:
                self._start()
            return
        code = self._process.poll()
        if code is None:
            return
        self._process = None
        self._next_s = self._monotonic() + self._pause_s
        if code == 0:
            self.exams += 1
            self._failures = 0
            return
        self._failures += 1
        if self._failures >= _FAILURES:
            raise StethopiError(f"the virtual stethoscope does not run (exit {code}): {self.last_words()}")

    def last_words(self) -> str:
        """The last line that the daemon wrote."""
        try:
            lines = self._log.read_text("utf-8", errors="replace").split("\n")
        except OSError:
            lines = []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")

    def stop(self) -> None:
        """End the process, kindly first. Safe to call twice."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self) -> None:
        import os

        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "stethoscope.toml"
        text = settings_text(next(self._hears), self._broker, self._folder / "state", self._bundle)
        config.write_text(text, "utf-8")
        with self._log.open("ab") as log:
            # a session of its own: Ctrl-C is for the demo, which then ends the stethoscope in order
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _TIED, str(os.getpid()), str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def _open_browser(url: str) -> None:
    import threading
    import webbrowser

    # may take seconds, or wait for a text browser: never hold the demo up
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _say_what_is_left_out(recording: Path) -> None:
    """BadInput at once, instead of from the daemon, for a recording that cannot be used."""
    from device.sources.files import read_sound

    for note in read_sound(recording).notes:
        print(f"stethopi: {note}", file=sys.stderr)


def _run(arguments: argparse.Namespace) -> int:
    import logging

    from host.commands.serve import Ending, Host, start_logging
    from host.ingest.embedded_broker import DEFAULT_PORT, EmbeddedBroker

    start_logging()
    logging.getLogger().setLevel(logging.WARNING)
    if arguments.recording is not None:
        _say_what_is_left_out(arguments.recording)
    if arguments.bundle is not None:
        from device.inference import bundle as bundles

        bundles.load(arguments.bundle)  # told now, instead of by a stethoscope that does not start
    with contextlib.ExitStack() as stack:
        ending = stack.enter_context(Ending())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stethopi-demo-")))
        host = Host(
            folder / "store",
            embedded=EmbeddedBroker(DEFAULT_PORT),
            http_port=arguments.http,
            bundle=arguments.bundle,
        )
        stack.enter_context(host)
        address = host.broker_address
        for what, wanted, used in (
            ("dashboard", arguments.http, host.http_port),
            ("broker", DEFAULT_PORT, address.port),
        ):
            if wanted not in (0, used):
                print(f"port {wanted} is taken, the {what} uses {used}")
        stethoscope = Stethoscope(
            sources(arguments.recording), address, folder / "stethoscope", bundle=arguments.bundle
        )
        stack.callback(stethoscope.stop)
        heard = arguments.recording.name if arguments.recording is not None else "a synthetic heart"
        print(f"\n  {host.url}\n")
        print(f"A virtual stethoscope listens to {heard}. Open the page: its sound moves, and after")
        print("10 to 20 seconds the exam arrives with its verdict; click on it to see and hear both sounds.")
        print("It screens; it does not diagnose. Not a medical device. Ctrl-C ends it.", flush=True)
        if not arguments.no_browser:
            _open_browser(host.url)
        ending.wait(stethoscope.tend)
        print("\nending …", flush=True)
    return 0


def _port(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text}: must be a port, 0 to 65535")
    return value


def add_parser(commands: Any) -> None:
    """Add `demo` to the subparsers of `stethopi`."""
    from host.commands.serve import DEFAULT_HTTP_PORT

    parser = commands.add_parser(
        "demo",
        help="a virtual stethoscope, a broker and the dashboard, in one command",
        description="Run a virtual stethoscope, a broker and the dashboard until Ctrl-C; nothing to set up, "
        "nothing left behind. It screens; it does not diagnose, and it is no medical device.",
        epilog="example: stethopi demo --recording heart.wav",
    )
    parser.add_argument(
        "--recording",
        type=Path,
        metavar="FILE",
        help="WAV or FLAC that the stethoscope hears in real time (default: a synthetic heart)",
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    parser.add_argument(
        "--http",
        type=_port,
        default=DEFAULT_HTTP_PORT,
        metavar="PORT",
        help=f"port of the dashboard (default: {DEFAULT_HTTP_PORT}; a free one when it is taken)",
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="model bundle (default: the released one)")
    parser.set_defaults(func=_run)
