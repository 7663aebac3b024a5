"""The generated parts of docs/denoiser.md that trials and drift fill, and its plot; from docs/results/*.json.

    python -m training.reports.denoiser_note
        draws docs/denoiser-pruning.svg (tables: training.benchmarks.denoise --note)

Needs neither PyTorch nor the data.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from device.durable import whole_file
from training.core.provenance import RESULTS

__all__ = ["beside_scratch", "parts", "plot"]

PLOT = RESULTS.parent / "denoiser-pruning.svg"

_NAMES = {
    "full": "not pruned",
    "shipped": "pruned as shipped, first fine-tuning",
    "polished": "the same, after the second fine-tuning",
    "settled": "the same, after the third",
    "blended": "weights between these two",
    "released": "the same, after the last, as shipped",
    "scratch": "the shipped size from scratch",
}


def beside_scratch(
    rows: Sequence[Mapping[str, Any]],
) -> tuple[int, Mapping[str, Any], Mapping[str, Any]] | None:
    """The trial of pruning nearest in operations to that from scratch: its steps with those of the whole net
    that it was cut from, and both rows."""
    scratch = next((r for r in rows if r["kind"] == "scratch"), None)
    pruned = [r for r in rows if r["kind"] == "pruned"]
    if not scratch or not pruned:
        return None
    nearest = min(pruned, key=lambda r: abs(r["mac_per_s"] - scratch["mac_per_s"]))
    inherited = next((int(r["steps"]) for r in rows if r["kind"] == "full"), 0)
    return inherited + int(nearest["steps"]), nearest, scratch


def _cells(row: Mapping[str, Any]) -> list[str]:
    v = row["fold_1"]
    return [
        f"{row['parameters']:,}",
        f"{row['mac_per_s'] / 1e6:.1f}",
        f"{row['steps']:,}",
        f"{v['all plain']:+.2f}",
        f"{v['all beyond']:+.2f}",
        f"{v['clean out']:.1f}",
        *(f"{v[k]:+.2f}" for k in ("murmur clean", "murmur 10", "murmur 0")),
    ]


_HEAD = (
    " parameters | MMAC/s | steps | plain | beyond volume | clean in: SNR out"
    " | murmur, clean in | 10 dB | 0 dB |"
)


_ROBUST = ("chance", "level", "colour", "databases")
"""Choices whose purpose shows in other sounds and databases."""


def _designs(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Three tables of the trials of designs: noise and clean sound; murmurs; other sounds and databases."""

    def value(row: Mapping[str, Any], name: str, digits: int = 2) -> str:
        sign = "" if name.startswith("clean out") else "+"
        return f"{row['fold_1'][name]:{sign}.{digits}f}"

    def more(row: Mapping[str, Any], name: str) -> str:
        d = row.get("minus", {}).get(name)
        return f"{d['value']:+.2f} [{d['low']:+.2f}, {d['high']:+.2f}]" if d else ""

    def drift_table(head: str, lines: Sequence[Sequence[str]]) -> str:
        cells = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([f"| {head} |", "|---" * (head.count("|") + 1) + "|", *cells])

    def called(row: Mapping[str, Any]) -> str:
        return str(row["about"] or row["name"])

    databases = sorted({k for row in rows for k in row["by_database"]})
    robust = [row for k, row in enumerate(rows) if not k or called(row).startswith(_ROBUST)]
    return {
        "designs": drift_table(
            "design | parameters | MMAC/s | steps | plain | difference | beyond volume | difference"
            " | clean in: SNR out | 5th percentile",
            [
                [
                    called(row),
                    f"{row['parameters']:,}",
                    f"{row['mac_per_s'] / 1e6:.1f}",
                    f"{row['steps']:,}",
                    *(f(row, k) for k in ("all plain", "all beyond") for f in (value, more)),
                    *(value(row, k, 1) for k in ("clean out", "clean out p5")),
                ]
                for row in rows
            ],
        ),
        "designs-murmurs": drift_table(
            "design | real murmurs, clean in: median | worst tenth | 10 dB | difference | 0 dB"
            " | synthetic ones kept at 10 dB | difference | put into normal beats at 0 dB",
            [
                [
                    called(row),
                    *(value(row, k) for k in ("murmur clean", "murmur clean p10", "murmur 10")),
                    more(row, "murmur 10"),
                    *(value(row, k) for k in ("murmur 0", "kept 10")),
                    more(row, "kept 10"),
                    value(row, "false murmur"),
                ]
                for row in rows
            ],
        ),
        "designs-robust": drift_table(
            "design | after a jump, plain | difference | coloured otherwise, beyond volume | difference"
            " | level 0.005 to 1.0 | beyond volume on " + " | ".join(databases),
            [
                [
                    called(row),
                    *(f(row, k) for k in ("jump", "tilted") for f in (value, more)),
                    f"{row['fold_1']['level']:.2f}",
                    *(f"{row['by_database'][k]:+.2f}" for k in databases),
                ]
                for row in robust
            ],
        ),
    }


