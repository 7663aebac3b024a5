"""An arm64 machine under qemu-user: the device's tests in it, and its numbers beside this machine's.

    python -m tests.arm64.emulate [--write docs/results/arm64.json] [--tests tests/device]

What the tests of a file said is written as soon as its last has ended: begun again, it goes on where it was,
and runs anew only the files that failed, or whose code has changed: the file itself, or what it imports of
this repository, near or far. Hypothesis tries fewer examples than on x86 (tests.arm64.slow).

Debian's arm64 Python of this interpreter's version (3.11 of Bookworm, 3.13 of Trixie) is unpacked below the
cache, and beside it the aarch64 wheels of just the versions that are installed here, so that both machines
run the same code. Needs mmdebstrap and qemu-user-static, a network the first time, and minutes: under qemu
everything takes 10 to 50 times as long, which is why `make test` leaves it out.

The core is named (cortex-a53, a Pi Zero 2 W's), and /proc/cpuinfo and /sys/devices/system/cpu are a Pi's: the
library cpuinfo inside ai-edge-litert reads them, and crashes, or chooses wrong kernels, on what it finds of
an x86 machine.

Bars, for every interpreter: each operator by itself, given the same bits, is within one step of int8 (where
any output differs at all, tests.arm64.operators says which operators do it), and the denoised sound is within
0.1 dB. For ai-edge-litert also every output of a whole step within one. tflite-runtime 2.14 cannot hold that:
its depthwise convolution rounds otherwise on Arm, seldom and by one, which grows to several steps through
the layers of one hop; with the reference kernels (STETHOPI_KERNELS) it can, and must.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.arm64.slow import EXAMPLES, TOLD

__all__ = ["Arm64", "main"]

ROOT = Path(__file__).resolve().parent.parent.parent
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
SUITES = {"3.11": "bookworm", "3.13": "trixie"}
CORE = "cortex-a53"
MOST_LSB = {"ai-edge-litert": 1}
"""Most steps of int8 between the two machines' outputs of one step, by interpreter."""
MOST_REFERENCE_LSB = 1
"""The same with the reference kernels, asked where the fast ones differ at all."""
MOST_OPERATOR_LSB = 1
"""Most steps between the outputs of one operator that was given the same on both."""
MOST_SNR_DB = 0.1

_DEBIAN = "python3,libstdc++6,libgcc-s1,libgomp1,zlib1g,python3-pyaudio"
"""PyAudio has no wheel."""
_NAMES = "numpy scipy tflite-runtime ai-edge-litert soundfile paho-mqtt"
_NAMES += " pytest pytest-timeout hypothesis jsonschema amqtt argon2-cffi"
_PLATFORMS = (
    "manylinux_2_17",
    "manylinux2014",
    "manylinux_2_27",
    "manylinux_2_28",
    "manylinux_2_34",
    "linux",
)
_NOTHING_TO_RUN = 5
"""pytest's exit status where every test of a file was left out."""
_OF_NUMBERS = ("machine", "python", "numpy", "interpreter", "bundle", "models", "operators", "reference")
_MARKS = "not (browser or audio or train)"
_LEFT_OUT = "no_stage_has_become_dearer or daemon_is_small"
"""Tests that count this machine's instructions and memory: there they would be the emulator's."""


