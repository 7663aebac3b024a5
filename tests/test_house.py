"""The house: `device` stays light, and every room says in one sentence what stands in it.

Who may import whom is import-linter's (pyproject.toml, `make lint`).
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("stethopi", "device", "host", "models", "training", "deploy")
EVERYTHING_LAZILY = {"host/cli.py"}
DEVICE_THIRD_PARTY = {
    "numpy",
    "tflite_runtime",
    "ai_edge_litert",
    "paho",
    "soundfile",
    "edfio",
    "pyaudio",
    "RPi",
    "spidev",
    "smbus2",
    "cryptography",
}


def sources() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imported(path: Path) -> list[tuple[str, int, bool]]:
    """(top-level package, line, whether at module level) of every import in a file."""
    tree = ast.parse(path.read_text("utf-8"))
    at_top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [node.module or ""]
        else:
            continue
        found += [(name.split(".")[0], node.lineno, id(node) in at_top) for name in names]
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_device_needs_little_and_training_is_never_in_the_way(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    room = path.relative_to(ROOT).parts[0]
    for package, line, at_top in imported(path):
        where = f"{name}:{line} imports {package}"
        if package == "training" and room != "training":
            assert name in EVERYTHING_LAZILY and not at_top, where
        if room == "device" and package not in ROOMS and package not in sys.stdlib_module_names:
            assert package in DEVICE_THIRD_PARTY, where
            if package != "numpy":
                assert not at_top or package == "paho", (
                    f"{where} at the top of the module; import it where it is used"
                )


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return {line.split(".")[0] for line in run.stdout.splitlines()}


HEAVY = {"scipy", "torch", "pydantic", "tensorflow", "matplotlib", "starlette", "sqlalchemy"}


def test_import_device_brings_nothing_heavy() -> None:
    modules = sorted(
        ".".join(p.relative_to(ROOT).with_suffix("").parts)
        for p in (ROOT / "device").rglob("*.py")
        if not p.stem.startswith("__")
    )
    assert len(modules) > 80
    everything = "import device, " + ", ".join(modules)
    assert not loaded_by(everything) & HEAVY


def test_the_command_line_imports_lazily() -> None:
    assert not loaded_by("import host.cli; host.cli.build_parser()") & (HEAVY | {"numpy"})


def test_import_stethopi_is_quick() -> None:
    assert not loaded_by("import stethopi") & (HEAVY | {"numpy", "soundfile", "paho"})


def test_the_public_lists_are_honest() -> None:
    for path in sources():
        tree = ast.parse(path.read_text("utf-8"))
        names = {
            name.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            for name in ast.walk(target)
            if isinstance(name, ast.Name)
        }
        names |= {
            n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
        }
        names |= {
            alias.asname or alias.name.split(".")[0]
            for node in tree.body  # a package may bring in what is heavy only when it is asked for
            for n in (node.body if isinstance(node, ast.If) else [node])
            if isinstance(n, ast.Import | ast.ImportFrom)
            for alias in n.names
        }
        for node in tree.body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                listed = ast.literal_eval(node.value)
                assert set(listed) <= names, f"{path}: __all__ lists {set(listed) - names}"
                assert len(listed) == len(set(listed)), f"{path}: __all__ lists a name twice"


def packages() -> list[Path]:
    return sorted(p.parent for room in ROOMS for p in (ROOT / room).rglob("__init__.py"))


@pytest.mark.parametrize("room", packages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_says_what_stands_in_it(room: Path) -> None:
    said = ast.get_docstring(ast.parse((room / "__init__.py").read_text("utf-8")))
    first = (said or "").split("\n\n")[0].replace("\n", " ")
    assert first.endswith(".") and first.count(". ") == 0, f"{room}: one sentence, not {first!r}"


def rooms_with_modules() -> list[Path]:
    """`device/ecg`, `host/store`, …: packages of depth 2 that hold more than their sentence."""
    return [
        package
        for package in packages()
        if package.parent.parent == ROOT
        and package.parent.name in ("device", "host", "training")
        and any(path.name != "__init__.py" for path in package.glob("*.py"))
    ]


@pytest.mark.parametrize("room", rooms_with_modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_has_its_tests_where_one_looks_for_them(room: Path) -> None:
    tests = ROOT / "tests" / room.relative_to(ROOT)
    assert list(tests.glob("test_*.py")), f"{tests.relative_to(ROOT)} holds no tests of {room.name}"
