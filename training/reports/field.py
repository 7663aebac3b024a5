"""The tables of docs/field.md, from what `bench`, `soak`, the power cuts and the arm64 run wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["TABLES", "arm64_table", "cost_table", "field_goals_table", "power_line", "soak_table"]

_STAGES = ("decimate", "denoise", "classify", "rhythm", "quality")


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


def cost_table(device: Mapping[str, Any]) -> str:
    """What a second of sound costs, stage by stage, a column for each interpreter."""
    figures = list(device["figures"].values())
    names = [found["where"].split(", ")[1] for found in figures]
    lines = [
        _row("for a second of sound", "MMAC", *(f"million instructions, {name}" for name in names)),
        _row("---", *["---"] * (1 + len(names))),
    ]
    for stage in (*_STAGES, "all"):
        counts = []
        for found in figures:
            counted = found.get("instructions") or {}
            count = sum(counted.values()) if stage == "all" else counted.get(stage)
            counts.append(_number(count / 1e6 if count else None, ".0f"))
        lines.append(_row(stage, f"{figures[0]['mac_per_s'][stage] / 1e6:.1f}", *counts))
    for found, name in zip(figures, names, strict=True):
        daemon = found["daemon"]
        lines.append("")
        lines.append(
            f"{name} ({found['where'].split(', ')[0]}): the daemon with models and uplink has "
            f"{_number(daemon['memory_mb'], '.0f')} MB resident after an exam and is ready after "
            f"{_number(daemon['start_s'], '.1f')} s; `import device` takes {found['import_s']:.2f} s."
        )
    return "\n".join(lines) + "\n"


def soak_table(soak: Mapping[str, Any]) -> str:
    """A long time, accelerated."""
    least, most, last = soak["threads"]
    few, many, end = soak["descriptors"]
    low, high = soak["resident_slope_95"]
    warm = soak["warm_up_minutes_of_sound"]
    return (
        "\n".join(
            (
                _row("soak", ""),
                _row("---", "---"),
                _row("sound, exams", f"{soak['hours_of_sound']:g} h, {soak['exams']}"),
                _row("broker taken away or given back", soak["broker_toggles"]),
                _row(
                    f"resident memory after {warm} minutes of warm-up, at the end",
                    f"{soak['resident_mb_after_warm_up']:.1f}, {soak['resident_mb_at_the_end']:.1f} MB",
                ),
                _row(
                    "its slope after warm-up (95 %)",
                    f"{soak['resident_slope_mb_a_day']:+.2f} ({low:+.2f} to {high:+.2f}) MB a day of sound",
                ),
                _row("threads: least, most, at the end", f"{least}, {most}, {last}"),
                _row("descriptors: least, most, at the end", f"{few}, {many}, {end}"),
                _row("blocks and windows dropped", soak["dropped_blocks"]),
                _row(
                    "written to the card besides recordings",
                    f"{soak['written_besides_kb_an_exam']:.0f} KB an exam; "
                    f"{soak['written_besides_mb_a_day_of_exams']:.0f} MB a day at an exam a minute",
                ),
            )
        )
        + "\n"
    )


def power_line(power: Mapping[str, Any]) -> str:
    """One sentence on the power cuts."""
    return (
        f"{power['states']:,} states of a disk after a power cut, at {power['cuts']:,} instants of "
        f"{power['exams']} exams: {power['acknowledged_exams_lost']} acknowledged exams lost.\n"
    )


def arm64_table(arm64: Mapping[str, Any]) -> str:
    """What another machine computes."""
    lines = [
        _row("arm64 under qemu", "model", "steps", "values that differ", "most, steps of int8", "SNR apart"),
        _row(*["---"] * 6),
    ]
    tests: list[str] = []
    own: list[str] = []
    for key in sorted(key for key in arm64 if key.startswith("python ")):
        found = arm64[key]
        rows = [(found["interpreter"], *row) for row in found["models"].items()]
        plain = f"{found['interpreter']}, reference kernels"
        rows += [(plain, *row) for row in found.get("reference", {}).items()]
        for interpreter, name, model in rows:
            apart = model.get("snr_apart_db")
            lines.append(
                _row(
                    f"{key}, {interpreter}",
                    name,
                    model["steps"],
                    f"{model['differing']} of {model['values']:,}",
                    model["worst_lsb"],
                    "" if apart is None else f"{apart:.3f} dB",
                )
            )
        for name, operators in found.get("operators", {}).items():
            own += [
                _row(key, name, operator, told["runs"], told["differing"], f"{told['worst_lsb']:g}")
                for operator, told in operators.items()
                if told["differing"]
            ]
        if found.get("tests", {}).get("files"):
            tests.append(_tests_line(key, found["tests"]))
    if own:
        lines += [
            "",
            _row("", "model", "operator", "runs on equal inputs", "values that differ", "most"),
            _row(*["---"] * 6),
        ]
    return "\n".join([*lines, *own, "", *tests]) + "\n"


def _tests_line(key: str, tests: Mapping[str, Any]) -> str:
    """How far the device's tests have come on another machine."""
    files, waiting = tests["files"], tests["not run"]
    total = {
        what: sum(told.get(what, 0) for told in files.values())
        for what in ("passed", "failed", "skipped", "minutes")
    }

    failing = [Path(name).name for name, told in files.items() if told["exit"]]
    more = f"; failing: {', '.join(failing)}" if failing else ""
    more += f"; not run yet: {', '.join(Path(name).name for name in waiting)}" if waiting else ""
    skipped = f", {total['skipped']} skipped" if total["skipped"] else ""
    return (
        f"- {key}: {total['passed']} tests of {len(files)} files "
        f"passed, {total['failed']} failed{skipped}, in {total['minutes']:.0f} minutes of a shared core; "
        f"hypothesis tried at most {tests['examples']} examples of each{more}."
    )


