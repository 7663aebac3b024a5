"""The command `stethopi-device`: run the daemon, record one exam, look after the device, measure it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device import __version__
from device.errors import StethopiError
from device.text import one_line, printable

if TYPE_CHECKING:
    from device.contract.exam import Exam
    from device.settings.settings import Settings

__all__ = ["build_parser", "main", "run_command"]

_NO_DIAGNOSIS = "It screens; it does not diagnose, and it is no medical device."
_SITES = ("AV", "PV", "TV", "MV", "other")
_EXTRA_OF = {"numpy": "device", "soundfile": "device", "paho": "device", "pyaudio": "pi"}


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 1.0 <= value <= 300.0:
        raise argparse.ArgumentTypeError(f"{text}: must be a number from 1 to 300")
    return value


def _run(arguments: argparse.Namespace) -> int:
    from device.daemon.daemon import Daemon
    from device.daemon.service import start_logging
    from device.settings.settings import Settings

    start_logging()
    return Daemon(Settings.load(arguments.config)).run()


def _exam(arguments: argparse.Namespace) -> int:
    from device.daemon.daemon import Daemon
    from device.daemon.from_settings import one_exam
    from device.daemon.service import start_logging
    from device.settings.settings import Settings

    start_logging()
    settings = Settings.load(arguments.config)
    if arguments.source:
        settings = settings.change("source", spec=arguments.source)
    if arguments.channel:
        settings = settings.change("source", channel=arguments.channel)
    if arguments.fast:
        settings = settings.change("source", pace="fast")
    settings = one_exam(settings, arguments.site, arguments.seconds)
    daemon = Daemon(settings, patient=False)
    code = daemon.run()
    if code:
        return code
    if not daemon.exams:
        raise StethopiError("no exam came of it: nothing was recorded; check the microphone and try again")
    exam = daemon.exams[-1]
    delivered = exam.id in daemon.delivered
    if arguments.json:
        from device.contract.codec import to_json

        print(json.dumps({"delivered": delivered, "exam": to_json(exam)}))
    else:
        print(printable(_findings(exam, delivered, settings), sys.stdout))
    return 0


def _findings(exam: Exam, delivered: bool, settings: Settings) -> str:
    """What a person wants to know of an exam."""

    def said(value: float | None, form: str = "{:.2f}") -> str:
        return "unknown" if value is None else form.format(value)

    verdict = exam.verdict
    lines = [
        f"exam {exam.id}",
        f"verdict      {verdict.label}" + (f" ({', '.join(verdict.reasons)})" if verdict.reasons else ""),
        f"probability  {said(verdict.probability)} of abnormal; murmur {said(verdict.murmur)}",
        f"quality      {said(verdict.quality)}",
        f"heart rate   {said(exam.heart_rate_bpm, '{:.0f} beats/min')}",
    ]
    for site in exam.sites:
        gaps = f", gaps: {len(site.gaps)}" if site.gaps else ""
        clipped = f", clipped stretches: {len(site.clipped)}" if site.clipped else ""
        lines.append(
            f"site         {site.site}: {site.seconds:.1f} s ({site.ended}), "
            f"{site.good_windows} of {len(site.windows)} windows good{gaps}{clipped}"
        )
    missed = sum(stage.missed for stage in exam.latency)
    lines.append(
        f"delay        {exam.delay.total_ms:.1f} ms from sample to clean sound; {missed} budgets missed"
    )
    if delivered:
        where = "delivered: the host has stored it"
    elif settings.mqtt.host:
        where = "in the outbox; it goes out when broker and host can be reached"
    else:
        where = "in the outbox; set [mqtt] host to deliver it"
    lines += [f"delivery     {where}", _NO_DIAGNOSIS]
    return "\n".join(lines)


def _doctor(arguments: argparse.Namespace) -> int:
    from device.checks import doctor

    return doctor.run(arguments.config, as_json=arguments.json)


def _bench(arguments: argparse.Namespace) -> int:
    from device.checks import bench

    return bench.run(
        arguments.seconds,
        arguments.rate,
        as_json=arguments.json,
        bundle=arguments.bundle,
        instructions=arguments.instructions,
        to=arguments.write,
    )


def _settings(arguments: argparse.Namespace) -> int:
    from device.settings.settings import Settings

    if arguments.config:
        Settings.load(arguments.config)
        print(f"{arguments.config}: all is well")
    else:
        print(Settings.reference(), end="")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; importing no more than the standard library."""
    parser = argparse.ArgumentParser(
        prog="stethopi-device",
        description=f"The stethoscope itself: hear, clean, screen, deliver. {_NO_DIAGNOSIS}",
        epilog="example: stethopi-device exam --source synthetic:murmur=systolic --seconds 20",
    )
    parser.add_argument("--version", action="version", version=f"stethopi {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, work: Callable[..., Any], says: str, description: str, example: str) -> Any:
        sub = commands.add_parser(name, help=says, description=description, epilog=f"example: {example}")
        sub.set_defaults(func=work)
        sub.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help="settings file, TOML (default: what $STETHOPI_CONFIG names, else the defaults)",
        )
        return sub

    command(
        "run",
        _run,
        "work as the settings say, until SIGTERM or Ctrl-C",
        "Run the daemon: listen, examine when asked (button, command, or [exam] autostart), deliver.",
        "stethopi-device run --config device.toml",
    )

    exam = command(
        "exam",
        _exam,
        "record one exam and print the findings",
        f"Record one exam, print the findings, queue it for the host. {_NO_DIAGNOSIS}",
        "stethopi-device exam --source synthetic:murmur=systolic --site MV --seconds 20",
    )
    exam.add_argument(
        "--source",
        metavar="SPEC",
        help="microphone[:NAME], file:PATH or synthetic[:rate=70,murmur=systolic] (default: by the settings)",
    )
    exam.add_argument("--site", choices=_SITES, default="MV", help="auscultation site (default MV)")
    exam.add_argument(
        "--seconds",
        type=_seconds,
        metavar="S",
        help="length of the recording, 1 to 300 s (default: until enough of it is good)",
    )
    exam.add_argument(
        "--channel",
        metavar="N",
        help="which channel of a source that has several: 1 (left), 2 (right) ..., or of a file the loudest",
    )
    exam.add_argument("--fast", action="store_true", help="a file as fast as it goes, not in real time")
    exam.add_argument("--json", action="store_true", help="print the exam as one JSON object")

    doctor = command(
        "doctor",
        _doctor,
        "what is there, what is missing, the remedy",
        "Check interpreter, models, sound card, pins, broker, clock, disk and outbox. Exit code 1 when "
        "something is broken.",
        "stethopi-device doctor --config device.toml",
    )
    doctor.add_argument("--json", action="store_true", help="one JSON object")

    bench = command(
        "bench",
        _bench,
        "time of every stage, memory, start",
        "Run all stages on a synthetic heart: p50, p99, p99.9 a step, missed budgets, real-time factor, "
        "operations, instructions; memory and start time of the daemon.",
        "stethopi-device bench --seconds 30 --json",
    )
    bench.add_argument("--json", action="store_true", help="one JSON object")
    bench.add_argument(
        "--instructions",
        action="store_true",
        help="count the instructions of each stage too (takes valgrind and half a minute)",
    )
    bench.add_argument(
        "--write", type=Path, metavar="FILE", help="put the figures into a file of several machines'"
    )
    bench.add_argument(
        "--seconds", type=_seconds, default=30.0, metavar="S", help="seconds of sound, 1 to 300 (default 30)"
    )
    bench.add_argument(
        "--rate",
        type=int,
        default=48000,
        metavar="HZ",
        help="rate of the source, 2000 to 192000 Hz (default 48000)",
    )
    bench.add_argument(
        "--bundle", type=Path, metavar="DIR", help="model bundle (default: the newest there is)"
    )

    command(
        "settings",
        _settings,
        "print every setting, or check a file",
        "Print a settings file with every key, its meaning, unit, range and default; with --config, check "
        "that file.",
        "stethopi-device settings > device.toml",
    )
    return parser


