"""Tables of docs/rhythm.md, from docs/results/rhythm.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["rhythm_tables"]

_ROWS = {
    "streaming": "streaming",
    "unhurried": "the same, 1.1 s behind",
    "offline": "offline, whole recording",
}


def _percent(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure.get("value") is None:
        return "–"
    text = f"{100 * figure['value']:.1f}"
    return (
        text
        if figure.get("low") is None
        else f"{text} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"
    )


def _plain(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "–"
    text = f"{figure['value']:.1f}"
    return text if figure["low"] is None else f"{text} [{figure['low']:.1f}, {figure['high']:.1f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _sounds(section: Mapping[str, Any]) -> str:
    databases = section["offline"]["f1_100_ms"]["databases"]
    rows = []
    for row, name in _ROWS.items():
        for tolerance in ("100", "60"):
            table = section[row][f"f1_{tolerance}_ms"]
            each = [f"{100 * table['databases'][d]['value']:.1f}" for d in databases]
            rows.append(
                [f"{name}, {tolerance} ms", _percent(table["mean"]), _percent(table["sounds"]), *each]
            )
    people = [f"{of['recordings']}, {of['subjects']}" for of in databases.values()]
    rows.append(["recordings, subjects", "", f"{section['recordings']}, {section['subjects']}", *people])
    return _table(["S1 and S2, F1 in %", "mean over databases", "all sounds", *databases], rows)


def _rates(section: Mapping[str, Any]) -> str:
    rows = []
    for row, name in {**_ROWS, "autocorrelation": "autocorrelation, as today"}.items():
        rate = section[row]["heart_rate"]
        rows.append(
            [
                name,
                _plain(rate["mean_absolute_error_bpm"]),
                _percent(rate["within_5_bpm"]),
                _percent(rate["told"]),
            ]
        )
    return _table(["heart rate", "mean absolute error, bpm", "within 5 bpm, %", "told, %"], rows)


def _refused(section: Mapping[str, Any]) -> str:
    rows = []
    for row, name in _ROWS.items():
        r = section[row]["refusal"]
        share = "–" if r["of_those_refused"] is None else f"{100 * r['of_those_refused']:.0f}"
        told = "–" if r["of_those_told"] is None else f"{100 * r['of_those_told']:.0f}"
        rows.append([name, str(r["wrongly_segmented"]), share, str(r["rightly_segmented"]), told])
    return _table(
        ["recordings", "F1 under 80 %", "of those refused, %", "F1 of 80 % or more", "of those told, %"], rows
    )


def _network(result: Mapping[str, Any]) -> str:
    net = result["network"]
    steps, loss = net["loss"][-1]
    return _table(
        ["network", ""],
        [
            ["precision", net["precision"]],
            ["parameters", f"{net['parameters']:,}"],
            ["MMAC for a second of sound", f"{net['mac_per_s'] / 1e6:.2f}"],
            ["streaming answer behind the sound", f"{net['lag_ms']} ms"],
            ["training", f"{steps:,} steps, {net['training_minutes']:.0f} minutes, last loss {loss:.3f}"],
            [
                "trained on folds; measured on fold",
                f"{', '.join(map(str, result['trained_on_folds']))}; {result['fold']}",
            ],
            ["seed, commit", f"{result['seed']}, `{str(result['commit'])[:12]}`"],
        ],
    )


def _goals(result: Mapping[str, Any]) -> str:
    """The goals that float figures can speak of. They are asked of int8; this is float."""
    section, net = result["all"], result["network"]

    def mean(row: str, tolerance: str) -> float:
        return 100 * float(section[row][f"f1_{tolerance}_ms"]["mean"]["value"])

    rate = section["offline"]["heart_rate"]
    each = section["offline"]["f1_100_ms"]["databases"].values()
    refused = section["offline"]["refusal"]["of_those_refused"]
    error = rate["mean_absolute_error_bpm"]["value"]
    measured: list[tuple[str, float | None, str, float, int]] = [
        ("streaming, S1 and S2 within 100 ms, %", mean("streaming", "100"), "≥", 97, 1),
        ("the same within 60 ms", mean("streaming", "60"), "≥", 94, 1),
        ("offline, within 100 ms, %", mean("offline", "100"), "≥", 98, 1),
        ("the same within 60 ms", mean("offline", "60"), "≥", 96, 1),
        ("the worst database, offline, 100 ms, %", min(100 * d["value"] for d in each), "≥", 95, 1),
        ("heart rate, mean absolute error, bpm", error, "≤", 1.5, 2),
        ("heart rate within 5 bpm, %", _hundredfold(rate["within_5_bpm"]["value"]), "≥", 97, 1),
        ("heart rate told, %", _hundredfold(rate["told"]["value"]), "≥", 85, 1),
        ("refused of the wrongly segmented, %", _hundredfold(refused), "≥", 80, 1),
        ("MMAC for a second of sound", net["mac_per_s"] / 1e6, "≤", 3, 2),
        ("thousand parameters", net["parameters"] / 1e3, "≤", 80, 1),
    ]
    rows = []
    for name, value, sign, goal, digits in measured:
        met = value is not None and (value >= goal if sign == "≥" else value <= goal)
        told = "–" if value is None else f"{value:.{digits}f}"
        rows.append([name, f"{sign} {goal:g}", told, "yes" if met else "no"])
    return _table(["figure, float, fold 0", "goal", "measured", "met"], rows)


def _hundredfold(share: float | None) -> float | None:
    return None if share is None else 100 * share


def rhythm_tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Marker → table."""
    return {
        "rhythm-network": _network(result),
        "rhythm-goals": _goals(result),
        "rhythm-sounds": _sounds(result["all"]),
        "rhythm-rate": _rates(result["all"]),
        "rhythm-refused": _refused(result["all"]),
    }
