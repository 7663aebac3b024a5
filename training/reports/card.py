"""Text written from figures: the bundle's CARD.md, and tables between markers in README.md and docs/.

Every figure comes out of a JSON file that a benchmark wrote (docs/results/*.json); nothing is typed by
hand, and a test compares.

    python -m training.reports.card            write those tables and the newest bundle's card anew
    python -m training.reports.card --check    exit 1 when they are stale
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.core.provenance import RESULTS, ROOT
from training.core.results import write_text
from training.reports import classify as classify_tables
from training.reports import ecg as ecg_tables
from training.reports import field as field_tables
from training.reports.classify import figure as _figure
from training.reports.classify import markdown_table as _table
from training.reports.denoise import denoise_table

__all__ = ["card", "classify_table", "fill_markers", "refresh"]


DATABASE_NAMES = {
    "a": "a (MIT, adults, murmurs and mitral prolapse)",
    "b": "b (Aalborg, adults, coronary disease)",
    "c": "c (Thessaloniki, valve disease)",
    "d": "d (Haute-Alsace)",
    "e": "e (Dalian, coronary disease against healthy volunteers)",
    "f": "f (Shiraz)",
    "circor": "CirCor (children, outcome of the patient)",
}


def _read(results: Path | None, name: str) -> dict[str, Any] | None:
    path = (results or RESULTS) / f"{name}.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def classify_table(result: Mapping[str, Any]) -> str:
    """The screening figures of docs/results/classify.json, int8, fold 0, as a Markdown table."""
    rows = []
    model = result["rows"]["int8"]
    for name, entry in model["databases"].items():
        rows.append(
            [
                DATABASE_NAMES.get(name, name),
                f"{entry['n']} ({entry['abnormal']})",
                _figure(entry["auc"]),
                _figure(entry["macc"]),
                _figure(entry["sensitivity"]),
                _figure(entry["specificity"]),
            ]
        )
    for name, label in (("recording", "murmur at this position"), ("patient", "murmur, by patient")):
        entry = model["murmur"][name]
        rows.append(
            [
                f"CirCor: {label}",
                f"{entry['n']} ({entry['present']})",
                _figure(entry["auc"]),
                _figure(entry["macc"]),
                _figure(entry["sensitivity"]),
                _figure(entry["specificity"]),
            ]
        )
    head = ["source, fold 0", "recordings (abnormal)", "AUC", "MAcc", "sensitivity", "specificity"]
    floor = result["floor"]
    return (
        _table(head, rows)
        + "\n\nIntervals: 95 %, bootstrap over subjects; none where a class has fewer than four."
        + " Pooled over all sources the AUC is "
        + f"{_figure(model['pooled']['auc'])}; knowing nothing but the source scores {_figure(floor['auc'])}"
        + " there, and 0.50 within each: look at the rows."
    )


def rows_table(result: Mapping[str, Any]) -> str:
    """Float, pruned and int8 beside each other: AUC by source, fold 0."""
    kinds = [kind for kind in ("float", "pruned", "int8") if kind in result["rows"]]
    rows = []
    for name in result["rows"]["int8"]["databases"]:
        cells = [_figure(result["rows"][kind]["databases"][name]["auc"]["value"], 3) for kind in kinds]
        rows.append([name, *cells])
    for name in ("recording", "patient"):
        cells = [_figure(result["rows"][kind]["murmur"][name]["auc"]["value"], 3) for kind in kinds]
        rows.append([f"CirCor murmur by {name}", *cells])
    return _table(["AUC, fold 0", *kinds], rows)


def trials_table(trials: Sequence[Mapping[str, Any]]) -> str:
    """What was tried: AUC of the abnormal logit on fold 1 of the sources trained on, and on sources left
    out.
    """
    names = ("a", "b", "e", "f", "circor")
    rows = []
    for trial in trials:
        cells = []
        for name in names:
            outside = trial.get("left_out_folds_1_to_4", {}).get(name)
            inside = trial.get("fold_1", {}).get(name)
            key = "murmur_by_abnormal" if name == "circor" else "abnormal"
            if outside:
                cells.append(f"**{outside[key]:.2f}**")
            else:
                cells.append(f"{inside[key]:.2f}" if inside else "–")
        rows.append([trial["name"], ", ".join(trial["left_out"]) or "none", *cells])
    return _table(["network and training", "left out", *names], rows)


def quality_table(result: Mapping[str, Any]) -> str:
    """Abstaining, real bad recordings, causes and contact, from docs/results/quality.json."""
    parts = []
    shares = list(next(iter(result["abstaining"].values()))["macc"]["learned"])
    rows = []
    for name, found in result["abstaining"].items():
        for by, said in (
            ("learned", "learned judge"),
            ("plain", "plain measures"),
            ("learned and margin", "learned judge and distance from the threshold"),
        ):
            if by not in found["macc"]:
                continue
            gain = found["gain_without_worst_tenth"][by]
            rows.append(
                [f"{name}, {said}"]
                + [_figure(found["macc"][by].get(share)) for share in shares]
                + [_figure({k: 100 * v if v is not None else None for k, v in gain.items()}, 1)]
            )
    head = [f"{100 * float(share):.0f} % decided" for share in shares]
    parts.append(
        "MAcc of single windows, mean over a, b, e, f and CirCor's murmurs, by the share of"
        " each source's that is decided:\n\n"
        + _table(["windows", *head, "points gained without the worst tenth"], rows)
    )
    rows = [
        [name, str(row["poor"]), _figure(row["auc"]["learned"]), _figure(row["auc"]["plain"])]
        + [f"{100 * row[key]:.0f} %" for key in ("poor_windows_kept", "good_windows_kept")]
        for name, row in result["bad"].items()
    ]
    parts.append(
        "Recordings that their source calls poor, told from good ones:\n\n"
        + _table(["source", "poor", "AUC learned", "AUC plain", "poor windows kept", "good kept"], rows)
    )
    rows = []
    for kind, row in result["causes"].items():
        if kind != "good sound":
            rows.append(
                [kind.replace("_", " "), row["cause"]]
                + [f"{100 * row[snr][key]:.0f} %" for key in ("right_cause", "kept") for snr in ("0", "-6")]
            )
    good, told = result["causes"]["good sound"], result["contact_told_within_3_s"]
    parts.append(
        "Noise of known kind that nobody learned from, mixed into good windows:\n\n"
        + _table(
            ["noise", "to be told", "told at 0 dB", "at −6 dB", "still counts at 0 dB", "at −6 dB"], rows
        )
        + f"\n\nGood windows: {100 * good['kept']:.0f} % count, something is said of"
        f" {100 * good['any_reason']:.0f} %."
    )
    spoilt = {name: share for name, share in told.items() if name != "good sound"}
    worst = min(spoilt, key=lambda name: spoilt[name])
    mean = 100 * sum(spoilt.values()) / len(spoilt)
    parts.append(
        f"Bad contact ({len(spoilt)} kinds: silence, hiss, a loose chest piece, clipping, noise alone) is"
        f" told within three seconds in {mean:.0f} % of the trials, least often {worst}"
        f" ({100 * spoilt[worst]:.0f} %); of good sound {100 * told['good sound']:.0f} % is called bad at"
        " some second of the first three."
    )
    return "\n\n".join(parts)


def _patients_threshold(classifier: Mapping[str, Any]) -> list[str]:
    at = classifier.get("murmur_by_patient")
    if at is None:
        return []
    return [
        f"A murmur is said to be present in a patient of several positions where the surest reaches {at};",
        "at one position, 0.5.",
    ]


def _taught_beside(classifier: Mapping[str, Any]) -> list[str]:
    if not classifier.get("recipe", {}).get("extra_sounds"):
        return []
    return [
        "Third and fourth heart sounds and rumbles were taught with synthetic ones only; how well it hears",
        "real ones is not measured.",
    ]


def _of_classifier(classifier: Mapping[str, Any], results: Path | None) -> list[str]:
    """The card's part on the screening model."""
    low, high = classifier["undecided"]
    lines = [
        "## The screening model",
        "",
        f"Threshold {classifier['threshold']}, undecided from {low} to {high}, fitted on fold"
        f" {classifier['fitted_on']['fold']}.",
        *_patients_threshold(classifier),
        "The rule that fits the threshold was changed once after fold 0 had been looked at, so MAcc,",
        "sensitivity and specificity below are not untouched by it; AUC is.",
        "It can hear murmurs. It cannot hear coronary disease (most of b and e), which has hardly a",
        "sound of its own: what scores there is partly the way these people were recorded (e's patients",
        "with another stethoscope than its volunteers), and no claim is made for it.",
        *_taught_beside(classifier),
        "",
        "CirCor is children, PhysioNet 2016 adults as far as ages are told: see below, and read the rows",
        "apart. CirCor's outcome is the patient's diagnosis, which is made by more than sound.",
        "",
    ]
    result = _read(results, "classify")
    if result:
        lines += [classify_table(result), ""]
        for heading, text in (
            ("Screening at its threshold, fold 0:", classify_tables.referrals_table(result)),
            (
                "Sources that training never heard (the same recipe, not pruned, a network each):",
                classify_tables.left_out(
                    {"models": {"ours": result.get("models", {}).get("ours", {})}}, DATABASE_NAMES
                ),
            ),
            ("Goals and what is measured:", classify_tables.classify_goals(result)),
            (
                "Heard in training; ages by subject, devices as Liu et al. 2016 and Oliveira et al. 2022"
                " tell:",
                classify_tables.people(result, DATABASE_NAMES),
            ),
        ):
            if text:
                lines += [heading, "", text, ""]
        lines += [_origin(result), ""]
    else:
        lines += ["Its figures on fold 0 are not measured yet: run `stethopi benchmark classify`.", ""]
    return lines