def run_command(
    build: Callable[[], argparse.ArgumentParser], extra_of: Mapping[str, str], argv: list[str] | None = None
) -> int:
    """Parse and run a command; the exit code: 0 fine, 1 ran and failed, 2 bad input or usage. What went wrong
    is one line on stderr; DEBUG=1 adds the traceback. No command at all: the menu, and 2.

    extra_of: which extra brings a package.
    """
    debug = bool(os.environ.get("DEBUG"))
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # of device.start
            signal.signal(signal.SIGINT, signal.default_int_handler)
        parser, words = build(), sys.argv[1:] if argv is None else argv
        if not words:
            parser.print_help(sys.stderr)
            return 2
        arguments = parser.parse_args(words)
        return int(arguments.func(arguments) or 0)
    except StethopiError as error:
        if debug:
            traceback.print_exc()
        print(printable(one_line(f"stethopi: {error}"), sys.stderr), file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if debug or package not in extra_of:
            raise
        print(
            f"stethopi: this command needs {package}; run: pip install 'stethopi[{extra_of[package]}]'",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("stethopi: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader (head, less) has gone; there is nobody left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def main(argv: list[str] | None = None) -> int:
    """Run `stethopi-device`; its exit code."""
    return run_command(build_parser, _EXTRA_OF, argv)


if __name__ == "__main__":
    raise SystemExit(main())