class Arm64:
    """The emulated machine, made at first use below `cache`."""

    def __init__(self, cache: Path, core: str = CORE) -> None:
        self.core = core
        self.root = cache / f"root-{VERSION}"
        self.site = cache / f"site-{VERSION}"
        self.bytecode = cache / f"bytecode-{VERSION}"
        """Compiling under emulation is what takes longest, so it is done once."""
        self._python = self.root / "usr/bin" / f"python{VERSION}"
        for program in ("qemu-aarch64-static", "mmdebstrap"):
            if shutil.which(program) is None:
                sys.exit(f"{program} is missing; type: apt-get install -y qemu-user-static mmdebstrap")
        if VERSION not in SUITES:
            sys.exit(f"Python {VERSION} is in none of {', '.join(SUITES.values())}; run it with 3.11 or 3.13")
        cache.mkdir(parents=True, exist_ok=True)
        packages = self.root / "packages"
        if not packages.exists() or packages.read_text() != _DEBIAN:
            shutil.rmtree(self.root, ignore_errors=True)
            self._unpack_debian()
            packages.write_text(_DEBIAN)
        wanted = _wanted()
        note = self.site / "versions.json"
        if not note.exists() or json.loads(note.read_text()) != wanted:
            self._unpack_wheels(wanted)
            note.write_text(json.dumps(wanted))
        self.program = cache / f"python-{VERSION}"
        self._write_program()

    def _unpack_debian(self) -> None:
        making = self.root.with_name(f"{self.root.name}.part")
        shutil.rmtree(making, ignore_errors=True)
        # no maintainer script runs, so that neither binfmt nor mounts are needed
        command = ["mmdebstrap", "--variant=extract", "--skip=check/qemu", "--arch=arm64", "--quiet"]
        subprocess.run([*command, f"--include={_DEBIAN}", SUITES[VERSION], str(making)], check=True)
        if not (making / "lib").exists():
            (making / "lib").symlink_to("usr/lib")
        _pretend_to_be_a_pi(making)
        making.rename(self.root)

    def _unpack_wheels(self, wanted: dict[str, str]) -> None:
        shutil.rmtree(self.site, ignore_errors=True)
        self.site.mkdir()
        with tempfile.TemporaryDirectory() as wheels:
            tag = VERSION.replace(".", "")
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            for platform in _PLATFORMS:
                command += ["--platform", f"{platform}_aarch64"]
            for abi in (f"cp{tag}", "abi3", "none"):
                command += ["--abi", abi]
            command += ["--implementation", "cp", "--python-version", VERSION, "--dest", wheels]
            subprocess.run([*command, *(f"{n}=={v}" for n, v in wanted.items())], check=True)
            for wheel in Path(wheels).glob("*.whl"):
                zipfile.ZipFile(wheel).extractall(self.site)

    def command(self, emulator: str = "qemu-aarch64-static", *options: str) -> list[str]:
        """What starts its Python; `options` are the emulator's."""
        libraries = ":".join(f"{self.root}/{part}/aarch64-linux-gnu" for part in ("usr/lib", "lib"))
        command = [emulator, "-cpu", self.core, *options, "-L", str(self.root)]
        for name, value in (
            ("LD_LIBRARY_PATH", libraries),
            ("PYTHONPATH", f"{self.site}:{ROOT}"),
            ("PYTHONPYCACHEPREFIX", str(self.bytecode)),
        ):
            command += ["-E", f"{name}={value}"]
        return [*command, str(self._python)]

    def _write_program(self) -> None:
        """A program that is this Python to those who start it, and so to the tests' own processes."""
        (self.site / "sitecustomize.py").write_text(
            f"import sys\nsys.executable = {str(self.program)!r}\n", "utf-8"
        )
        self.program.write_text(f'#!/bin/sh\nexec {" ".join(self.command())} "$@"\n')
        self.program.chmod(0o755)

    def start(self, *arguments: str, kernels: str = "fast") -> subprocess.Popen[str]:
        """Start its Python; what it says comes from its `stdout`."""
        environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
        environment["STETHOPI_KERNELS"] = kernels
        return subprocess.Popen(
            [str(self.program), *arguments], cwd=ROOT, text=True, env=environment, stdout=subprocess.PIPE
        )


def _pretend_to_be_a_pi(root: Path) -> None:
    """Four Cortex-A53 with 512 KB of shared cache, where a program looks for them: qemu prefers what it finds
    below the root to what is this machine's.
    """
    cpus = root / "sys/devices/system/cpu"
    files = {"possible": "0-3", "present": "0-3", "online": "0-3", "kernel_max": "3"}
    caches = (("1", "Data", "32K"), ("1", "Instruction", "32K"), ("2", "Unified", "512K"))
    for n in range(4):
        for name in ("core_siblings_list", "package_cpus_list", "cluster_cpus_list"):
            files[f"cpu{n}/topology/{name}"] = "0-3"
        for name in ("core_id", "thread_siblings_list", "core_cpus_list"):
            files[f"cpu{n}/topology/{name}"] = str(n)
        files[f"cpu{n}/topology/physical_package_id"] = files[f"cpu{n}/topology/cluster_id"] = "0"
        files[f"cpu{n}/cpufreq/cpuinfo_max_freq"] = "1000000"
        files[f"cpu{n}/cpufreq/cpuinfo_min_freq"] = "600000"
        for index, (level, kind, size) in enumerate(caches):
            place = f"cpu{n}/cache/index{index}"
            files |= {f"{place}/level": level, f"{place}/type": kind, f"{place}/size": size}
            files |= {f"{place}/shared_cpu_list": "0-3" if level == "2" else str(n)}
            files |= {f"{place}/coherency_line_size": "64"}
    for name, text in files.items():
        (cpus / name).parent.mkdir(parents=True, exist_ok=True)
        (cpus / name).write_text(text + "\n")
    core = "BogoMIPS\t: 38.40\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
    core += "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd03\nCPU revision\t: 4\n\n"
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text("".join(f"processor\t: {n}\n{core}" for n in range(4)))


