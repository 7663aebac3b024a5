"""Text and a picture from docs/results/denoise.json: for README.md, the bundle's card and docs/denoiser.md.

    python -m training.benchmarks.denoise --note docs/denoiser.md     renew the note's tables and the picture

Needs nothing but the standard library; the picture needs matplotlib.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from device.durable import whole_file
from training.core.provenance import RESULTS
from training.core.results import write_text
from training.reports import denoiser_note

__all__ = [
    "PICTURE",
    "denoise_brief",
    "draw_snr",
    "denoise_goals",
    "denoise_goals_table",
    "note",
    "renew",
    "denoise_table",
    "written",
]

PICTURE = "denoise-snr.svg"
"""Beside denoise.json: improvement against input SNR."""

DENOISER_NAMES = {
    "nothing": "nothing",
    "volume": "best volume (knows the truth)",
    "band-pass": "band-pass 25–400 Hz",
    "wavelet": "wavelet, Coiflet 5, soft",
    "spectral gating": "spectral gating (noisereduce)",
    "unet-classic": "classic U-Net, float",
    "unet-classic int8": "classic U-Net, int8",
    "lu-net": "LU-Net-like, float",
    "oracle": "oracle Wiener filter (ceiling)",
    "float": "ours, float",
    "pruned": "ours, pruned, float",
    "int8": "**ours, int8, as on the device**",
}
CLASSICAL_ROWS = ("volume", "band-pass", "wavelet", "spectral gating")
"""What "the best classical row" is chosen from; the best volume is one though it knows the truth."""


def _cell(figure: Mapping[str, Any] | None, sign: bool = True, digits: int = 1) -> str:
    if figure is None or figure.get("value") is None:
        return "–"
    spec = f"{'+' if sign else ''}.{digits}f"
    text = f"{figure['value']:{spec}}"
    if figure.get("low") is None or figure.get("high") is None:
        return text
    return f"{text} [{figure['low']:{spec}}, {figure['high']:{spec}}]"


def _number(x: float | None, spec: str = ".1f") -> str:
    return "–" if x is None else f"{x:{spec}}"


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    found = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return found + [f"| {' | '.join(row)} |" for row in rows]


def _snr(figure: Mapping[str, Any]) -> str:
    return "exact" if (figure["value"] or 0) >= 99.9 else _cell(figure, sign=False)


def _known(result: Mapping[str, Any], names: Sequence[str] | None = None) -> list[str]:
    """The rows that are there, in the order of `NAMES`."""
    return [n for n in DENOISER_NAMES if n in result["rows"] and (names is None or n in names)]


# ── goals ───────────────────────────────────────────────────────────────────────────────────────────────────


Goal = tuple[str, str, str, str]
"""Figure, goal, what is measured, "met", "missed" or "not measured"."""


class _Goals(list[Goal]):
    """The rows of the table, as they come."""

    def add(self, figure: str, goal: str, measured: str, met: bool | None) -> None:
        self.append((figure, goal, measured, "not measured" if met is None else "met" if met else "missed"))


def denoise_goals(result: Mapping[str, Any], results: Path = RESULTS) -> list[Goal]:
    """All goals, from the int8 row. A goal is met when the measured value meets it; its interval stands
    beside.

    results: where the trials of pruning lie (denoiser-tuned.json).
    """
    found = _Goals()
    _improvement_goals(result, found.add)
    _harm_goals(result["rows"]["int8"], found.add)
    _classifier_goals(result["rows"]["int8"], found.add)
    _cost_goals(result, found.add)
    found.append(_pruned_or_scratch(results))
    return found


_Add = Callable[[str, str, str, bool | None], None]


def _improvement_goals(result: Mapping[str, Any], add: _Add) -> None:
    """What denoising brings, beside nothing and beside classical filters."""
    rows, ours = result["rows"], result["rows"]["int8"]

    def two(where: Mapping[str, Any]) -> str:
        return f"{_cell(where['plain'])}; {_cell(where['beyond_volume'])}"

    def reach(where: Mapping[str, Any], plain: float, beyond: float) -> bool:
        return bool(where["plain"]["value"] >= plain and where["beyond_volume"]["value"] >= beyond)

    add(
        "SNR improvement in band, −6…6 dB, unseen kinds, plain; beyond volume",
        "≥ +10 dB; ≥ +7 dB (floor +9, +6)",
        two(ours["unseen"]),
        reach(ours["unseen"], 10, 7),
    )
    add("the same over all kinds", "≥ +10.5; ≥ +7.5", two(ours["all"]), reach(ours["all"], 10.5, 7.5))
    breath = ours["kinds"].get("breath")
    add(
        "breath",
        "≥ +6.5; ≥ +4",
        two(breath) if breath else "–",
        reach(breath, 6.5, 4) if breath else None,
    )
    best = {
        what: min((n for n in CLASSICAL_ROWS if n in rows), key=lambda n: result["margins"][n][what]["value"])
        for what in ("plain", "beyond_volume")
    }
    margin = {what: result["margins"][name][what] for what, name in best.items()}
    add(
        "above the best classical row, plain; beyond volume (paired)",
        "≥ 5 dB, both",
        f"{_cell(margin['plain'])} ({best['plain']}); {_cell(margin['beyond_volume'])}"
        f" ({best['beyond_volume']})",
        reach(margin, 5, 5),
    )


def _harm_goals(ours: Mapping[str, Any], add: _Add) -> None:
    """What it must not spoil: clean sound, murmurs, a quiet heart."""
    clean = ours["clean_in"]
    add(
        "harm: clean in, SNR out, mean; 5th percentile of recordings",
        "≥ 25; ≥ 15 dB",
        f"{_cell(clean['mean'], sign=False)}; {_cell(clean['percentile_5'], sign=False)}",
        clean["mean"]["value"] >= 25 and clean["percentile_5"]["value"] >= 15,
    )
    worse = ours["made_worse_interval"]
    add(
        "sounds made worse at inputs of 10 dB or less",
        "≤ 2 %",
        f"{100 * worse['value']:.1f} % [{100 * worse['low']:.1f}, {100 * worse['high']:.1f}]",
        worse["value"] <= 0.02,
    )
    murmur = ours["murmur"]
    for level, words, most in (
        ("clean", "clean in", 0.5),
        ("10", "noise at 10 dB", 1.5),
        ("0", "at 0 dB", 4.0),
    ):
        median = murmur[level]["median"]
        add(
            f"real murmurs' excess in systole, {words}: median change",
            f"within {most:g} dB",
            _cell(median),
            abs(median["value"]) <= most,
        )
        if level == "clean":
            tail = murmur[level]["percentile_10"]
            add("the same, 10th percentile", "≥ −2 dB", _cell(tail), tail["value"] >= -2)
    false = ours["false_murmur"]["median"]
    add("murmurs put into normal beats at 0 dB: median change", "< 2 dB", _cell(false), false["value"] < 2)
    add(
        "level: input peaks from 0.005 to 1.0 of full scale",
        "within 0.3 dB",
        f"{ours['level_spread_db']:.2f} dB",
        ours["level_spread_db"] <= 0.3,
    )


def _classifier_goals(ours: Mapping[str, Any], add: _Add) -> None:
    """What the classifier says of cleaned sound."""
    levels = ours["classifier"]["levels"]
    for what, words in (("macc", "MAcc"), ("murmur_auc", "murmur AUC")):
        at_0 = levels["0"][what]["difference"]
        add(
            f"classifier's {words}, with denoising minus without, at 0 dB",
            "interval above 0",
            _cell(at_0, digits=3),
            None if at_0["low"] is None else at_0["low"] > 0,
        )
        rest = {k: levels[k][what]["difference"] for k in ("10", "clean")}
        add(
            f"the same at 10 dB; with no noise added ({words})",
            "interval not below 0",
            "; ".join(_cell(v, digits=3) for v in rest.values()),
            all(v["high"] is not None and v["high"] >= 0 for v in rest.values()),
        )


def _cost_goals(result: Mapping[str, Any], add: _Add) -> None:
    """What int8 and pruning cost and save."""
    rows, ours = result["rows"], result["rows"]["int8"]
    as_float = next((n for n in ("pruned", "float") if n in rows), None)
    if as_float:
        lost = result["margins"][as_float]
        add(
            "int8 minus the same net in float, plain; beyond volume (paired)",
            "≥ −0.3 dB",
            "; ".join(_cell(v, digits=2) for v in lost.values()),
            min(v["value"] for v in lost.values()) >= -0.3,
        )
    else:
        add("int8 minus float", "≥ −0.3 dB", "–", None)
    delay = ours["delay_with_decimator_ms"]
    add(
        "cost: MMAC a second; KB; delay",
        "≤ 30; ≤ 300; ≤ 40 ms",
        f"{ours['mac_per_s'] / 1e6:.1f}; {ours['kilobytes']:.0f}; {delay:.1f} ms with the decimator",
        ours["mac_per_s"] <= 30e6 and ours["kilobytes"] <= 300 and delay <= 40,
    )
    if "float" in rows and "pruned" in rows:
        times = rows["float"]["mac_per_s"] / rows["pruned"]["mac_per_s"]
        change = {
            k: rows["pruned"]["all"][k]["value"] - rows["float"]["all"][k]["value"]
            for k in ("plain", "beyond_volume")
        }
        add(
            "pruned: fewer operations; change, plain; beyond volume",
            "≥ 2×; ≥ −0.3 dB",
            f"{times:.1f}×; {change['plain']:+.2f}; {change['beyond_volume']:+.2f}",
            times >= 2 and min(change.values()) >= -0.3,
        )
    else:
        add("pruned: fewer operations; change", "≥ 2×; ≥ −0.3 dB", "–", None)


def _pruned_or_scratch(results: Path) -> Goal:
    """The goal that a pruned net beats one of its size that was never larger, both trained equally long."""
    path = results / "denoiser-tuned.json"
    tuned = json.loads(path.read_text("utf-8")) if path.is_file() else {"rows": []}
    figure = "pruned, minus the same size from scratch: fold 1, plain; beyond volume (paired)"
    pair = denoiser_note.beside_scratch(tuned["rows"])
    if not pair or "beside_scratch" not in tuned:
        return figure, "above 0", "–", "not measured"
    spent, _, scratch = pair
    found = [tuned["beside_scratch"][k] for k in ("plain", "beyond_volume")]
    words = f"{'; '.join(_cell(f, digits=2) for f in found)} ({spent:,} steps in all; {scratch['steps']:,})"
    worse = min(f["value"] for f in found) <= 0
    # a net that inherits thousands of steps proves nothing against one that had hundreds
    fair = worse or scratch["steps"] >= spent
    return figure, "above 0", words, "not measured" if not fair else "missed" if worse else "met"


def denoise_goals_table(result: Mapping[str, Any]) -> str:
    """All goals of the denoiser beside what was measured, the missed ones too."""
    found = denoise_goals(result)
    rows = [[a, b, c, f"**{d}**" if d != "met" else d] for a, b, c, d in found]
    met = sum(d == "met" for *_, d in found)
    return "\n".join(
        [
            *_lines(["figure, fold 0, int8", "goal", "measured", ""], rows),
            "",
            f"{met} of {len(found)} met. A goal counts as met when the value meets it, and where it asks for"
            " an interval, when that does; intervals: 95 %, bootstrap over subjects. Classical rows are"
            " band-pass, wavelet, spectral gating and the best volume, though that one knows the truth.",
        ]
    )


# ── tables ──────────────────────────────────────────────────────────────────────────────────────────────────


def _improvement_table(result: Mapping[str, Any]) -> list[str]:
    head = ["dB in band, fold 0, −6…6 dB", "all kinds: plain", "beyond volume", "unseen kinds: plain"]
    head += ["beyond volume", "full band, all kinds: plain", "beyond volume", "correlation"]
    head += ["clean in: SNR out", "made worse"]
    rows = []
    for name in _known(result):
        row = result["rows"][name]
        cells = [DENOISER_NAMES[name]]
        cells += [_cell(row[of][what]) for of in ("all", "unseen") for what in ("plain", "beyond_volume")]
        cells += [_number(row["all"][what]["value"], "+.1f") for what in ("full_band", "full_band_beyond")]
        cells += [_number(row["all"]["correlation"]["value"], ".3f"), _snr(row["clean_in"]["mean"])]
        cells.append(f"{100 * row['made_worse']:.1f} %")
        rows.append(cells)
    return _lines(head, rows)


def _cost_table(result: Mapping[str, Any]) -> list[str]:
    rows = []
    for name in _known(result):
        row = result["rows"][name]
        if "parameters" not in row:
            continue
        trained = f"{row['steps']:,} steps, {row['minutes']:.0f} min" if "minutes" in row else ""
        if name == "pruned":
            trained = f"the float net, pruned; last fine-tuning {trained}"
        cells = [DENOISER_NAMES[name], f"{row['parameters']:,}", f"{row['kilobytes']:.0f}"]
        cells += [f"{row['mac_per_s'] / 1e6:.1f}", f"{row['delay_ms']:g} ms", trained]
        rows.append(cells)
    head = ["network", "parameters", "KB", "MMAC a second", "delay", "trained, one core"]
    return _lines(head, rows)


def _snr_table(result: Mapping[str, Any]) -> list[str]:
    levels = [f"{level:g}" for level in result["snr_db"]]
    rows = []
    for name in _known(result):
        by = result["rows"][name]["by_snr"]
        cells = [f"{by[k]['plain']['value']:+.1f} / {by[k]['beyond_volume']['value']:+.1f}" for k in levels]
        rows.append([DENOISER_NAMES[name], *cells])
    return _lines(["all kinds, plain / beyond volume, input at", *(f"{k} dB" for k in levels)], rows)


def _shift_table(result: Mapping[str, Any]) -> list[str]:
    wanted = [k for k in ("-6", "0", "10") if k in result["rows"]["int8"]["by_snr"]]
    rows = []
    for name in _known(result):
        row = result["rows"][name]
        cells = [DENOISER_NAMES[name]]
        for where in (*(row["by_snr"][k] for k in wanted), row["clean_in"]):
            for beat in ("S1", "S2"):
                cells.append(f"{_number(where[f'{beat}_median_ms'])} / {_number(where[f'{beat}_p95_ms'])}")
        rows.append(cells)
    at = [f"{beat} at {k} dB" for k in wanted for beat in ("S1", "S2")] + ["S1, clean in", "S2, clean in"]
    return _lines(["shift in time, ms, median / 95th percentile", *at], rows)


def _kind_table(result: Mapping[str, Any]) -> list[str]:
    rows = []
    for kind, k in result["rows"]["int8"]["kinds"].items():
        by = k["by_snr"]
        cells = [kind + (" (never trained on)" if kind in result["unseen_kinds"] else "")]
        cells += [_cell(k["plain"]), _cell(k["beyond_volume"])]
        cells += [
            f"{by[level]['plain']:+.1f}" if level in by else "–" for level in ("-10", "-6", "0", "10", "20")
        ]
        best = [
            n for n in _known(result) if n not in ("oracle", "float", "pruned", "int8", "nothing", "volume")
        ]
        name = max(best, key=lambda n: result["rows"][n]["kinds"][kind]["plain"]["value"])
        other = result["rows"][name]["kinds"][kind]["plain"]["value"]
        oracle = result["rows"].get("oracle", {}).get("kinds", {}).get(kind, {}).get("plain")
        cells += [f"{other:+.1f} ({name})", _number(oracle and oracle["value"], "+.1f")]
        rows.append(cells)
    head = ["kind of noise (int8)", "plain", "beyond volume", "plain at −10 dB", "at −6 dB", "at 0 dB"]
    return _lines([*head, "at 10 dB", "at 20 dB", "best of the others, plain", "oracle, plain"], rows)


def _murmur_table(result: Mapping[str, Any]) -> list[str]:
    rows = []
    for name in _known(result):
        if name == "volume":
            continue
        row = result["rows"][name]
        cells = [
            _cell(row["murmur"][at][what])
            for at in ("clean", "10", "0")
            for what in ("median", "percentile_10")
        ]
        rows.append([DENOISER_NAMES[name], *cells, _cell(row["false_murmur"]["median"])])
    head = ["change of a real murmur's excess, dB", "clean in: median", "worst tenth", "10 dB: median"]
    head += ["worst tenth", "0 dB: median", "worst tenth", "put into normal beats at 0 dB: median"]
    return _lines(head, rows)


def _synthetic_table(result: Mapping[str, Any]) -> list[str]:
    rows = []
    for name in _known(result):
        if name == "volume":
            continue
        entry = result["rows"][name]["synthetic_murmur"]["all"]
        cells = [_cell(entry[at][what]) for what in ("excess", "kept") for at in ("clean", "10", "0")]
        rows.append([DENOISER_NAMES[name], *cells])
    head = ["synthetic murmurs, all, median dB", "excess: clean in", "10 dB", "0 dB"]
    lines = _lines([*head, "of its sound kept: clean in", "10 dB", "0 dB"], rows)
    ours = result["rows"]["int8"]["synthetic_murmur"]
    nothing = result["rows"]["nothing"]["synthetic_murmur"]
    rows = []
    for of in ("grade", "timing", "pitch"):
        for name, entry in ours[of].items():
            cells = [_cell(entry[at]["excess"]) for at in ("clean", "10", "0")]
            cells += [_number(nothing[of][name][at]["excess"]["value"], "+.1f") for at in ("10", "0")]
            cells += [_cell(entry[at]["kept"]) for at in ("clean", "10", "0")]
            rows.append([f"{of}: {name} ({entry['n']})", *cells])
    head = [
        "int8, synthetic murmurs, median dB",
        "excess: clean in",
        "10 dB",
        "0 dB",
        "nothing: 10 dB",
        "0 dB",
    ]
    return [*lines, "", *_lines([*head, "kept: clean in", "10 dB", "0 dB"], rows)]


def _classifier_table(result: Mapping[str, Any]) -> list[str]:
    c = result["rows"]["int8"]["classifier"]
    rows = []
    for level, entry in c["levels"].items():
        cells = ["no noise added" if level == "clean" else f"{level} dB"]
        for what in ("macc", "murmur_auc"):
            one = entry[what]
            cells += [_number(one[k]["value"], ".3f") for k in ("raw", "cleaned")]
            cells.append(_cell(one["difference"], digits=3))
        rows.append(cells)
    head = ["the released classifier hears", "MAcc: raw", "cleaned", "difference, paired", "murmur AUC: raw"]
    return [
        *_lines([*head, "cleaned", "difference, paired"], rows),
        "",
        f"{c['recordings']} recordings of fold 0 of {c['subjects']} subjects, {c['abnormal']} abnormal;"
        f" murmurs: {c['murmur_recordings']} of CirCor, {c['murmurs']} with one. On the device the classifier"
        " hears the raw sound.",
    ]


def _verdict_table(result: Mapping[str, Any]) -> list[str]:
    found = result["rows"]["int8"].get("verdicts")
    if found is None:
        return [OLDER]
    levels = list(found["by_snr"])

    def share(entry: Mapping[str, Any]) -> str:
        return f"{100 * entry['kept']['raw']:.0f} → {100 * entry['kept']['cleaned']:.0f}"

    def change(entry: Mapping[str, Any]) -> list[str]:
        kept, moved = entry["kept"]["difference"], entry["moved"]
        points = {k: kept[k] and 100 * kept[k] for k in ("value", "low", "high")}
        by = f"{moved['raw']:.2f} → {moved['cleaned']:.2f}"
        return [_cell(points), by, _cell(moved["difference"], digits=2)]

    rows = []
    for kind, entry in found["kinds"].items():
        cells = [share(entry["by_snr"][level]) for level in levels]
        rows.append([kind, *cells, *change(entry)])
    every = [share(found["by_snr"][level]) for level in levels]
    rows.append(["all kinds", *every, *change(found["all"])])
    head = ["verdict as on the clean piece, %, raw → cleaned", *(f"{level} dB" for level in levels)]
    head += ["cleaned minus raw, points", "probability moved by", "difference"]
    lines = _lines(head, rows)
    rows = [[f"{level} dB", *change(found["by_snr"][level])] for level in levels]
    head = ["all kinds", "cleaned minus raw, points", "probability moved by", "difference"]
    return [*lines, "", *_lines(head, rows)]


def _counts(result: Mapping[str, Any]) -> list[str]:
    c = result["counts"]
    databases = ", ".join(f"{k} {v}" for k, v in c["references"].items())
    left_out = "".join(
        f" Left out: {DENOISER_NAMES.get(k, k)} ({v})." for k, v in result.get("left_out", {}).items()
    )
    return [
        f"{c['mixtures']} mixtures of 6 s from {sum(c['references'].values())}"
        f" recordings of {c['subjects']} subjects ({databases}), {result['limit']} for each kind and SNR;"
        f" {c['murmurs']} recordings with a murmur of {c['murmur_subjects']} subjects;"
        f" {c['synthetic_murmurs']} synthetic murmurs. Intervals: 95 %, bootstrap over subjects."
        f" Written by `stethopi benchmark denoise`.{left_out}"
    ]


def _older(result: Mapping[str, Any]) -> bool:
    """Whether the file was written before the benchmark compared pairs: a release must not fail over that."""
    return "margins" not in result


OLDER = "Measured by an older program: run `stethopi benchmark denoise` to have the figures here.\n"


def denoise_table(result: Mapping[str, Any]) -> str:
    """Markdown of docs/results/denoise.json for the card: goals, improvement, cost, kinds, murmurs,
    classifier.
    """
    if _older(result):
        return OLDER
    parts = [_improvement_table, _cost_table, _kind_table, _murmur_table, _classifier_table, _counts]
    return "\n\n".join([denoise_goals_table(result), *("\n".join(part(result)) for part in parts)])


def written(result: Mapping[str, Any]) -> str:
    """How the figures came about, as a list: the result's own words."""
    return "\n".join(f"- *{name}*: {words}" for name, words in result["how"].items())


