"""docs/python.md: every example runs, in its order, from a checkout."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import stethopi
from host.store.store import Store
from tests.host.arrivals import beats, flac, put

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "python.md"


def test_the_guide_runs_and_shows_every_public_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(tmp_path / "exams") as store:
        put(store, {"MV": flac(beats())})
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)
    text = GUIDE.read_text("utf-8")
    examples = list(re.finditer(r"^```python.*?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    names: dict[str, object] = {}
    for example in examples:
        above = text[: example.start(1)].count("\n")
        exec(compile("\n" * above + example[1], str(GUIDE), "exec"), names)  # so that errors name the line
    said = capsys.readouterr().out
    assert "nobody.wav: no such file" in said and re.search(r"^MV (69|70)\.", said, re.MULTILINE)
    functions = {name for name in stethopi.__all__ if name.islower() and not name.startswith("_")}
    assert functions == set(re.findall(r"stethopi\.([a-z_]+)\(", text))