def _int8(rows: Sequence[Mapping[str, Any]]) -> str:
    """The steps towards int8: each beside its own net in float."""
    nets = {"before": "before the last fine-tuning", "released": "as released"}
    ways = {"float": "float", "file": "the exported file"}
    floats = {row["net"]: row["fold_1"] for row in rows if row["way"] == "float"}
    lines = [
        "| net | computed | plain | lost | beyond volume | lost | clean in: SNR out | 5th percentile"
        " | murmur, clean in | 10 dB | 0 dB | after a jump |",
        "|---" * 12 + "|",
    ]
    for row in rows:
        v, before = row["fold_1"], floats[row["net"]]
        way = row["way"] if row["net"] == "before" else f"ranges from {row['way']}"
        cells = [nets[row["net"]], ways.get(row["way"]) or f"int8, {way}"]
        for key in ("all plain", "all beyond"):
            cells += [f"{v[key]:+.2f}", "" if row["way"] == "float" else f"{before[key] - v[key]:+.2f}"]
        cells += [f"{v[k]:.1f}" for k in ("clean out", "clean out p5")]
        cells += [f"{v[k]:+.2f}" for k in ("murmur clean", "murmur 10", "murmur 0", "jump")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parts(results: Path) -> dict[str, str]:
    """The generated parts of docs/denoiser.md that these trials fill, by name."""
    found = {}
    if (path := results / "denoiser-tuned.json").is_file():
        rows = json.loads(path.read_text("utf-8"))["rows"]
        more = any("fold_1_rounded" in row for row in rows)
        head = f"| net |{_HEAD}{' beyond volume, as int8 rounds |' if more else ''}"
        lines = [head, "|---" * (11 if more else 10) + "|"]
        for row in rows:
            name = _NAMES.get(row["kind"]) or row.get("about")
            name = name or f"{row['ratio']:.2f} of the channels taken, fine-tuned shortly"
            rounded = row.get("fold_1_rounded", {}).get("all beyond")
            cells = [*_cells(row), *(["" if rounded is None else f"{rounded:+.2f}"] if more else [])]
            lines.append(f"| {' | '.join([name, *cells])} |")
        found["tuned"] = "\n".join(lines)
    if (path := results / "denoiser-designs.json").is_file():
        found |= _designs(json.loads(path.read_text("utf-8"))["rows"])
    if (path := results / "denoiser-int8.json").is_file():
        found["int8"] = _int8(json.loads(path.read_text("utf-8"))["rows"])
    if (path := results / "denoiser-drift.json").is_file():
        from training.reports.drift import drift_table

        found["drift"] = drift_table(json.loads(path.read_text("utf-8")))
    if (path := results / "denoise-hearing.json").is_file():
        from training.reports.classifier_input import inputs_table as ways

        found["hearing"] = ways(json.loads(path.read_text("utf-8")))
    return found


def plot(results: Path, target: Path) -> None:
    """Improvement on fold 1 against multiply-accumulates, before and after fine-tuning, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    before = json.loads((results / "denoiser-pruning.json").read_text("utf-8"))["rows"]
    after = json.loads((results / "denoiser-tuned.json").read_text("utf-8"))["rows"]
    short = sorted((r for r in after if r["kind"] == "pruned"), key=lambda r: -r["mac_per_s"])
    with plt.rc_context({"svg.hashsalt": "stethopi", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained", sharex=True)
        for axis, key, title in (
            (axes[0], "all plain", "plain"),
            (axes[1], "all beyond", "beyond volume"),
        ):

            def line(rows: Sequence[Mapping[str, Any]], style: str, label: str, axis=axis, key=key) -> None:  # type: ignore[no-untyped-def]
                if rows:
                    x = [r["mac_per_s"] / 1e6 for r in rows]
                    axis.plot(x, [r["fold_1"][key] for r in rows], style, label=label, markersize=5)

            line([r for r in before if r["by"] == "magnitude"], ":s", "pruned by magnitude, not tuned")
            line([r for r in before if r["by"] == "contribution"], "--o", "pruned by contribution, not tuned")
            if short:
                line(short, "-o", f"then fine-tuned, {short[0]['steps']:,} steps")
            for kind, mark in (
                ("shipped", "D"),
                ("polished", "*"),
                ("blended", "d"),
                ("released", "h"),
                ("scratch", "X"),
                ("full", "P"),
            ):
                for r in after:
                    if r["kind"] == kind:
                        line([r], mark, f"{_NAMES[kind]}, {r['steps']:,} steps")
            axis.set_title(f"SNR gained, {title}, −6…6 dB, fold 1", fontsize=9)
            axis.set_xlabel("MMAC a second")
            axis.set_ylabel("dB")
            axis.grid(alpha=0.3)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7)
        with whole_file(target) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.reports.denoiser_note", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--plot", type=Path, default=PLOT)
    options = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    plot(options.results, options.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