def denoise_brief(result: Mapping[str, Any]) -> str:
    """The few rows of docs/results/denoise.json that the README shows, as Markdown."""
    if _older(result):
        return OLDER
    head = ["dB in 25–400 Hz, inputs of −6…6 dB", "all kinds: plain", "beyond volume"]
    head += ["kinds never trained on: plain", "beyond volume", "clean in: SNR out"]
    head += ["murmur's excess: clean in", "10 dB", "0 dB", "MMAC a second"]
    rows = []
    for name in _known(result):
        if name in ("float", "pruned", "unet-classic"):
            continue
        row = result["rows"][name]
        cells = [DENOISER_NAMES[name]]
        cells += [_cell(row[of][what]) for of in ("all", "unseen") for what in ("plain", "beyond_volume")]
        cells.append(_snr(row["clean_in"]["mean"]))
        cells += [_cell(row["murmur"][at]["median"]) for at in ("clean", "10", "0")]
        cells.append(f"{row['mac_per_s'] / 1e6:.0f}" if "mac_per_s" in row else "")
        rows.append(cells)
    ours = result["rows"]["int8"]["kinds"]
    hardest = min(ours, key=lambda kind: ours[kind]["plain"]["value"])
    found = denoise_goals(result)
    missed = [figure for figure, _, _, met in found if met != "met"]
    told = f" Missed or not measured: {'; '.join(missed)}." if missed else ""
    return "\n".join(
        [
            *_lines(head, rows),
            "",
            "*Beyond volume* gives input and output their best gain first, so that turning the volume down"
            " earns nothing. *Murmur's excess*: median change of what a real murmur has more in systole than"
            " in diastole. The hardest kind of noise is"
            f" {hardest} ({_cell(ours[hardest]['plain'])} plain). {len(found) - len(missed)} of {len(found)}"
            f" goals are met.{told} All goals, by kind, SNR and murmur, with harm and the worst tenth:"
            " [docs/denoiser.md](docs/denoiser.md).",
        ]
    )


