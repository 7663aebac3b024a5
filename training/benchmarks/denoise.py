"""Measure the released denoiser on fold 0 and noise it never heard, beside everything else, in one run.

    stethopi benchmark denoise --out runs --baselines DIR    writes docs/results/denoise.json
    stethopi benchmark denoise --limit 2                     a first look, in minutes

References, noise and each figure are told in the result file itself (`how`) and in docs/denoiser.md. Each
kind of noise meets each SNR (25 to 400 Hz) with `--limit` references (default 10), of 6 s, databases in
turn.

Rows: those of training.denoise.classical; unet-classic (float, int8) and lu-net from the checkpoints in
--baselines; `float` and `pruned`, ours, from the checkpoints in --out; `int8`, the bundle as the device runs
it.
A row whose file is missing is left out, and the result says so.

The work is cut into pieces that are kept in --cache until data, networks, settings or these programs
change: a run that was broken off goes on where it was, and only what is new is measured.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device.dsp import resample
from device.errors import BadInput, StethopiError
from device.inference import bundle as bundles
from device.inference.interpreter import runtime_name
from device.rates import WORKING_RATE_HZ
from training.benchmarks.denoise_material import (
    GRADES_DB,
    HEADLINE_DB,
    HEARD,
    HEARD_LEVELS,
    LEAST_CONTRAST_DB,
    LEVELS_DB,
    MOST_OF_A_DATABASE,
    MURMUR_LEVELS,
    PIECE,
    PITCHES_HZ,
    TIMINGS,
    UNSEEN,
    WORSE_DB,
    Material,
    known_murmur,
)
from training.benchmarks.denoise_measure import MEASURES, Item, collect, jobs_of, measure_jobs, rows_of, say
from training.core.provenance import RESULTS
from training.core.results import write_text
from training.data import mixing
from training.data import recordings as data_room
from training.data.mixing import hum, taps
from training.metrics.denoising import beat_shifts_ms, bootstrap_values, paired_bootstrap
from training.reports import denoise as denoise_tables

__all__ = ["benchmark_denoise", "main"]

# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────


def _values(items: Sequence[Item], name: str) -> np.ndarray:
    return np.array([np.nan if i[name] is None else i[name] for i in items], dtype=np.float64)


def _shifts(items: Sequence[Item]) -> dict[str, float | None]:
    """Median and 95th percentile of the absolute shift of S1 and of S2, ms."""
    found: dict[str, float | None] = {}
    for beat in ("S1", "S2"):
        values = np.abs(np.concatenate([np.asarray(i[beat], dtype=np.float64) for i in items]))
        found[f"{beat}_median_ms"] = float(np.median(values)) if len(values) else None
        found[f"{beat}_p95_ms"] = float(np.percentile(values, 95)) if len(values) else None
    return found


def _improvements(items: Sequence[Item], material: Material) -> dict[str, Any]:
    m = material.mixtures
    kinds = np.array([x.kind for x in m])
    levels = np.array([x.level_db for x in m])
    groups = np.array([x.reference.group for x in m])
    values = {name: _values(items, name) for name in MEASURES}
    values["correlation"] = _values(items, "correlation")
    headline = np.isin(levels, HEADLINE_DB)

    def figures(where: np.ndarray, names: Sequence[str] = MEASURES) -> dict[str, Any]:
        return {
            k: bootstrap_values(values[k][where].tolist(), groups[where].tolist(), seed=material.seed)
            for k in names
        }

    def means(where: np.ndarray) -> dict[str, Any]:
        shifts = _shifts([items[k] for k in np.flatnonzero(where)])
        return {**{k: float(np.nanmean(v[where])) for k, v in values.items()}, **shifts}

    found: dict[str, Any] = {
        "all": figures(headline, tuple(values)),
        "unseen": figures(headline & np.isin(kinds, UNSEEN), tuple(values)),
        "by_snr": {},
        "kinds": {},
    }
    for level in LEVELS_DB:
        here = levels == level
        found["by_snr"][f"{level:g}"] = {**means(here), **figures(here, ("plain", "beyond_volume"))}
    for kind in dict.fromkeys(kinds.tolist()):
        here = kinds == kind
        by = {f"{level:g}": means(here & (levels == level)) for level in LEVELS_DB}
        found["kinds"][kind] = {**figures(headline & here, tuple(values)), "by_snr": by}
    worse = (values["plain"] < 0)[levels <= WORSE_DB].astype(float)
    where = levels <= WORSE_DB
    found["made_worse"] = float(worse.mean())
    found["made_worse_interval"] = bootstrap_values(
        worse.tolist(), groups[where].tolist(), seed=material.seed
    )
    return found


def _middle_and_tail(values: np.ndarray, groups: Sequence[str], tail: float, seed: int) -> dict[str, Any]:
    return {
        "median": bootstrap_values(values.tolist(), groups, lambda v: float(np.median(v)), seed=seed),
        f"percentile_{tail:g}": bootstrap_values(
            values.tolist(), groups, lambda v: float(np.percentile(v, tail)), seed=seed
        ),
    }


def _clean_in(items: Sequence[Item], material: Material) -> dict[str, Any]:
    groups = [r.group for r in material.normal]
    snr = _values(items, "snr").tolist()
    return {
        "mean": bootstrap_values(snr, groups, seed=material.seed),
        "percentile_5": bootstrap_values(
            snr, groups, lambda v: float(np.percentile(v, 5)), seed=material.seed
        ),
        "full_band": bootstrap_values(_values(items, "full_band").tolist(), groups, seed=material.seed),
        "correlation": float(np.nanmean(_values(items, "correlation"))),
        **_shifts(items),
    }


def _synthetic_figures(items: Sequence[Item], material: Material) -> dict[str, Any]:
    """By grade, timing and pitch: median change of the excess, and of the murmur's own sound, dB."""
    clips = material.clips
    groups = np.array([c.reference.group for c in clips])
    found: dict[str, Any] = {}
    for of, known in (("all", ["all"]), ("grade", GRADES_DB), ("timing", TIMINGS), ("pitch", PITCHES_HZ)):
        names = list(known)
        for name in names:
            where = np.array([of == "all" or getattr(c, of) == name for c in clips])
            entry: dict[str, Any] = {"n": int(where.sum())}
            for level in MURMUR_LEVELS:
                values = np.array([i[level] for i in items], dtype=np.float64)[where]
                entry[level] = {
                    what: bootstrap_values(
                        values[:, column].tolist(),
                        groups[where].tolist(),
                        lambda v: float(np.median(v)),
                        seed=material.seed,
                    )
                    for column, what in enumerate(("excess", "kept"))
                }
            if of == "all":
                found["all"] = entry
            else:
                found.setdefault(of, {})[name] = entry
    return found