def card(index: Mapping[str, Any], results: Path | None = None) -> str:
    """CARD.md of a bundle from its index and the benchmarks' results (default docs/results)."""
    lines = [
        f"# stethopi models {index['version']}",
        "",
        "It screens; it does not diagnose, and it is no medical device.",
        "",
        "| model | parameters | kilobytes | operations | input |",
        "|---|---|---|---|---|",
    ]
    for name, meta in index["models"].items():
        if "mac_per_window" in meta:
            operations = f"{meta['mac_per_window'] / 1e6:.1f} MMAC a window, one a second"
            heard = "raw sound at 2 kHz, 5 s"
        else:
            operations = f"{meta['mac_per_s'] / 1e6:.1f} MMAC a second"
            what = "ECG in mV" if meta.get("unit") == "mV" else "raw sound"
            rate = f"{meta['rate_hz']} Hz" if meta["rate_hz"] < 1000 else f"{meta['rate_hz'] / 1000:g} kHz"
            heard = f"{what} at {rate}, hops of {meta.get('hop', 16)} samples"
        lines.append(f"| {name} | {meta['parameters']} | {meta['kilobytes']} | {operations} | {heard} |")
    lines += [
        "",
        "## Trained on",
        "",
        "- PhysioNet/CinC Challenge 2016, sets a to f (Liu et al. 2016), and CirCor DigiScope 1.0.3",
        "  (Oliveira et al. 2022), both under ODC-By 1.0; folds 2 to 4. Fold 1 decided and set the operating",
        "  point. Fold 0 was never seen.",
        "- Noise whose licence lets anybody use the result (`noncommercial` = no, part `train`): LibriSpeech",
        "  (CC BY 4.0), donateacry-corpus (ODbL 1.0), ESC-10 (CC BY 3.0 and CC0), Berlin Noise (CC BY 4.0),",
        "  Speech Commands (CC BY 4.0), HLS-CMDS (CC BY 4.0), as the noise index gives them.",
        "",
    ]
    classifier = index["models"].get("classifier")
    if classifier:
        lines += _of_classifier(classifier, results)
    if "denoiser" in index["models"]:
        lines += ["## The denoiser", ""]
        result = _read(results, "denoise")
        if result:
            lines += [denoise_table(result), "", _origin(result), ""]
        else:
            lines += ["Its figures are not measured yet: run `stethopi benchmark denoise`.", ""]
    if "ecg" in index["models"]:
        lines += ["## The ECG denoiser", ""]
        lines += [
            "Trained on the train part of the MIT-BIH Arrhythmia and QT Databases and the noise of the",
            "MIT-BIH Noise Stress Test Database (PhysioNet, ODC-By 1.0): Holter leads of adults.",
            "",
        ]
        result = _read(results, "ecg")
        if result:
            lines += [ecg_tables.ecg_brief(result), "", ecg_tables.ecg_goals(result), "", _origin(result), ""]
        else:
            lines += ["Its figures are not measured yet: run `stethopi benchmark ecg`.", ""]
    lines += [
        "## How it came about",
        "",
        f"Seeds {json.dumps(index['seed'])}, commit {index['commit']}, command `{index['command']}`.",
        "Recipes, gates, quantisation and data hashes stand in bundle.json.",
        "",
    ]
    return "\n".join(lines)