def _wanted() -> dict[str, str]:
    """Distribution → version of what the device and its tests need, as installed here."""
    found: dict[str, str] = {}
    waiting = _NAMES.split()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        for line in metadata.requires(name) or []:
            if "extra ==" not in line:
                waiting.append(re.match(r"[A-Za-z0-9_.-]+", line)[0].lower().replace("_", "-"))  # type: ignore[index]
    return found


def _numbers(machine: Arm64) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        steps, tensors = Path(folder) / "steps.npz", Path(folder) / "tensors.npz"
        _here("tests.arm64.numbers", "record", str(steps))
        found = _there(machine, "tests.arm64.numbers", "compare", str(steps))
        if any(model["worst_lsb"] for model in found["models"].values()):
            _here("tests.arm64.operators", "record", str(steps), str(tensors))
            found["operators"] = _there(machine, "tests.arm64.operators", "compare", str(steps), str(tensors))
            _here("tests.arm64.numbers", "record", str(steps), kernels="reference")
            told = _there(machine, "tests.arm64.numbers", "compare", str(steps), kernels="reference")
            found["reference"] = told["models"]
        return found


def _here(module: str, *arguments: str, kernels: str = "fast") -> None:
    environment = {**os.environ, "STETHOPI_KERNELS": kernels}
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, env=environment, check=True)


def _there(machine: Arm64, module: str, *arguments: str, kernels: str = "fast") -> dict[str, Any]:
    process = machine.start("-m", module, *arguments, kernels=kernels)
    said, _ = process.communicate()
    if process.returncode:
        sys.exit("the numbers could not be compared (see above)")
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def _code_of(file: Path) -> str:
    """What a test file's result holds for: the file, all that it imports of this repository, the models."""
    paths, waiting = set(), [file, ROOT / "tests/conftest.py", ROOT / "tests/arm64/slow.py"]
    while waiting:
        path = waiting.pop()
        if path in paths:
            continue
        paths.add(path)
        waiting += _imported_by(path)
    if ROOT / "device/inference/bundle.py" in paths:
        paths |= set((ROOT / "models/released").glob("*/bundle.json"))
    code = hashlib.sha256(f"{_MARKS} {_LEFT_OUT}".encode())
    for path in sorted(paths):
        code.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return code.hexdigest()[:12]


@functools.cache
def _imported_by(path: Path) -> list[Path]:
    """The files of this repository that a file imports, wherever in it; all of the device's where it starts
    a Python of its own.
    """
    text = path.read_text("utf-8")
    names: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    found = sorted((ROOT / "device").rglob("*.py")) if "sys.executable" in text else []
    for name in names:
        parts = name.split(".")
        # a package's own file runs before any of its modules
        for n in range(1, len(parts) + 1):
            place = ROOT.joinpath(*parts[:n])
            found += [p for p in (place / "__init__.py", place.with_suffix(".py")) if p.is_file()]
    return found


def _run_tests(
    machine: Arm64, names: list[str], more: list[str], told: Callable[[str, dict[str, Any]], None]
) -> None:
    """Test files in one process, as starting one takes long there; `told` hears of each when it is over.

    A process that dies in a file costs that file alone.
    """
    options = ["-q", "--tb=short", "-m", _MARKS, "-k", f"not ({_LEFT_OUT})", "-p", "no:cacheprovider"]
    options += ["-p", "tests.arm64.slow", "-o", "timeout=3600", "--continue-on-collection-errors", *more]
    while names:
        process = machine.start("-m", "pytest", *names, *options)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(TOLD):
                found = json.loads(line[len(TOLD) :])
                name = found.pop("file")
                told(name, found)
                names = [other for other in names if other != name]
            print(line, end="", flush=True)
        code = process.wait()
        if code in (0, 1, _NOTHING_TO_RUN):
            for name in names:  # every test of it was left out
                told(name, {"exit": 0})
            return
        told(names[0], {"exit": code, "errors": 1})
        names = names[1:]


