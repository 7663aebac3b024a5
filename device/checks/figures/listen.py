"""What goes to the ear, on a recording."""

from __future__ import annotations

from device.checks.figures.one_line import one_line_errors


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run it from the command line; gives the exit code."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -I -m device.checks.figures.listen",
        description="Say what listening does to a recording and how late it is; or measure the raw way from "
        "a microphone to an output.",
    )
    parser.add_argument("file", nargs="?", help="WAV or FLAC")
    parser.add_argument("--microphone", metavar="NAME", help="part of its name; '' is the default one")
    parser.add_argument("--output", metavar="NAME", help="part of its name; '' is the default one")
    parser.add_argument("--back", metavar="NAME", help="a microphone that hears the output (a cable)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to measure (default 10)")
    options = parser.parse_args(argv)
    live = options.microphone is not None and options.output is not None
    if not live and options.file is None:
        parser.error("give a FILE, or --microphone NAME and --output NAME")
    from device.checks import monitor_latency as monitor

    if not live:
        print(monitor.of_recording(options.file))
        return 0
    found = monitor.measure(options.microphone, options.output, options.seconds, options.back)
    print(found.told)
    return 0 if found.block_p50_s is not None and found.block_p50_s <= monitor.LIMIT_S else 1


if __name__ == "__main__":
    raise SystemExit(main())