def _origin(result: Mapping[str, Any]) -> str:
    minutes = result.get("minutes")
    took = f", {minutes:.1f} minutes" if minutes is not None else ""
    command, commit, seed = result.get("command"), result.get("commit"), result.get("seed")
    return f"Written by `{command}` at commit {commit}, seed {seed}{took}."


def fill_markers(text: str, tables: str, name: str = "results") -> str:
    """Replace what stands between the lines `<!-- name:begin -->` and `<!-- name:end -->`; the rest stays."""
    before, begin, rest = text.partition(f"<!-- {name}:begin -->\n")
    _, end, after = rest.partition(f"<!-- {name}:end -->")
    return f"{before}{begin}{tables}{end}{after}" if begin and end else text


def _headline() -> str:
    """The README's few figures from the results that are there."""
    rows = []
    denoise, classify, ecg = _read(None, "denoise"), _read(None, "classify"), _read(None, "ecg")
    if denoise and "margins" in denoise:  # not from a former program
        ours = denoise["rows"]["int8"]
        rows += [
            [
                "noise taken out of heart sound, of kinds never trained on, inputs of −6…6 dB",
                f"{_figure(ours['unseen']['plain'], 1)} dB",
            ],
            ["SNR of what comes out when clean sound goes in", f"{_figure(ours['clean_in']['mean'], 1)} dB"],
        ]
    if classify:
        model = classify["rows"]["int8"]
        rows += [
            ["a murmur in a patient, told from none (CirCor, children): AUC"]
            + [_figure(model["murmur"]["patient"]["auc"])],
            ["abnormal told from normal, pooled over all sources: AUC", _figure(model["pooled"]["auc"])],
            ["… by one who knows nothing but the source", _figure(classify["floor"]["auc"])],
        ]
    if ecg:
        plain = ecg["rows"]["int8"]["kinds"]["mixed"]["plain"]
        rows.append(["noise taken out of an ECG, inputs of −6…12 dB", f"{_figure(plain, 1)} dB"])
    return _table(["int8, as on the device; 95 % interval", "measured"], rows) + "\n" if rows else ""