def _classifier_figures(items: Sequence[Item], material: Material, threshold: float) -> dict[str, Any]:
    """MAcc of abnormal and AUC of murmurs, cleaned against raw, the same recordings and noise: paired.

    Where a recording was heard in several draws of noise, a figure is the mean of those of each draw, in
    each round of the bootstrap over subjects, too.
    """
    from training.metrics.classification import auc, macc

    judged = material.judged
    groups = [r.group for r in judged]
    abnormal = np.array([r.label == "abnormal" for r in judged])
    at_circor = np.array([r.database == "circor" for r in judged])
    here = np.array([r.murmur_here == "yes" for r in judged])
    found: dict[str, Any] = {
        "recordings": len(judged),
        "subjects": len(set(groups)),
        "abnormal": int(abnormal.sum()),
        "murmur_recordings": int(at_circor.sum()),
        "murmurs": int(here[at_circor].sum()),
        "threshold": threshold,
        "draws": dict(HEARD_LEVELS),
        "levels": {},
    }

    def figure(
        which: Callable[[np.ndarray, np.ndarray], float], values: np.ndarray, rows: np.ndarray
    ) -> float:
        return float(which(values[rows], rows))

    for level in HEARD_LEVELS:
        v = np.array([i[level] for i in items], dtype=np.float64)

        def compare(
            raw: np.ndarray,
            cleaned: np.ndarray,
            measure: Callable[[np.ndarray, np.ndarray], float],
            where: np.ndarray,
        ) -> dict[str, Any]:
            rows = np.flatnonzero(where)
            pair = paired_bootstrap(
                lambda x, k: float(np.mean([measure(draw, rows[k]) for draw in x[k].T])),
                cleaned[rows],
                raw[rows],
                [groups[k] for k in rows],
                seed=material.seed,
            )
            return {"cleaned": pair["one"], "raw": pair["other"], "difference": pair["difference"]}

        found["levels"][level] = {
            "macc": compare(
                v[:, :, 0],
                v[:, :, 2],
                lambda p, k: macc(p, abnormal[k], threshold),
                np.ones(len(judged), dtype=bool),
            ),
            "abnormal_auc": compare(
                v[:, :, 0], v[:, :, 2], lambda p, k: auc(p, abnormal[k]), np.ones(len(judged), dtype=bool)
            ),
            "murmur_auc": compare(v[:, :, 1], v[:, :, 3], lambda p, k: auc(p, here[k]), at_circor),
        }
    return found


