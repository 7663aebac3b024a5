"""Tables and plot of the denoiser's lab note say what the result files say."""

from __future__ import annotations

import json
from pathlib import Path

from training.reports.denoiser_note import parts, plot

FOLD_1 = {
    "all plain": 9.5,
    "all beyond": 6.5,
    "clean out": 50.0,
    "murmur clean": 0.1,
    "murmur 10": -1.0,
    "murmur 0": -4.0,
}


def test_tables_and_plot_tell_the_results(tmp_path: Path) -> None:
    def row(kind: str, macs: float, **more: object) -> dict[str, object]:
        return {"kind": kind, "name": kind, "parameters": 1234, "mac_per_s": macs * 1e6, "steps": 700} | {
            "fold_1": FOLD_1,
            **more,
        }

    tuned = [row("full", 40), row("pruned", 20, ratio=0.36), row("scratch", 18)]
    tuned.append(row("further", 18, about="one more", fold_1_rounded={"all beyond": 6.4}))
    (tmp_path / "denoiser-tuned.json").write_text(json.dumps({"rows": tuned}))
    fold_1 = dict.fromkeys(
        ("all plain", "all beyond", "clean out", "clean out p5", "murmur clean", "murmur clean p10")
        + ("murmur 10", "murmur 0", "kept 10", "false murmur", "jump", "tilted", "level"),
        -1.5,
    )
    minus = {k: {"value": -0.5, "low": -0.75, "high": 0.25} for k in fold_1}
    more = {"fold_1": fold_1, "by_database": {"a": 1.0, "circor": 2.0}}
    designs = [
        row("design", 7, about="the shipped one", **more),
        row("design", 7, about="answer: the sound itself", like="design", minus=minus, **more),
        row("design", 7, about="level: steady", like="design", minus=minus, **more),
    ]
    (tmp_path / "denoiser-designs.json").write_text(json.dumps({"rows": designs}))
    before = [
        {"by": way, "ratio": 0.2, "mac_per_s": 2.6e7, "fold_1": FOLD_1}
        for way in ("contribution", "magnitude")
    ]
    (tmp_path / "denoiser-pruning.json").write_text(json.dumps({"rows": before}))
    steps = [
        {"net": net, "way": way, "fold_1": {**fold_1, "all plain": plain}}
        for net, way, plain in (
            ("before", "float", 9.0),
            ("before", "as it is", 7.5),
            ("released", "float", 9.5),
            ("released", "clean sound alone", 9.25),
            ("released", "file", 9.5),
        )
    ]
    (tmp_path / "denoiser-int8.json").write_text(json.dumps({"rows": steps}))
    found = parts(tmp_path)
    assert "| before the last fine-tuning | int8, as it is | +7.50 | +1.50 | -1.50 | +0.00 |" in found["int8"]
    assert "| as released | int8, ranges from clean sound alone | +9.25 | +0.25 |" in found["int8"]
    assert "| as released | the exported file | +9.50 | +0.00 |" in found["int8"]
    assert "| the shipped size from scratch | 1,234 | 18.0 | 700 | +9.50 | +6.50 | 50.0 |" in found["tuned"]
    assert found["tuned"].splitlines()[-1].startswith("| one more |")
    assert found["tuned"].splitlines()[-1].endswith("| +6.40 |")
    assert "| 0.36 of the channels taken" in found["tuned"]
    assert (
        "| answer: the sound itself | 1,234 | 7.0 | 700 | -1.50 | -0.50 [-0.75, +0.25] |" in found["designs"]
    )
    assert "| the shipped one | 1,234 | 7.0 | 700 | -1.50 |  |" in found["designs"]
    assert len(found["designs-murmurs"].splitlines()) == 5
    assert len(found["designs-robust"].splitlines()) == 4  # only those whose purpose shows there
    assert found["designs-robust"].splitlines()[-1].endswith("| +1.00 | +2.00 |")
    for text in found.values():
        assert len({line.count("|") for line in text.splitlines()}) == 1
    plot(tmp_path, tmp_path / "one.svg")
    plot(tmp_path, tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert "from scratch" in (tmp_path / "one.svg").read_text("utf-8")
    assert (tmp_path / "one.svg").stat().st_size < 300_000
