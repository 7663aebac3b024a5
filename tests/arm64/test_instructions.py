"""What a second of sound costs on arm64: no dearer than what was committed, where qemu and the root are."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path

import pytest

from tests.arm64 import instructions
from tests.arm64.emulate import ROOT, VERSION, Arm64

COMMITTED = ROOT / "docs/results/bench-arm64.json"
CACHE = Path.home() / ".cache/stethopi/arm64"


def test_a_dearer_stage_is_told_and_a_cheaper_one_is_not() -> None:
    committed = {"second": {"listen": 100, "denoise": 1000}}
    found = {"interpreter": "one 1.0", "second": {"listen": 106, "denoise": 900, "new": 5}}
    (line,) = instructions.dearer(found, committed)
    assert "listen costs 106" in line and "6 % more" in line and "make bench-arm64" in line


@pytest.mark.process
@pytest.mark.timeout(600)
@pytest.mark.parametrize("runtime", instructions.RUNTIMES)
def test_no_stage_has_become_dearer_on_arm64(runtime: str) -> None:
    """Only of the versions that were counted, as others cost something else."""
    if not all(map(shutil.which, ("qemu-aarch64", "qemu-aarch64-static", "mmdebstrap", "gcc"))):
        pytest.skip("needs qemu-user, qemu-user-static, mmdebstrap and gcc")
    if not (CACHE / f"root-{VERSION}").is_dir():
        pytest.skip("needs the arm64 root; run: make bench-arm64")
    committed = json.loads(COMMITTED.read_text())["counts"][runtime]
    try:
        here = f"{runtime} {metadata.version(runtime)}"
    except metadata.PackageNotFoundError:
        pytest.skip(f"{runtime} is not installed")
    if (here, VERSION) != (committed["interpreter"], committed["python"]):
        pytest.skip(f"counted with {committed['interpreter']} of Python {committed['python']}")
    assert instructions.dearer(instructions.count(Arm64(CACHE), runtime), committed) == []
