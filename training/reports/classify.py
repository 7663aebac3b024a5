"""Tables of docs/results/classify.json for docs/screening.md and the card, as Markdown.

Each function takes the result and gives a table, or "" where nothing of it is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.metrics.classification import FEWEST

__all__ = [
    "DEVICES",
    "calibration",
    "figure",
    "folds",
    "classify_goals",
    "left_out",
    "models",
    "murmur_ways",
    "murmurs",
    "noise",
    "people",
    "referrals_table",
    "shuffled",
    "markdown_table",
    "cross_domain",
]

DEVICES = {
    "a": "Welch Allyn Meditron",
    "b": "3M Littmann E4000",
    "c": "AUDIOSCOPE",
    "d": "Infral prototype",
    "e": "normals MLT201 and piezo, patients 3M Littmann",
    "f": "JABES",
    "circor": "3M Littmann 3200",
}
"""As Liu et al. 2016 and Oliveira et al. 2022 tell."""

_DASH = "–"


def figure(value: Any, digits: int = 2) -> str:
    """A number, or a `{value, low, high}` with its interval; a dash for what is unknown."""
    if isinstance(value, Mapping):
        if value.get("value") is None:
            return _DASH
        text = f"{value['value']:.{digits}f}"
        if value.get("low") is not None and value.get("high") is not None:
            text += f" ({value['low']:.{digits}f}–{value['high']:.{digits}f})"
        return text
    return _DASH if value is None else f"{value:.{digits}f}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _row(entry: Mapping[str, Any] | None) -> tuple[str, Mapping[str, Any]]:
    """int8 of a protocol where it is there, else float."""
    rows = (entry or {}).get("rows", {})
    name = "int8" if "int8" in rows else "float"
    return name, rows.get(name, {})


def _short(value: Mapping[str, Any] | None) -> str:
    return _DASH if not value or value.get("value") is None else f"{value['value']:.2f}"


def models(result: Mapping[str, Any]) -> str:
    """All models side by side: AUC by protocol, and cost."""
    rows = []
    for name, entry in result.get("models", {}).items():
        if not any(protocol in entry for protocol in ("leaky", "folds", "left-out", "shuffled")):
            continue
        leaky = entry.get("leaky", {})
        seen = leaky.get("windows_of_recordings_trained_on") or _row(leaky)[1].get("pooled") or {}
        folds = entry.get("folds", {})
        kind, five = _row(folds)
        out_kind, out = _row(entry.get("left-out"))
        databases = out.get("databases", {})
        murmur = (out.get("murmur") or {}).get("by_abnormal")
        units = [u for p in ("folds", "left-out") for u in entry.get(p, {}).get("units", {}).values()]
        cost: Mapping[str, Any] = max((u["cost"] for u in units), key=len, default={})
        steps = " or ".join(str(n) for n in sorted({u["steps"] for u in units})) or _DASH
        minutes = [u["training_minutes"] for u in units]
        rows.append(
            [
                name,
                steps,
                f"{max(minutes):.1f}" if minutes else _DASH,
                _short(seen.get("auc")),
                f"{figure(five.get('mean_within_source_auc'))} ({len(folds.get('units', {}))} of 5)"
                if five
                else _DASH,
                *(_short(databases.get(d, {}).get("auc")) for d in ("a", "f")),
                _short((murmur or {}).get("auc")),
                figure(_row(entry.get("shuffled"))[1].get("mean_within_source_auc")),
                str(cost.get("parameters", _DASH)),
                f"{cost['mac_per_window'] / 1e6:.1f}" if "mac_per_window" in cost else _DASH,
                f"{cost['kilobytes']:.0f}" if "kilobytes" in cost else _DASH,
            ]
        )
    head = [
        "AUC",
        "steps",
        "minutes on one core, at most",
        "leaky, pooled",
        "subject-wise folds, mean within a source",
        "a left out",
        "f left out",
        "CirCor (murmur) left out",
        "shuffled labels",
        "parameters",
        "MMAC a window",
        "kB int8",
    ]
    return markdown_table(head, rows) if rows else ""


def _of_subjects(entry: Mapping[str, Any] | None) -> str:
    """AUC by subject; a dash where a class has too few of them to say anything."""
    if not entry or min(entry["positive"], entry["n"] - entry["positive"]) < FEWEST:
        return _DASH
    return _short(entry["auc"])


def left_out(result: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Every model on every source that its training never heard."""
    rows = []
    for model, entry in result.get("models", {}).items():
        kind, out = _row(entry.get("left-out"))
        for source in out.get("databases", {}):
            one = out["databases"][source]
            label = names.get(source, source)
            if source == "circor" and out.get("murmur"):
                one, label = out["murmur"]["by_abnormal"], "CirCor, murmur at this position"
            cells = [figure(one[key]) for key in ("auc", "macc")]
            cells += [figure(one["macc_at_best_threshold"])]
            cells += [figure(one[key]) for key in ("sensitivity", "specificity")]
            cells += [_of_subjects(one.get("by_subject"))]
            rows.append([model, kind, label, f"{one['n']} ({one['positive']})", *cells])
    head = ["model", "row", "left out of training", "recordings (abnormal)", "AUC", "MAcc"]
    head += ["MAcc at its best threshold", "sensitivity", "specificity", "AUC by subject"]
    return markdown_table(head, rows) if rows else ""


