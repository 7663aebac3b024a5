"""What README and docs tell one to type exists: commands with their options, modules, targets of make."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import deploy.install
import device.cli
import host.cli

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("device", "host", "models", "training", "deploy", "tests")
PAGES = [
    page
    for room in (".", "docs", *ROOMS)
    for page in sorted(ROOT.glob(f"{room}/*.md"))
    if page.name != "CHANGELOG.md"  # of former versions, too
]
PARSERS = {
    "stethopi": host.cli.build_parser(),
    "stethopi-device": device.cli.build_parser(),
    "stethopi-install": deploy.install.build_parser(),
}


def typed(page: Path) -> Iterator[list[str]]:
    """The commands of a page's console blocks and code spans, as words; left out are those with a gap (…)."""
    text = page.read_text("utf-8")
    lines = re.findall(r"^\$ (.*)", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
    for line in lines:
        for command in re.split(r" && | \| | > ", re.sub(r"\s#.*", "", line)):
            known = r"(\S*/)?(stethopi|stethopi-device|stethopi-install|make|python -m) "
            command = re.sub(r"^(\S*/)?python -I -m ", "python -m ", command.removeprefix("sudo "))
            if re.match(known, command) and "…" not in command:
                words = shlex.split(command)
                yield [words[0].rsplit("/", 1)[-1], *words[1:]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_to_be_typed_exists(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    wrong = []
    for program, *words in typed(page):
        if program == "python" and words[1].split(".")[0] in ROOMS:
            wrong += [] if find_spec(words[1]) else [f"python -m {words[1]}: no such module"]
        elif program == "make":
            asked = {word for word in words if re.fullmatch("[a-z0-9-]+", word)}
            wrong += [f"make {target}: no such target" for target in asked - targets]
        elif program in PARSERS:
            try:
                PARSERS[program].parse_args(words)
            except (SystemExit, argparse.ArgumentError) as end:
                if getattr(end, "code", 2):
                    wrong.append(f"{program} {' '.join(words)}: {capsys.readouterr().err.splitlines()[-1]}")
    assert wrong == []