def _pruning_table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = [
        "channels taken by",
        "share",
        "parameters",
        "MMAC/s",
        "plain",
        "beyond volume",
        "clean in: SNR out",
    ]
    lines = []
    for r in rows:
        v = r["fold_1"]
        cells = [r["by"], f"{r['ratio']:.2f}", f"{r['parameters']:,}", f"{r['mac_per_s'] / 1e6:.1f}"]
        lines.append([*cells, f"{v['all plain']:+.2f}", f"{v['all beyond']:+.2f}", f"{v['clean out']:.1f}"])
    return "\n".join(_lines(head, lines))


TRAINED = {
    "full": "full",
    "pruned-first": "pruned, first fine-tuning",
    "pruned-polish": "second",
    "pruned-settle": "third",
    "pruned-blend": "between these two",
    "pruned": "fourth, as released",
}
"""Nets of one run by the name in denoiser-training.json, as the note calls them."""


def _training_table(found: Mapping[str, Any]) -> str:
    head = ["fold 1, −6…6 dB", "steps", "minutes", "plain", "beyond volume", "clean in: mean, p5"]
    head += ["murmur, clean in", "10 dB", "0 dB", "after a jump"]
    rows = []
    for k, name in TRAINED.items():
        if k in found and found[k].get("blend") is not None:
            # before there was a fourth, the net between was the last
            name = f"{found[k]['blend']:g} of the way there{', as released' if k == 'pruned' else ''}"
            rows.append((name, "", "", found[k]["fold_1"]))
        elif k in found:
            rows.append((name, found[k]["steps"], found[k]["minutes"], found[k]["fold_1"]))
    if "export" in found:
        rows.append(("int8", "", "", found["export"]["fold_1_int8"]))
    lines = []
    for name, steps, minutes, v in rows:
        cells = [name, str(steps), str(minutes), f"{v['all plain']:+.2f}", f"{v['all beyond']:+.2f}"]
        cells += [f"{v['clean out']:.1f}, {v['clean out p5']:.1f}"]
        cells += [f"{v[k]:+.2f}" for k in ("murmur clean", "murmur 10", "murmur 0")]
        lines.append([*cells, f"{v['jump']:+.2f}" if "jump" in v else ""])
    return "\n".join(_lines(head, lines))


