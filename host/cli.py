"""The command `stethopi`: everything on the host, each part imported only when it is used."""

from __future__ import annotations

import argparse
from pathlib import Path

from device import __version__
from device.cli import run_command

__all__ = ["build_parser", "main"]

_EXTRA_OF = {
    "numpy": "host",
    "scipy": "host",
    "soundfile": "host",
    "tflite_runtime": "host",
    "matplotlib": "host",
    "starlette": "host",
    "uvicorn": "host",
    "sqlalchemy": "host",
    "jinja2": "host",
    "websockets": "host",
    "amqtt": "host",
    "segno": "host",
    "paho": "host",
    "edfio": "host",
    "torch": "train",
    "torch_pruning": "train",
    "onnx2tf": "train",
    "onnx": "train",
    "onnxscript": "train",
    "pywt": "train",
    "noisereduce": "train",
    "neurokit2": "train",
    "wfdb": "train",
    "tensorflow": "train",
}
"""Which extra brings a package, by the package's import name."""


def _denoise(arguments: argparse.Namespace) -> int:
    from host.files import batch as offline

    return offline.denoise(
        arguments.input,
        arguments.output,
        plot=arguments.plot,
        strength=arguments.strength,
        bundle=arguments.bundle,
        processes=arguments.processes,
        states=arguments.states,
        kind=arguments.kind,
        model=arguments.model,
        channel=arguments.channel,
        rate_hz=arguments.rate,
    )


def _classify(arguments: argparse.Namespace) -> int:
    from host.files import batch as offline

    return offline.classify(
        arguments.inputs,
        as_json=arguments.json,
        plot=arguments.plot,
        bundle=arguments.bundle,
        processes=arguments.processes,
        channel=arguments.channel,
    )


def _channel(text: str) -> int | str:
    if text == "loudest":
        return text
    try:
        return _count(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text}: must be a channel from 1, or loudest") from None


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 100 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text}: must be a number from 100 to 1000")
    return value


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text}: must be a number from 0 to 1")
    return value


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number, 1 or more")
    return value


def _add_file_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    denoise = commands.add_parser(
        "denoise",
        help="clean a recording, or a folder of them, as the device would",
        description="Clean heart sound, or an ECG, by exactly the device's streaming int8 path. OUT has IN's "
        "kind, rate, length and alignment. Not a diagnostic device.",
        epilog="example: stethopi denoise noisy.wav clean.wav --plot before-after.png",
    )
    denoise.add_argument(
        "input",
        type=Path,
        metavar="IN",
        help="WAV or FLAC, 2 to 192 kHz, or a folder of them; with --kind ecg a WFDB record, a CSV with a "
        "column of time (or --rate), a WAV or FLAC (±1 is ±5 mV), EDF, 100 to 1000 Hz, or a folder of them",
    )
    denoise.add_argument(
        "output", type=Path, metavar="OUT", help="file (record) of the same kind, or a folder when IN is one"
    )
    denoise.add_argument(
        "--kind", choices=("sound", "ecg"), default="sound", help="what IN holds (default sound)"
    )
    denoise.add_argument(
        "--plot",
        type=Path,
        metavar="PNG",
        help="draw waveform and spectrogram before and after (a folder when IN is one)",
    )
    denoise.add_argument(
        "--states",
        type=Path,
        metavar="CSV",
        help="mark S1 and S2 in the picture from this table: record,start_s[,end_s],state "
        "(default: a states.csv beside the recording)",
    )
    denoise.add_argument(
        "--strength", type=_fraction, default=1.0, help="0 (as it was) to 1 (fully denoised); default 1"
    )
    denoise.add_argument(
        "--model",
        metavar="unet-classic[:FILE]",
        help="for comparison: the classic U-Net instead of the device's network, not in real time",
    )
    denoise.add_argument(
        "--rate", type=_rate, metavar="HZ", help="of an ECG's table that has neither times nor a rate"
    )
    _add_common(denoise)
    denoise.set_defaults(func=_denoise)

    classify = commands.add_parser(
        "classify",
        help="screen recordings: normal, abnormal or unsure",
        description="Screen heart sound recordings with the device's int8 classifier. It screens; it does "
        "not diagnose, and it is no medical device.",
        epilog="example: stethopi classify recordings/ --json > verdicts.jsonl",
    )
    classify.add_argument(
        "inputs", type=Path, nargs="+", metavar="FILE_OR_DIR", help="WAV or FLAC, or folders"
    )
    classify.add_argument("--json", action="store_true", help="one JSON object a recording and line")
    classify.add_argument("--plot", type=Path, metavar="DIR", help="draw one picture a recording into DIR")
    _add_common(classify)
    classify.set_defaults(func=_classify)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--channel",
        type=_channel,
        default=1,
        metavar="N|loudest",
        help="which channel of a WAV or FLAC that has several (default 1, the first)",
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="model bundle (default: the released one)")
    parser.add_argument(
        "--processes", type=_count, metavar="N", help="worker processes (default: one for each core)"
    )


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; importing no more than the standard library."""
    import host.commands.demo
    import host.commands.doctor
    import host.commands.serve
    import host.commands.subjects
    import training.cli

    parser = argparse.ArgumentParser(
        prog="stethopi",
        description="An open digital stethoscope: clean, screen, train, serve. It screens; it does not "
        "diagnose, and it is no medical device.",
    )
    parser.add_argument("--version", action="version", version=f"stethopi {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_file_commands(commands)
    host.commands.serve.add_parser(commands)
    host.commands.demo.add_parser(commands)
    host.commands.doctor.add_parser(commands)
    host.commands.subjects.add_parser(commands)
    training.cli.add_commands(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run `stethopi`; its exit code: 0 fine, 1 ran and found failure, 2 bad input or usage."""
    return run_command(build_parser, _EXTRA_OF, argv)


if __name__ == "__main__":
    raise SystemExit(main())