def folds(result: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Ours on the subject-wise folds, source by source."""
    entry = result.get("models", {}).get("ours", {}).get("folds")
    kind, five = _row(entry)
    rows = []
    each = dict(five.get("databases", {}))
    if five.get("murmur"):
        each["CirCor, murmur at this position"] = five["murmur"]["by_abnormal"]
    for source, one in each.items():
        cells = [figure(one[key]) for key in ("auc", "macc", "macc_at_best_threshold")]
        cells += [figure(one[key]) for key in ("sensitivity", "specificity")]
        rows.append([names.get(source, source), f"{one['n']} ({one['positive']})", *cells])
    head = [
        f"{len((entry or {}).get('units', {}))} of 5 folds, {kind}",
        "recordings (abnormal)",
        "AUC",
        "MAcc",
    ]
    head += ["MAcc at its best threshold", "sensitivity", "specificity"]
    return markdown_table(head, rows) if rows else ""


def shuffled(result: Mapping[str, Any]) -> str:
    """What networks score on fold 0 that learned from labels dealt out at random within each source."""
    sources = ("a", "b", "e", "f", "circor")
    rows = []
    for name, entry in result.get("models", {}).items():
        _, found = _row(entry.get("shuffled"))
        if each := found.get("databases"):
            rows.append([name, *(figure(each.get(source, {}).get("auc")) for source in sources)])
    return markdown_table(["AUC, labels shuffled", *sources], rows) if rows else ""


def cross_domain(result: Mapping[str, Any]) -> str:
    """Ways to read and to combine networks that never heard a source, and what nested choice makes of them;
    by recording, then by subject.
    """
    aimed, beside = ("a", "f", "circor"), ("b", "e")

    def row(name: str, found: Mapping[str, Any]) -> list[str]:
        each = [found[source] for source in aimed if source in found]
        mean = sum(one["auc"]["value"] for one in each) / len(each) if len(each) == 3 else None
        cells = [figure(found.get(source, {}).get("auc")) for source in aimed]
        others = [_short(found.get(source, {}).get("auc")) for source in beside]
        subject = [_of_subjects(found.get(source, {}).get("by_subject")) for source in aimed]
        return [name, *cells, figure(mean, 3), ", ".join(subject), ", ".join(others)]

    rows = [row(way, found) for way, found in result["ways"].items()]
    head = ["AUC, left out", "a", "f", "CirCor (murmur)", "mean", "by subject: a, f, CirCor", "b, e"]
    if chosen := result.get("nested"):
        rows.append(row("**nested choice**", chosen))
        told = "; ".join(f"{source}: {one['way']}" for source, one in chosen.items())
        return f"{markdown_table(head, rows)}\n\nChosen by the other two sources: {told}."
    return markdown_table(head, rows)


def murmurs(result: Mapping[str, Any]) -> str:
    """CirCor's murmurs by patient from all positions: the 2022 task."""
    rows = []
    for model, entry in result.get("models", {}).items():
        one = entry.get("murmur_by_patient")
        if not one:
            continue
        loudest = one.get("loudest_position") or {}
        rows.append(
            [
                model,
                f"{len(entry['folds']['units'])} of 5",
                f"{one['patients']} ({one['truth'].get('present', 0)}, {one['truth'].get('unknown', 0)})",
                figure(one["auc"]),
                figure(one["weighted_accuracy"]),
                figure(one["always_present"]),
                figure(loudest.get("right")),
                figure(loudest.get("by_chance")),
            ]
        )
    head = [
        "model",
        "folds",
        "patients (present, unknown)",
        "AUC, present against absent",
        "weighted accuracy",
        "calling all present",
        "loudest position right",
        "by chance",
    ]
    return markdown_table(head, rows) if rows else ""


def murmur_ways(result: Mapping[str, Any]) -> str:
    """Rules that were tried for present, unknown and absent, by their weighted accuracy."""
    one = result.get("models", {}).get("ours", {}).get("murmur_by_patient")
    if not one or "other_ways" not in one:
        return ""
    own = {"chances by the surest and the mean position and the quality": one["weighted_accuracy"]}
    rows = [[name, figure(value)] for name, value in (one["other_ways"] | own).items()]
    return markdown_table(["present, unknown or absent by", "weighted accuracy"], rows)


def calibration(result: Mapping[str, Any]) -> str:
    """Expected calibration error by source: as it comes, and after the source's own scaling."""
    entry = result.get("models", {}).get("ours", {}).get("folds")
    _, five = _row(entry)
    rows = []
    for source, one in five.get("databases", {}).items():
        after = one.get("after_scaling", {})
        shipped = result["rows"]["int8"]["databases"].get(source, {}).get("calibration_error")
        errors = (shipped, one["calibration_error"], after.get("calibration_error"), after.get("by_chance"))
        rows.append([source, str(one["n"]), *(figure(v) for v in errors)])
    units = len((entry or {}).get("units", {}))
    head = [
        "calibration error",
        "recordings",
        "bundle, fold 0",
        f"ours, {units} of 5 folds, one scaling",
        "scaled to the source",
        "of that by chance",
    ]
    return markdown_table(head, rows) if rows else ""


def referrals_table(result: Mapping[str, Any]) -> str:
    """What screening with the bundle would mean, by the murmurs of fold 0's patients."""
    murmur = result["rows"]["int8"].get("murmur", {})
    rows = []
    for key, label in (
        ("patient", "CirCor, murmur, by patient"),
        ("recording", "CirCor, murmur, one position"),
    ):
        one = murmur.get(key, {})
        for line in one.get("referrals") or []:
            rows.append(
                [
                    label,
                    figure(one["sensitivity"]),
                    f"{100 * line['prevalence']:.0f} %",
                    f"{line['referred_per_100']:.1f}",
                    f"{line['found_per_100']:.1f}",
                    f"{line['missed_per_100']:.1f}",
                    _DASH if line["ill_of_referred"] is None else f"{100 * line['ill_of_referred']:.0f} %",
                ]
            )
    head = [
        "screening for",
        "sensitivity",
        "prevalence",
        "referred per 100",
        "of them ill",
        "missed",
        "share of ill among the referred",
    ]
    return markdown_table(head, rows) if rows else ""


def noise(result: Mapping[str, Any]) -> str:
    """The bundle in noise: mean AUC over sources (CirCor by its murmur), by level and way."""
    found = result.get("noise")
    if not found:
        return ""
    ways = list(next(iter(found.values())))
    rows = []
    for level, entry in found.items():
        name = "clean" if level == "clean" else f"{level} dB"
        cells = [f"{figure(entry[way]['mean_auc'])} / {figure(entry[way]['mean_macc'])}" for way in ways]
        rows.append([name, *cells])
    return markdown_table(["AUC / MAcc, mean over sources", *ways], rows)


def classify_goals(result: Mapping[str, Any]) -> str:
    """Goal and measured, missed ones and all."""
    rows = []
    for goal in result.get("goals", []):
        digits = 3 if goal["goal"] < 0.01 else 2
        bound = ("≤ " if goal["at_most"] else "≥ ") + f"{goal['goal']:g}"
        if "stretch" in goal:
            bound += f", stretch {goal['stretch']:g}"
        met = {True: "yes", False: "**no**", None: "not measured"}[goal["met"]]
        rows.append([goal["figure"], bound, figure(goal["measured"], digits), met])
    return markdown_table(["figure", "goal", "measured", "met"], rows) if rows else ""


def people(result: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Who was heard in training: subjects, ages, devices."""
    rows = []
    for source, one in result.get("trained_on", {}).items():
        ages = ", ".join(f"{age} {n}" for age, n in one["ages"].items())
        rows.append(
            [
                names.get(source, source),
                str(one["recordings"]),
                str(one["subjects"]),
                ages,
                DEVICES.get(source, _DASH),
            ]
        )
    return markdown_table(["source", "recordings", "subjects", "ages", "recorded with"], rows) if rows else ""