def note(results: Path) -> dict[str, str]:
    """The generated parts of docs/denoiser.md by name, from the JSON files in `results`."""
    parts = {}
    path = results / "denoise.json"
    result = json.loads(path.read_text("utf-8")) if path.is_file() else None
    if result and not _older(result):
        parts["goals"] = denoise_goals_table(result)
        parts["how"] = written(result)
        for name, made in (
            ("improvement", _improvement_table),
            ("cost", _cost_table),
            ("snr", _snr_table),
            ("shift", _shift_table),
            ("kinds", _kind_table),
            ("murmurs", _murmur_table),
            ("synthetic", _synthetic_table),
            ("classifier", _classifier_table),
            ("verdicts", _verdict_table),
            ("counts", _counts),
        ):
            parts[name] = "\n".join(made(result))
    if (path := results / "denoiser-pruning.json").is_file():
        parts["pruning"] = _pruning_table(json.loads(path.read_text("utf-8"))["rows"])
    if (path := results / "denoiser-training.json").is_file():
        parts["training"] = _training_table(json.loads(path.read_text("utf-8")))
    return parts | denoiser_note.parts(results)


def write_note(path: Path, results: Path) -> str:
    """The lab note with its generated parts renewed: what stands between `<!-- name -->` and `<!-- /name
    -->`."""
    text = path.read_text("utf-8")
    for name, part in note(results).items():
        before, begin, rest = text.partition(f"<!-- {name} -->")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if begin and end:
            text = f"{before}{begin}\n\n{part}\n\n{end}{after}"
    return text


