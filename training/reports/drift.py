"""The table of drift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["drift_table"]


def drift_table(result: Mapping[str, Any]) -> str:
    """The rows as Markdown."""
    lines = [
        "| minute | int8 stream over its difference from one begun anew, dB | from the float net, dB"
        " | SNR gained, int8 | float |",
        "|---|---|---|---|---|",
    ]

    def cell(value: float | None, sign: str = "") -> str:
        return "" if value is None else "the same bits" if value >= 100 else f"{value:{sign}.1f}"

    for r in result["rows"]:
        cells = [str(r["minute"]), cell(r["anew_db"]), cell(r["float_db"])]
        cells += [cell(r["improvement_db"], "+"), cell(r["float_improvement_db"], "+")]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"One stream of {len(result['rows'])} minutes, fold 0; denoiser.tflite {result['sha256'][:12]}.",
    ]
    return "\n".join(lines)
