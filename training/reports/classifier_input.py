"""The table of what the classifier should hear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["INPUT_NAMES", "inputs_table"]


INPUT_NAMES = {
    "cleaned": "the cleaned sound",
    "half": "half cleaned (strength 0.5)",
    "mean": "both: mean of the two logits",
    "better": "of both, the one of better quality",
}


def inputs_table(result: Mapping[str, Any]) -> str:
    """The comparison as Markdown."""

    def cell(pair: Mapping[str, Any]) -> str:
        d = pair["difference"]
        return f"{pair['one']['value']:.3f} | {d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]"

    ways = result["ways"]
    first = ways["cleaned"]
    lines = [
        "| the classifier hears, fold 1, 0 dB | MAcc | minus raw, paired | murmur AUC | minus raw, paired |",
        "|---|---|---|---|---|",
        f"| the raw sound | {first['macc']['other']['value']:.3f} |"
        f" | {first['murmur_auc']['other']['value']:.3f} | |",
    ]
    lines += [
        f"| {INPUT_NAMES[way]} | {cell(ways[way]['macc'])} | {cell(ways[way]['murmur_auc'])} |"
        for way in INPUT_NAMES
    ]
    lines += ["", f"{result['recordings']} recordings of fold 1 of {result['subjects']} subjects."]
    return "\n".join(lines)
