"""Breaks the code on purpose and looks whether a test minds: what survives is behaviour that nobody holds.

    python -m tests.mutations --count 30 --seed 1      mutants drawn from CORE, each tried on its room's tests

A mutant is one small change of one line: a comparison turned round, a sign, a constant, `and` for `or`. Each
is made in a copy of the tree, never in the tree itself. Some change nothing that anybody could see; who reads
the list of survivors decides. Exit code 1 when more than `--most` survive.
"""

from __future__ import annotations

import argparse
import ast
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CORE", "Mutant", "mutants_of"]

ROOT = Path(__file__).resolve().parent.parent
CORE = (
    "device/clock.py",
    "device/spans.py",
    "device/contract",
    "device/delivery",
    "device/denoise",
    "device/dsp/level.py",
    "device/dsp/resample.py",
    "device/exam",
    "device/screening/quality.py",
    "device/screening/verdict.py",
    "device/screening/screen.py",
    "device/storage",
    "device/stream",
    "host/ingest",
    "host/store",
)
"""What an exam passes through from the microphone to the store."""

COPIED = (
    "device",
    "host",
    "models",
    "training",
    "deploy",
    "stethopi",
    "tests",
    "docs",
    "pyproject.toml",
    "README.md",
)
_COMPARED: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
}
_COUNTED: dict[type[ast.operator], str] = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/"}


@dataclass(frozen=True)
class Mutant:
    """One change: characters `start` to `end` of a file become `text`."""

    path: Path
    line: int
    start: int
    end: int
    text: str

    def told(self, root: Path) -> str:
        line = self.path.read_text("utf-8").splitlines()[self.line - 1].strip()
        return f"{self.path.relative_to(root)}:{self.line}: {line}   →  {self.text}"

    def applied(self, source: str) -> str:
        return source[: self.start] + self.text + source[self.end :]


def mutants_of(path: Path) -> list[Mutant]:
    """Every mutant of a file, in the order of its lines; texts and annotations are left out."""
    source = path.read_text("utf-8")
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def at(line: int, column: int) -> int:
        begin = starts[line - 1]
        return begin + len(source[begin:].encode()[:column].decode())

    found: list[Mutant] = []

    def between(left: ast.expr, right: ast.expr, old: str, new: str) -> None:
        """The operator between two operands, when it stands there alone."""
        assert left.end_lineno is not None and left.end_col_offset is not None
        start, end = at(left.end_lineno, left.end_col_offset), at(right.lineno, right.col_offset)
        if source[start:end].count(old) == 1:
            place = start + source[start:end].index(old)
            found.append(Mutant(path, left.end_lineno, place, place + len(old), new))

    words = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
    signs = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
    tree = ast.parse(source)
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if part is not None
        for inner in ast.walk(part)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARED:
            kind = type(node.ops[0])
            between(node.left, node.comparators[0], words[kind], _COMPARED[kind])
        elif isinstance(node, ast.BinOp) and type(node.op) in _COUNTED:
            between(node.left, node.right, signs[type(node.op)], _COUNTED[type(node.op)])
        elif isinstance(node, ast.BoolOp):
            old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            between(node.values[0], node.values[1], old, new)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            start = at(node.lineno, node.col_offset)
            found.append(Mutant(path, node.lineno, start, start + 4, ""))
        elif (
            isinstance(node, ast.Constant)
            and type(node.value) in (int, float, bool)
            and node.end_col_offset is not None
        ):
            start = at(node.lineno, node.col_offset)
            end = at(node.lineno, node.end_col_offset)
            value = node.value
            new = (
                str(not value)
                if isinstance(value, bool)
                else (f"({value!r} + 1)" if value in (0, 1) else f"({value!r} * 2)")
            )
            found.append(Mutant(path, node.lineno, start, end, new))
    return sorted(found, key=lambda mutant: mutant.start)


def files(root: Path) -> list[Path]:
    found = [
        path
        for name in CORE
        for path in ([root / name] if name.endswith(".py") else sorted((root / name).glob("*.py")))
    ]
    return [path for path in found if path.name != "__init__.py"]


def tests_of(path: Path, root: Path) -> list[str]:
    """The tests of a file's room, and of the rooms that live on it."""
    room = path.relative_to(root).parent
    near = [f"tests/{room}"] if (root / "tests" / room).is_dir() and len(room.parts) > 1 else []
    if str(room) == "device":
        near = sorted(
            str(p.relative_to(root)) for p in (root / "tests" / "device").glob(f"test_{path.stem}*.py")
        )
    above = {
        "device/spans.py": ["tests/device/stream", "tests/device/storage"],
        "device/dsp/level.py": ["tests/device/denoise"],
        "device/contract": ["tests/host/ingest", "tests/device/delivery"],
        "device/exam": ["tests/device/daemon"],
        "device/stream": ["tests/device/daemon"],
        "device/screening": ["tests/device/exam", "tests/host/files"],
        "host/store": ["tests/host/ingest", "tests/host/dashboard"],
    }
    return near + above.get(str(path.relative_to(root)), []) + above.get(str(room), [])


def killed(mutant: Mutant, copy: Path, limit_s: float) -> bool:
    """Whether a test fails, or no longer ends, with this change."""
    path = copy / mutant.path.relative_to(ROOT)
    source = path.read_text("utf-8")
    path.write_text(mutant.applied(source), "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "2", "-m"]
    command += ["not train and not browser and not audio", *tests_of(mutant.path, ROOT)]
    try:
        run = subprocess.run(command, cwd=copy, capture_output=True, timeout=limit_s)
        return run.returncode == 1 or run.returncode == 2
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(source, "utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description="Do the tests mind?")
    parser.add_argument("--count", type=int, default=30, help="mutants to draw (default 30)")
    parser.add_argument("--seed", type=int, default=1, help="of the draw (default 1)")
    parser.add_argument("--most", type=int, default=3, help="so many may survive (default 3)")
    parser.add_argument("--limit-s", type=float, default=300.0, help="for the tests of one mutant")
    options = parser.parse_args(argv)
    everything = [mutant for path in files(ROOT) for mutant in mutants_of(path)]
    drawn = random.Random(options.seed).sample(everything, min(options.count, len(everything)))
    alive: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copy = Path(folder) / "tree"
        copy.mkdir()
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
            elif source.is_file():
                shutil.copy(source, copy / name)
        for n, mutant in enumerate(drawn, 1):
            gone = killed(mutant, copy, options.limit_s)
            print(f"{n:3d} {'killed  ' if gone else 'SURVIVED'} {mutant.told(ROOT)}", flush=True)
            if not gone:
                alive.append(mutant.told(ROOT))
    print(f"{len(drawn)} of {len(everything)} mutants tried, seed {options.seed}; {len(alive)} survived")
    return 1 if len(alive) > options.most else 0


if __name__ == "__main__":
    raise SystemExit(main())
