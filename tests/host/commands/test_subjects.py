"""`stethopi subjects`: the list for the device and the sheet for the wall."""

from __future__ import annotations

from pathlib import Path

import pytest

from device.exam.subjects import SubjectList, is_whole
from host.cli import main


def test_list_and_sheet_hold_the_same_codes(tmp_path: Path) -> None:
    listed, page = tmp_path / "codes.txt", tmp_path / "codes.html"
    arguments = [
        "--prefix",
        "V3",
        "--first",
        "41",
        "--count",
        "12",
        "--list",
        str(listed),
        "--sheet",
        str(page),
    ]
    assert main(["subjects", *arguments]) == 0
    codes = SubjectList(listed, tmp_path / "memory").codes
    assert len(codes) == 12 and codes[1].startswith("V3-0042-") and all(map(is_whole, codes))
    text = page.read_text()
    assert all(f'<td class="code">{code}</td>' in text for code in codes)
    assert text.count("<svg") == 12 and "http://" not in text.replace("http://www.w3.org/2000/svg", "")


def test_without_files_they_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["subjects", "--count", "3"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("0001-")


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (
            ["--prefix", "v3"],
            "stethopi: prefix v3: must be up to 8 capitals and digits; use",
            2,
        ),
        (["--count", "0"], "stethopi: 0 codes from 1 on: give 1 to 10000 codes, the first from", 2),
        (["--list", "/nowhere/codes.txt"], "stethopi: /nowhere/codes.txt: cannot be written", 1),
    ],
)
def test_mistakes(arguments: list[str], message: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["subjects", *arguments]) == code
    assert capsys.readouterr().err.startswith(message)