def renew(path: Path, results: Path) -> None:
    """Write the lab note's tables and the picture anew."""
    write_text(path, write_note(path, results))
    found = results / "denoise.json"
    result = json.loads(found.read_text("utf-8")) if found.is_file() else None
    if result and not _older(result):
        draw_snr(result, results / PICTURE)


# ── picture ─────────────────────────────────────────────────────────────────────────────────────────────────

COLOURS = {
    "band-pass": "#9aa5b1",
    "wavelet": "#b58900",
    "spectral gating": "#6c71c4",
    "unet-classic int8": "#cb4b16",
    "lu-net": "#2aa198",
    "int8": "#d33682",
    "oracle": "#444444",
}


def draw_snr(result: Mapping[str, Any], path: Path) -> None:
    """Improvement against input SNR, a line a method, plain and beyond volume, as SVG; the same bytes for the
    same figures. Bands are 95 % intervals.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    levels = list(result["snr_db"])
    with pyplot.rc_context({"svg.hashsalt": "stethopi", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = pyplot.subplots(1, 2, figsize=(9, 4), sharey=True)
        for axis, what, title in zip(
            axes, ("plain", "beyond_volume"), ("plain", "beyond volume"), strict=True
        ):
            for name, colour in COLOURS.items():
                if name not in result["rows"]:
                    continue
                by = [result["rows"][name]["by_snr"][f"{level:g}"][what] for level in levels]
                style = "--" if name == "oracle" else "-"
                axis.plot(
                    levels, [b["value"] for b in by], style, color=colour, marker=".", label=_plain(name)
                )
                if name == "int8":
                    axis.fill_between(
                        levels, [b["low"] for b in by], [b["high"] for b in by], color=colour, alpha=0.15
                    )
            axis.axhline(0, color="black", linewidth=0.6)
            axis.set_title(f"{title}, 25–400 Hz, all kinds of noise")
            axis.set_xlabel("input SNR, dB")
            axis.grid(alpha=0.3)
        axes[0].set_ylabel("SNR improvement, dB")
        axes[1].legend(fontsize=8, loc="lower left")
        figure.tight_layout()
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
        pyplot.close(figure)


def _plain(name: str) -> str:
    return DENOISER_NAMES[name].replace("*", "")