def _tables() -> str:
    """The tables of docs/results.md from the results that are there."""
    parts = []
    denoise, classify = _read(None, "denoise"), _read(None, "classify")
    if denoise:
        from training.reports.denoise import denoise_brief  # the layout is that program's own

        parts += ["## Denoising", denoise_brief(denoise)]
    if classify:
        parts += ["## Screening", classify_table(classify)]
    if ecg := _read(None, "ecg"):
        parts += ["## ECG", ecg_tables.ecg_brief(ecg)]
    return "\n\n".join(parts).replace("](docs/", "](") + "\n" if parts else ""


def _note_tables() -> dict[str, str]:
    """The tables of docs/screening.md by the name of their markers."""
    tables = {}
    trials = RESULTS / "screening-trials.json"
    if trials.is_file():
        tables["trials"] = trials_table(json.loads(trials.read_text("utf-8"))) + "\n"
    if (cross_domain := _read(None, "screening-travel")) is not None:
        tables["cross-domain"] = classify_tables.cross_domain(cross_domain) + "\n"
    result = _read(None, "classify")
    if result:
        tables["classify"] = classify_table(result) + "\n"
        tables["rows"] = rows_table(result) + "\n\n" + _origin(result) + "\n"
        rate = result["heart_rate"]
        told, right = 100 * rate["told"], 100 * rate["within_5_percent_of_those"]
        tables["rate"] = (
            f"`device.screening.rhythm` on the {rate['recordings']} recordings of fold 0 with marked beats,"
            " up to ten"
            f" seconds each: a rate is told for {told:.0f} %, and {right:.0f} % of these lie within 5 %"
            " of the marked one.\n"
        )
        for marker, text in {
            "models": classify_tables.models(result),
            "folds": classify_tables.folds(result, DATABASE_NAMES),
            "shuffled": classify_tables.shuffled(result),
            "left-out": classify_tables.left_out(result, DATABASE_NAMES),
            "murmurs": classify_tables.murmurs(result),
            "murmur-ways": classify_tables.murmur_ways(result),
            "calibration": classify_tables.calibration(result),
            "referrals": classify_tables.referrals_table(result),
            "noise": classify_tables.noise(result),
            "goals": classify_tables.classify_goals(result),
            "people": classify_tables.people(result, DATABASE_NAMES),
        }.items():
            tables[marker] = (text or "Not measured yet.") + "\n"
    result = _read(None, "quality")
    if result:
        tables["quality"] = quality_table(result) + "\n\n" + _origin(result) + "\n"
    return tables