def _verdict_figures(items: Sequence[Item], material: Material, threshold: float) -> dict[str, Any]:
    """What noise does to the classifier on the mixtures, and what is left of that after cleaning: the share
    whose verdict is still the one on the clean piece (`kept`), and by how much its probability has moved
    (`moved`), by kind and SNR. Cleaned minus raw: paired.
    """
    m = material.mixtures
    kinds = np.array([x.kind for x in m])
    levels = np.array([x.level_db for x in m])
    groups = np.array([x.reference.group for x in m])
    # silence is not abnormal
    said = {what: np.nan_to_num(_values(items, what)) for what in ("clean", "raw", "cleaned")}
    told = {what: values >= threshold for what, values in said.items()}
    of = {
        "kept": {what: (told[what] == told["clean"]).astype(float) for what in ("raw", "cleaned")},
        "moved": {what: np.abs(said[what] - said["clean"]) for what in ("raw", "cleaned")},
    }

    def means(where: np.ndarray) -> dict[str, Any]:
        return {name: {w: float(v[where].mean()) for w, v in pair.items()} for name, pair in of.items()}

    def figures(where: np.ndarray) -> dict[str, Any]:
        found = means(where)
        for name, pair in of.items():
            change = (pair["cleaned"] - pair["raw"])[where].tolist()
            found[name]["difference"] = bootstrap_values(change, groups[where].tolist(), seed=material.seed)
        return found

    by_kind = {}
    for kind in dict.fromkeys(kinds.tolist()):
        cells = {f"{x:g}": means((kinds == kind) & (levels == x)) for x in LEVELS_DB}
        by_kind[kind] = {**figures(kinds == kind), "by_snr": cells}
    return {
        "threshold": threshold,
        "abnormal_when_clean": float(told["clean"].mean()),
        "all": figures(np.ones(len(m), dtype=bool)),
        "by_snr": {f"{x:g}": figures(levels == x) for x in LEVELS_DB},
        "kinds": by_kind,
    }


def _margins(found: Mapping[str, Mapping[str, list[Item]]], material: Material) -> dict[str, Any]:
    """int8 minus another row on the same mixtures, −6…6 dB, all kinds: paired, with its interval."""
    m = material.mixtures
    headline = np.isin([x.level_db for x in m], HEADLINE_DB)
    groups = [x.reference.group for x, h in zip(m, headline, strict=True) if h]
    ours = {k: _values(found["int8"]["mixtures"], k)[headline] for k in MEASURES[:2]}
    margins: dict[str, Any] = {}
    for name, sections in found.items():
        if name != "int8":
            margins[name] = {
                k: bootstrap_values(
                    (v - _values(sections["mixtures"], k)[headline]).tolist(), groups, seed=material.seed
                )
                for k, v in ours.items()
            }
    return margins