def _tests(
    machine: Arm64, tests: list[str], more: list[str], known: dict[str, Any], keep: Callable[[Any], None]
) -> None:
    """The smallest file first; `known` are results of an earlier run, `keep` is told all after each file."""
    places = [ROOT / test for test in tests]
    files = [f for place in places for f in (sorted(place.rglob("test_*.py")) if place.is_dir() else [place])]
    files.sort(key=lambda file: file.stat().st_size)
    codes = {file.relative_to(ROOT).as_posix(): _code_of(file) for file in files}
    found: dict[str, Any] = {"examples": EXAMPLES, "files": {}, "not run": list(codes)}

    def told(name: str, result: dict[str, Any]) -> None:
        found["files"][name] = {"code": codes[name], **result}
        found["not run"] = [other for other in codes if other not in found["files"]]
        keep(found)

    for name in codes:
        before = known.get(name, {})
        if before.get("code") == codes[name] and not before["exit"]:
            told(name, before)
    _run_tests(machine, list(found["not run"]), more, told)


def wrong(found: dict[str, Any]) -> list[str]:
    """What breaks the bar, one line each."""
    lines = []
    for name, model in found.get("models", {}).items():
        most = MOST_LSB.get(found["interpreter"].split()[0])
        if most is not None and model["worst_lsb"] > most:
            lines.append(f"{name}: an output is {model['worst_lsb']} steps apart; at most {most}")
        for operator, told in found.get("operators", {}).get(name, {}).items():
            if told["worst_lsb"] > MOST_OPERATOR_LSB:
                lines.append(f"{name}: {operator} is {told['worst_lsb']:g} steps apart, given the same")
        if model.get("snr_apart_db", 0.0) > MOST_SNR_DB:
            lines.append(f"{name}: SNR {model['snr_apart_db']} dB apart; at most {MOST_SNR_DB}")
    for name, model in found.get("reference", {}).items():
        if model["worst_lsb"] > MOST_REFERENCE_LSB:
            lines.append(f"{name}: {model['worst_lsb']} steps apart with the reference kernels")
    for file, told in found.get("tests", {}).get("files", {}).items():
        if told["exit"]:
            lines.append(f"{file}: {told.get('failed', 0)} tests fail on arm64")
    return lines


def main(argv: list[str] | None = None) -> int:
    """Run it; 1 when something is not as it must be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the figures of this Python there")
    parser.add_argument("--tests", nargs="*", default=["tests/device"], metavar="PATH")
    parser.add_argument("--numbers-only", action="store_true", help="compare numbers, run no tests")
    parser.add_argument("--tests-only", action="store_true", help="run tests, leave the numbers as they are")
    parser.add_argument("--pytest", default="", metavar="ARGS", help="more arguments for pytest")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/stethopi/arm64", metavar="DIR")
    arguments = parser.parse_args(argv)
    machine = Arm64(arguments.cache)
    to, key = arguments.write, f"python {VERSION}"
    whole: dict[str, Any] = json.loads(to.read_text()) if to is not None and to.exists() else {"schema": 1}
    before = whole.get(key, {})
    kept = {name: before[name] for name in _OF_NUMBERS if name in before}
    found = {"core": machine.core, **(kept if arguments.tests_only else _numbers(machine))}

    def keep(tests: dict[str, Any]) -> None:
        found["tests"] = tests
        if to is not None:
            whole.update({"command": "make test-arm64", key: found})
            temporary = to.with_name(f".{to.name}.part")
            temporary.write_text(json.dumps(whole, indent=2) + "\n")
            os.replace(temporary, to)

    known = before.get("tests", {})
    if arguments.numbers_only:
        keep(known)
    else:
        _tests(machine, arguments.tests, arguments.pytest.split(), known.get("files", {}), keep)
    print(json.dumps(found, indent=2))
    for line in wrong(found):
        print(f"WRONG: {line}", file=sys.stderr)
    return 1 if wrong(found) else 0


if __name__ == "__main__":
    raise SystemExit(main())