def refresh(check: bool = False) -> list[str]:
    """Write the tables of README.md and docs/ and the newest bundle's CARD.md anew from the results.

    Gives the names of the files that were stale. `check`: look only.
    """
    from device.inference import bundle

    wanted: dict[Path, str] = {}
    for page, tables in ((ROOT / "README.md", _headline), (ROOT / "docs" / "results.md", _tables)):
        if page.is_file():
            wanted[page] = fill_markers(page.read_text("utf-8"), tables())
    note = ROOT / "docs" / "screening.md"
    if note.is_file():
        text = note.read_text("utf-8")
        for name, table in _note_tables().items():
            text = fill_markers(text, table, name)
        wanted[note] = text
    ecg = ROOT / "docs" / "ecg.md"
    if ecg.is_file():
        text = ecg.read_text("utf-8")
        if (result := _read(None, "ecg")) is not None:
            for name, table in ecg_tables.ecg_tables(result).items():
                text = fill_markers(text, table + "\n", name)
        if (result := _read(None, "ecg-trials")) is not None:
            text = fill_markers(text, ecg_tables.ecg_trials_table(result) + "\n", "ecg-trials")
        wanted[ecg] = text
    field = ROOT / "docs" / "field.md"
    if field.is_file():
        text = field.read_text("utf-8")
        for name, file, written in field_tables.TABLES:
            if (result := _read(None, file)) is not None:
                text = fill_markers(text, written(result), name)
        wanted[field] = fill_markers(
            text, field_tables.field_goals_table(lambda name: _read(None, name)), "goals"
        )
    newest = bundle.find()
    index = json.loads((newest / "bundle.json").read_text("utf-8"))
    wanted[newest / "CARD.md"] = card(index)
    stale = []
    for path, text in wanted.items():
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        stale.append(path.relative_to(ROOT).as_posix())
        if not check:
            write_text(path, text)
    return stale


def main(argv: Sequence[str] | None = None) -> int:
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m training.reports.card", description="Write the result tables anew."
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when one is stale")
    options = parser.parse_args(argv)
    stale = refresh(options.check)
    for name in stale:
        print(f"{name}: {'stale; run: python -m training.reports.card' if options.check else 'written'}")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    raise SystemExit(main())