def _rounded(x: Any) -> Any:
    if isinstance(x, Mapping):
        return {k: _rounded(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [_rounded(v) for v in x]
    if isinstance(x, float):
        return None if not np.isfinite(x) else round(x, 3)
    return x


def _first_words(thing: Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").split())


def _how(material: Material) -> dict[str, Any]:
    """How it was measured, for the reader of the figures."""
    rule = " ".join((inspect.getdoc(mixing) or "").partition("References.")[2].partition("\n\n")[0].split())
    return {
        "clean references": f"{rule} Here: fold 0, a diastolic contrast of at least {LEAST_CONTRAST_DB:g} dB,"
        f" {PIECE // WORKING_RATE_HZ} s or more, no murmur heard, at most {MOST_OF_A_DATABASE} a database,"
        " those of best contrast.",
        "noise": "part `test` of the noise index; hospital and stethoscope_handling are in no training set",
        "taps": _first_words(taps),
        "hum": _first_words(hum),
        "white, pink": "Gaussian noise with a power of f to the 0 and to the -1, from 12 Hz up",
        "snr": "of the 25 to 400 Hz part of both; full band: 0 to 1000 Hz",
        "real murmurs": "CirCor, fold 0, murmur_here = yes, 6 dB or more between 100 and 400 Hz in systole"
        " over diastole; the change of that excess",
        "synthetic murmurs": _first_words(known_murmur),
        "shift": _first_words(beat_shifts_ms),
        "classifier": f"{_first_words(Material.judged)} The first {HEARD // WORKING_RATE_HZ} s; kinds of"
        f" noise in turn; at 0 dB {HEARD_LEVELS['0']} draws a recording, whose figures are averaged."
        " Difference: cleaned minus raw of the same sound, subjects drawn for both at once.",
        "verdicts": "what the classifier says of a mixture, of it cleaned, and of the clean piece itself",
        "limit": f"{material.each} mixtures for each kind and SNR; default 10",
    }


def benchmark_denoise(
    data: Path,
    cache: Path,
    *,
    bundle: Path | None = None,
    checkpoints: Path | None = None,
    baselines: Path | None = None,
    results: Path | None = None,
    each: int = 10,
    seed: int = 1,
    processes: int | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Measure all rows and write `results`/denoise.json (default docs/results). Returns what it wrote."""
    from training.core.provenance import commit_id

    if each < 1:
        raise BadInput(f"--limit {each}: must be 1 or more")
    started = time.monotonic()
    released = bundles.load(bundle)
    entry = released.model("denoiser")
    checkpoints = checkpoints or Path("runs")
    rows, left_out = rows_of(released.folder, checkpoints, baselines or checkpoints)
    for name, why in left_out.items():
        say(f"{name}: row left out, {why}")
    hashes = data_room.data_hashes(data)
    material = Material(data, cache, each, seed)
    if not material.normal:
        raise BadInput(f"{data}: no clean reference in fold 0; is --data complete?")
    jobs = jobs_of(rows, material, released.folder)
    before = sum(j.kept.is_file() for j in jobs)
    measure_jobs(jobs, material, released.folder, processes or os.cpu_count() or 1)
    say("figures and intervals")
    found = collect(jobs)

    groups_of = {
        "murmur": [r.group for r in material.murmurs],
        "false_murmur": [r.group for r in material.quiet],
    }
    table: dict[str, Any] = {}
    for row in rows:
        items = found[row.name]
        table[row.name] = {
            **row.about(),
            **_improvements(items["mixtures"], material),
            "clean_in": _clean_in(items["clean"], material),
            "murmur": {
                level: _middle_and_tail(_values(items["murmur"], level), groups_of["murmur"], 10, seed)
                for level in MURMUR_LEVELS
            },
            "false_murmur": _middle_and_tail(
                _values(items["false_murmur"], "change"), groups_of["false_murmur"], 90, seed
            ),
            "synthetic_murmur": _synthetic_figures(items["synthetic"], material),
        }
    ours = table["int8"]
    ours["level_spread_db"] = max(i["spread"] for i in found["int8"]["level"])
    threshold = float(released.model("classifier").meta["threshold"])
    ours["classifier"] = _classifier_figures(found["int8"]["classifier"], material, threshold)
    ours["verdicts"] = _verdict_figures(found["int8"]["verdicts"], material, threshold)
    rates = (8_000, 16_000, 44_100, 48_000, 96_000)
    ours["delay_with_decimator_ms"] = ours["delay_ms"] + 1000 * max(
        resample.Decimator(rate).delay_s for rate in rates
    )
    by_database: dict[str, int] = {}
    for r in material.normal:
        by_database[r.database] = by_database.get(r.database, 0) + 1
    result = _rounded(
        {
            "what": "denoising, fold 0, noise of the test part",
            "bundle": released.version,
            "model_sha256": entry.meta["sha256"],
            "runtime": runtime_name(),
            "seed": seed,
            "commit": commit_id(),
            "command": command,
            "data": hashes,
            "minutes": (time.monotonic() - started) / 60,
            "pieces_kept_from_before": before,
            "snr_db": list(LEVELS_DB),
            "headline_snr_db": list(HEADLINE_DB),
            "unseen_kinds": list(UNSEEN),
            "limit": each,
            "how": _how(material),
            "counts": {
                "mixtures": len(material.mixtures),
                "each_kind_and_snr": each,
                "references": by_database,
                "subjects": len({r.group for r in material.normal}),
                "murmurs": len(material.murmurs),
                "murmur_subjects": len({r.group for r in material.murmurs}),
                "normal_beats": len(material.quiet),
                "synthetic_murmurs": len(material.clips),
            },
            "left_out": left_out,
            "margins": _margins(found, material),
            "rows": table,
        }
    )
    results = results or RESULTS
    write_text(results / "denoise.json", _compact(result) + "\n")
    denoise_tables.draw_snr(result, results / denoise_tables.PICTURE)
    return result


def _compact(result: Any) -> str:
    """JSON with the innermost objects on one line each."""
    text = json.dumps(result, indent=1, ensure_ascii=False)
    return re.sub(r"\{[^{}\[\]]*\}", lambda m: " ".join(m[0].split()), text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="stethopi benchmark denoise", description="Measure the denoiser on fold 0."
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/stethopi"))
    parser.add_argument("--bundle", type=Path, help="folder of a bundle (default: the newest there is)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="run folder with our checkpoints, for their rows"
    )
    parser.add_argument(
        "--baselines", type=Path, help="folder of the baselines' checkpoints (default: --out)"
    )
    parser.add_argument("--results", type=Path, help="folder for denoise.json (default docs/results)")
    parser.add_argument("--limit", type=int, default=10, help="references a kind and SNR (default 10)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, help="default: one a core")
    parser.add_argument("--note", type=Path, help="only renew the tables of this lab note (docs/denoiser.md)")
    options = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    results = options.results or RESULTS
    try:
        if options.note:
            denoise_tables.renew(options.note, results)
            return 0
        command = f"stethopi benchmark denoise --limit {options.limit} --seed {options.seed}"
        result = benchmark_denoise(
            options.data,
            options.cache.expanduser(),
            bundle=options.bundle,
            checkpoints=options.out,
            baselines=options.baselines,
            results=results,
            each=options.limit,
            seed=options.seed,
            processes=options.processes,
            command=command,
        )
    except StethopiError as error:
        print(f"stethopi: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stethopi: stopped; what is measured is kept, the same command goes on", file=sys.stderr)
        return 1
    print(denoise_tables.denoise_table(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