def field_goals_table(read: Callable[[str], Mapping[str, Any] | None]) -> str:
    """Each goal beside what was measured, and by what. read: a result file by its name."""
    lines = [_row("goal", "measured", "", "by"), _row(*["---"] * 4)]

    def goal(what: str, measured: str, met: bool, command: str) -> None:
        lines.append(_row(what, measured, "met" if met else "**missed**", f"`{command}`"))

    if soak := read("soak"):
        hours, slope = soak["hours_of_sound"], soak["resident_slope_mb_a_day"]
        written = soak["written_besides_mb_a_day_of_exams"]
        grown = [soak[what][2] - soak[what][0] for what in ("threads", "descriptors")]
        goal("8 h of sound, accelerated", f"{hours:g} h", hours >= 8, "make soak")
        goal(
            "resident memory grows by less than 1 MB a day", f"{slope:+.2f} MB a day", slope < 1, "make soak"
        )
        goal(
            "no thread, no descriptor leaks",
            f"{grown[0]} and {grown[1]} more at the end than at the least",
            max(grown) <= 8,
            "make soak",
        )
        goal("no block dropped", f"{soak['dropped_blocks']}", not soak["dropped_blocks"], "make soak")
        goal(
            "≤ 50 MB a day written besides recordings, at an exam a minute",
            f"{written:.0f} MB",
            written <= 50,
            "make soak",
        )
    if power := read("power"):
        goal(
            "every acknowledged exam whole after ≥ 10,000 power cuts",
            f"{power['acknowledged_exams_lost']} lost in {power['states']:,}",
            power["states"] >= 10_000 and not power["acknowledged_exams_lost"],
            "python -m tests.power.cuts",
        )
    if device := read("device"):
        command = "stethopi-device bench --instructions"
        for found in device["figures"].values():
            name, memory, mac = found["interpreter"], found["daemon"]["memory_mb"], found["mac_per_s"]["all"]
            goal(f"daemon ≤ 100 MB, {name}", f"{_number(memory, '.0f')} MB", (memory or 1e9) <= 100, command)
            goal(
                f"`import device` ≤ 0.5 s, {name}",
                f"{found['import_s']:.2f} s",
                found["import_s"] <= 0.5,
                command,
            )
        goal("all stages without ECG ≤ 45 MMAC a second", f"{mac / 1e6:.1f}", mac <= 45e6, command)
    for key, found in sorted((read("arm64") or {}).items()):
        if not key.startswith("python "):
            continue
        models, command = found["models"].values(), "make test-arm64"
        most = max(model["worst_lsb"] for model in models)
        own = [told["worst_lsb"] for many in found.get("operators", {}).values() for told in many.values()]
        apart = max(model.get("snr_apart_db", 0.0) for model in models)
        name = f"arm64, {found['interpreter']}"
        goal(f"{name}: each output of a step within 1 step of int8", f"{most}", most <= 1, command)
        if own:
            goal(f"{name}: each operator by itself within 1", f"{max(own):g}", max(own) <= 1, command)
        if plain := found.get("reference"):
            far = max(model["worst_lsb"] for model in plain.values())
            goal(f"{name}: the same with the reference kernels", f"{far}", far <= 1, command)
        goal(f"{name}: SNR within 0.1 dB", f"{apart:.3f} dB", apart <= 0.1, command)
        tests = found.get("tests", {})
        files = tests.get("files") or {}
        passed = sum(told.get("passed", 0) for told in files.values())
        failing = sum(told["exit"] != 0 for told in files.values())
        waiting = len(tests.get("not run", ()))
        rest = f", {failing} files fail" * bool(failing) + f", {waiting} files not run" * bool(waiting)
        goal(
            f"{name}: the device's tests pass",
            f"{passed} passed{rest}",
            bool(files) and not waiting and not failing,
            command,
        )
    return "\n".join(lines) + "\n"


TABLES = (
    ("power", "power", power_line),
    ("cost", "device", cost_table),
    ("soak", "soak", soak_table),
    ("arm64", "arm64", arm64_table),
)
"""(marker in docs/field.md, result file, what makes the table)."""
