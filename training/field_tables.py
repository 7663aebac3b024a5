"""The tables of docs/field.md, from what `bench`, `soak`, the power cuts and the arm64 run wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["TABLES", "arm64_table", "cost_table", "power_line", "soak_table"]

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
    return (
        "\n".join(
            (
                _row("soak", ""),
                _row("---", "---"),
                _row("sound, exams", f"{soak['hours_of_sound']:g} h, {soak['exams']}"),
                _row("broker taken away or given back", soak["broker_toggles"]),
                _row(
                    "resident memory after warm-up, at the end",
                    f"{soak['resident_mb_after_warm_up']:.1f}, {soak['resident_mb_at_the_end']:.1f} MB",
                ),
                _row("its slope", f"{soak['resident_slope_mb_a_day']:+.2f} MB a day of sound"),
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
    tests = []
    for key in sorted(key for key in arm64 if key.startswith("python ")):
        found = arm64[key]
        for name, model in found["models"].items():
            apart = model.get("snr_apart_db")
            lines.append(
                _row(
                    f"{key}, {found['interpreter']}",
                    name,
                    model["steps"],
                    f"{model['differing']} of {model['values']:,}",
                    model["worst_lsb"],
                    "" if apart is None else f"{apart:.3f} dB",
                )
            )
        ran = found.get("tests")
        if ran:
            tests.append(
                f"{key}: {ran.get('passed', 0)} tests passed and {ran.get('failed', 0)} failed in "
                f"{ran['minutes']:g} minutes ({', '.join(ran['of'])})"
            )
    return "\n".join(lines) + "\n" + (f"\n{'; '.join(tests)}.\n" if tests else "")


TABLES = (
    ("power", "power", power_line),
    ("cost", "device", cost_table),
    ("soak", "soak", soak_table),
    ("arm64", "arm64", arm64_table),
)
"""(marker in docs/field.md, result file, what makes the table)."""
