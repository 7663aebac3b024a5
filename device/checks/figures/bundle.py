"""The newest bundle: what is in it, and that its hashes fit."""

from __future__ import annotations

from pathlib import Path

from device.checks.figures.one_line import one_line_errors
from device.inference.bundle import load


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run it from the command line; gives the exit code."""
    import sys

    arguments = sys.argv[1:] if argv is None else argv
    bundle = load(Path(arguments[0]) if arguments else None)
    print(f"bundle {bundle.version}  {bundle.folder}  all hashes fit")
    for name in bundle.models:
        entry = bundle.model(name)
        size = entry.tflite.stat().st_size / 1000
        print(f"  {name:<11} {size:6.0f} kB  {entry.meta.get('parameters', '?')} parameters")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
