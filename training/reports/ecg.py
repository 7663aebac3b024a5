"""Tables from docs/results/ecg.json: for README.md, the bundle's card and docs/ecg.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ANY", "ECG_NOISES", "ecg_brief", "ecg_goals", "ecg_table", "ecg_tables", "ecg_trials_table"]

ECG_NOISES = ("mixed", "bw", "em", "ma", "gaussian", "mains")
ANY = "any"
"""Mixed noise on every usable reference, clear or not."""

ECG_DENOISER_NAMES = {
    "nothing": "nothing",
    "high-pass and notch": "high-pass 0.5 Hz and notch (neurokit2)",
    "band-pass": "band-pass 0.5–40 Hz, zero phase",
    "wavelet": "wavelet, Daubechies 4",
    "autoencoder": "convolutional autoencoder (seed)",
    "cnn": "fast CNN (seed)",
    "cnn-spectral": "fast CNN, spectral loss",
    "deepfilter": "DeepFilter-like",
    "fcn-dae": "FCN-DAE-like",
    "tcdae": "TCDAE-like",
    "diffusion": "**our refiner, offline**",
    "float": "ours, float",
    "int8": "**ours, int8, as on the device**",
}


def _cell(figure: Mapping[str, Any] | None, spec: str) -> str:
    if figure is None or figure.get("value") is None:
        return "–"
    return f"{figure['value']:{spec}} [{figure['low']:{spec}}, {figure['high']:{spec}}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _size(row: Mapping[str, Any]) -> str:
    return f"{row['parameters'] / 1000:.0f} K, {row['mac_per_s'] / 1e6:.1f}" if "parameters" in row else "–"


def ecg_table(result: Mapping[str, Any]) -> str:
    """Mixed noise by row: the headline, for README and CARD."""
    rows = []
    for name, row in result["rows"].items():
        mixed = row["kinds"]["mixed"]
        rows.append(
            [
                ECG_DENOISER_NAMES.get(name, name),
                _size(row),
                _cell(mixed["plain"], "+.1f"),
                _cell(mixed["beyond_volume"], "+.1f"),
                _cell(mixed["cosine"], ".3f"),
                f"{row['r_peaks']['relative']['value']:.3f}",
                f"{row['clean_in']['percentile_5']['value']:.1f}" if name != "nothing" else "exact",
                f"{row['clean_in']['st_shift_mv']['value']:.3f}",
            ]
        )
    head = [
        "bw + em + ma, −6…12 dB",
        "parameters, MMAC/s",
        "dB plain",
        "dB beyond volume",
        "cosine",
        "R-peak F1 at 0 dB, of the clean one",
        "clean in: SNR out, p5",
        "ST shift, mV",
    ]
    return "\n".join(_table(head, rows))


def ecg_brief(result: Mapping[str, Any]) -> str:
    """The table and what it was made of."""
    c = result["counts"]
    return (
        ecg_table(result)
        + f"\n\n{c['records']} records of {c['patients']} patients and noise that no training met;"
        + f" {2 * c['each_kind_and_snr']} clear pieces of 10 s at each level"
        + f" ({100 * c['clear_share']:.0f} % of the material is clear). Intervals: 95 %, bootstrap over"
        + " patients. The networks beside ours were trained for a few minutes each; see docs/ecg.md."
    )


def ecg_goals(result: Mapping[str, Any]) -> str:
    """The goals, what is measured, and whether they are met."""
    rows: list[list[str]] = []

    def add(what: str, goal: float, figure: Mapping[str, Any] | None, spec: str, least: bool = True) -> None:
        value = None if figure is None else figure.get("value")
        if value is None:
            return
        met = value >= goal if least else value <= goal
        sign = "≥" if least else "≤"
        rows.append([what, f"{sign} {goal:g}", _cell(figure, spec), "met" if met else "**missed**"])

    ours, refiner = result["rows"].get("int8"), result["rows"].get("diffusion")
    above = result["ours_above"]
    if ours:
        mixed, harm = ours["kinds"]["mixed"], ours["clean_in"]
        add("mixed, streaming: dB plain", 10, mixed["plain"], "+.1f")
        add("mixed, streaming: dB beyond volume", 6, mixed["beyond_volume"], "+.1f")
        add("cosine, streaming", 0.93, mixed["cosine"], ".3f")
        add("above the autoencoder seed, dB", 4, above.get("autoencoder"), "+.1f")
        add(f"above the best filter ({above['best_filter']}), dB", 4, above.get(above["best_filter"]), "+.1f")
        add("R-peak F1 at 0 dB, of the clean one", 0.99, ours["r_peaks"]["relative"], ".3f")
        add("clean in: ST level shift, mV", 0.05, harm["st_shift_mv"], ".3f", least=False)
        add("clean in: SNR out, 5th percentile", 15, harm["percentile_5"], ".1f")
        if above.get("float"):
            lost = {k: -v for k, v in above["float"].items() if k in ("value", "low", "high")}
            lost["low"], lost["high"] = lost["high"], lost["low"]
            add("int8 against float, dB lost", 0.3, lost, "+.2f", least=False)
    if refiner:
        add("mixed, offline refiner: dB plain", 12, refiner["kinds"]["mixed"]["plain"], "+.1f")
        add("cosine, offline", 0.957, refiner["kinds"]["mixed"]["cosine"], ".3f")
    return "\n".join(_table(["figure", "goal", "measured", ""], rows))


def ecg_tables(result: Mapping[str, Any]) -> dict[str, str]:
    """All tables of docs/ecg.md by name."""
    kinds = []
    for name, row in result["rows"].items():
        cells = [f"{row['kinds'][k]['plain']['value']:+.1f}" for k in (*ECG_NOISES, ANY)]
        kinds.append([ECG_DENOISER_NAMES.get(name, name), *cells])
    levels = []
    for name, row in result["rows"].items():
        by = row["kinds"]["mixed"]["by_snr"]
        levels.append(
            [ECG_DENOISER_NAMES.get(name, name), *(f"{by[f'{v:g}']['plain']:+.1f}" for v in result["snr_db"])]
        )
    beats = []
    for name, row in result["rows"].items():
        b = row["beats"]
        cells = [_cell(b["ssd"], ".2f"), _cell(b["mad"], ".3f"), _cell(b["prd"], ".1f")]
        beats.append([ECG_DENOISER_NAMES.get(name, name), *cells, _cell(b["cosine"], ".3f")])
    harm = []
    for name, row in result["rows"].items():
        c, r = row["clean_in"], row["r_peaks"]
        harm.append(
            [
                ECG_DENOISER_NAMES.get(name, name),
                _cell(r["f1"], ".3f"),
                _cell(r["relative"], ".3f"),
                "exact" if name == "nothing" else _cell(c["mean"], ".1f"),
                "exact" if name == "nothing" else _cell(c["percentile_5"], ".1f"),
                _cell(c["st_shift_mv"], ".3f"),
                _cell(c["st_shift_mv_percentile_95"], ".3f"),
                _cell(c["qrs_width_ms"], ".1f"),
            ]
        )
    above = [
        [ECG_DENOISER_NAMES.get(name, name), _cell(figure, "+.1f")]
        for name, figure in result["ours_above"].items()
        if isinstance(figure, Mapping)
    ]
    trained = [
        [
            ECG_DENOISER_NAMES.get(name, name),
            f"{row['parameters']:,}",
            f"{row['steps']:,}",
            f"{row['minutes']:.1f}",
        ]
        for name, row in result["rows"].items()
        if "steps" in row
    ]
    return {
        "ecg": ecg_brief(result),
        "ecg-goals": ecg_goals(result),
        "ecg-kinds": "\n".join(_table(["dB plain, −6…12 dB", *ECG_NOISES, "mixed, any reference"], kinds)),
        "ecg-levels": "\n".join(
            _table(["mixed, dB plain", *(f"{v:g} dB in" for v in result["snr_db"])], levels)
        ),
        "ecg-beats": "\n".join(_table(["one beat, bw of 0.2–2", "SSD", "MAD", "PRD %", "cosine"], beats)),
        "ecg-harm": "\n".join(
            _table(
                [
                    "",
                    "R-peak F1 at 0 dB",
                    "of the clean one",
                    "clean in: SNR out",
                    "p5",
                    "ST shift, mV",
                    "p95",
                    "QRS width, ms",
                ],
                harm,
            )
        ),
        "ecg-above": "\n".join(_table(["ours (int8) above, mixed, dB plain, paired", "dB"], above)),
        "ecg-training": "\n".join(_table(["network", "parameters", "steps", "minutes"], trained)),
    }


def ecg_trials_table(result: Mapping[str, Any]) -> str:
    """Markdown of docs/results/ecg-trials.json."""
    rows = []
    for row in result["rows"]:
        v = row["dev"]
        rows.append(
            [
                row["name"],
                _size(row),
                f"{row['steps']:,}",
                f"{v['mixed plain']:+.1f}",
                f"{v['mixed beyond']:+.1f}",
                f"{v['mixed cosine']:.3f}",
                f"{v['clean out']:.1f}",
            ]
        )
    head = [
        "trial",
        "parameters, MMAC/s",
        "steps",
        "dB plain",
        "beyond volume",
        "cosine",
        "clean in: SNR out",
    ]
    return "\n".join(_table(head, rows))
