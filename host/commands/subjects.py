"""A list of subject codes for a device, and a sheet to print: number, code, QR, room to write beside.

The codes are `device.exam.subjects`'. QR images need the package segno (extra `host`).
"""

from __future__ import annotations

import argparse
import html
from pathlib import Path

from device.durable import replacing
from device.errors import StethopiError
from device.exam.subjects import codes

__all__ = ["add_parser", "sheet", "write"]

_STYLE = """
body { font: 11pt sans-serif; margin: 12mm }
p { max-width: 60em }
table { border-collapse: collapse; width: 100% }
td, th { border: 0.3mm solid #999; padding: 1.5mm 3mm; text-align: left }
td.code { font: 13pt monospace; white-space: nowrap }
td.who { width: 50% }
tr { break-inside: avoid }
svg { height: 16mm; width: 16mm; display: block }
@media print { body { margin: 0 } }
"""


def sheet(listed: list[str]) -> str:
    """The codes as a page of HTML that prints well; needs no network."""
    import segno

    rows = []
    for number, code in enumerate(listed, 1):
        image = segno.make(code, error="m", micro=False).svg_inline(border=0)
        rows.append(
            f'<tr><td>{number}</td><td>{image}</td><td class="code">{html.escape(code)}</td>'
            f'<td class="who"></td><td></td></tr>'
        )
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Subject codes</title>'
        f"<style>{_STYLE}</style>\n"
        "<p>Each exam takes the next code, from the top. Write beside it whom it stands for, and keep this "
        "paper where only you find it: no name ever enters the stethoscope. Cross out what was skipped.</p>\n"
        "<table><thead><tr><th>no.</th><th>QR</th><th>code</th><th>who</th><th>day</th></tr></thead>\n"
        "<tbody>\n" + "\n".join(rows) + "\n</tbody></table>\n</html>\n"
    )


def write(prefix: str, first: int, count: int, listed: Path | None, page: Path | None) -> list[str]:
    """Make the codes and write what is asked for; the codes. Files appear whole or not at all."""
    made = codes(prefix, first, count)
    for path, text in ((listed, lambda: "\n".join(made) + "\n"), (page, lambda: sheet(made))):
        if path is None:
            continue
        try:
            with replacing(path) as temporary:
                temporary.write_text(text(), "utf-8")
        except OSError as error:
            raise StethopiError(
                f"{path}: cannot be written ({error.strerror}); choose another place"
            ) from None
    return made


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `stethopi subjects`."""
    parser = commands.add_parser(
        "subjects",
        help="pseudonymous codes for those who are examined: a list, a sheet to print",
        description="Make codes that stand for people in exams: a list for the device ([exam] subjects), and "
        "a sheet with QR codes to print. Without --list and --sheet they are printed, one a line.",
        epilog="example: stethopi subjects --prefix V3 --count 200 --list codes.txt --sheet codes.html",
    )
    parser.add_argument(
        "--prefix", default="", metavar="TEXT", help="up to 8 capitals and digits; default none"
    )
    parser.add_argument("--first", type=int, default=1, metavar="N", help="number of the first (default 1)")
    parser.add_argument(
        "--count", type=int, default=100, metavar="N", help="how many, 1 to 10000; default 100"
    )
    parser.add_argument("--list", type=Path, metavar="FILE", help="write the list, one code a line")
    parser.add_argument("--sheet", type=Path, metavar="HTML", help="write a sheet to print")
    parser.set_defaults(func=_run)


def _run(arguments: argparse.Namespace) -> int:
    made = write(arguments.prefix, arguments.first, arguments.count, arguments.list, arguments.sheet)
    if arguments.list is None and arguments.sheet is None:
        print("\n".join(made))
    return 0
