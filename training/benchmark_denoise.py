"""Measure the released denoiser on fold 0 and noise it never heard, through device.denoise itself.

    stethopi benchmark denoise --data ../shared/data          → docs/results/denoise.json
    python -m training.benchmark_denoise --data ../shared/data --limit 2    a first look, in minutes

References: fold 0, by the rule of training.mixing with a diastolic contrast of at least 14 dB, at most
twenty a database. Noise: the test part of every kind (hospital and stethoscope_handling are never trained
on: with fold 0's subjects they are the unseen headline), taps, mains hum, white and pink synthesised. Each
kind meets each SNR (25 to 400 Hz) with `--limit` references (default 10), of 6 s, databases in turn.

Rows: nothing; volume (the one best gain, known from the truth); band-pass 25–400 Hz, zero phase; wavelet
(Coiflet 5, soft, universal threshold); spectral gating (stationary, threshold per bin); `float` and `pruned`
from the checkpoints in --out when they are there; `int8`, the bundle as the device runs it. Murmurs: CirCor
recordings of fold 0 where a murmur was heard whose systole holds at least 6 dB more energy (100–400 Hz) than
diastole. Intervals:
bootstrap over subjects.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import signal

from device import bundle as bundles
from device.denoise import denoise
from device.errors import StethopiError
from device.rates import WORKING_RATE_HZ
from device.runtime import runtime_name
from training import data as data_room
from training import denoiser_note
from training.metrics import BAND_HZ, band, bootstrap, improvement, murmur_excess_db, snr_db
from training.mixing import NoisePool, Reference, coloured, hum, references, taps

__all__ = ["benchmark", "main", "note", "table", "write_note"]

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
LEVELS_DB = (-6.0, -3.0, 0.0, 3.0, 6.0, 10.0)
HEADLINE_DB = (-6.0, -3.0, 0.0, 3.0, 6.0)
RECORDED = (
    "speech_babble",
    "crying",
    "household",
    "environment",
    "breath",
    "hospital",
    "stethoscope_handling",
)
SYNTHESISED = ("taps", "hum", "white", "pink")
UNSEEN = ("hospital", "stethoscope_handling")
PIECE = 6 * WORKING_RATE_HZ

Cleaner = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(noisy, clean) → cleaned; only the volume row looks at the clean one."""


# ── classical rows ──────────────────────────────────────────────────────────────────────────────────────────


def nothing(noisy: np.ndarray, _clean: np.ndarray) -> np.ndarray:
    return noisy


def volume(noisy: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """The one gain that brings the in-band sound nearest to the truth."""
    x, s = band(noisy), band(clean)
    return (noisy * (float(x @ s) / max(float(x @ x), 1e-30))).astype(np.float32)


_SOS = signal.butter(4, BAND_HZ, "bandpass", fs=WORKING_RATE_HZ, output="sos")


def band_pass(noisy: np.ndarray, _clean: np.ndarray) -> np.ndarray:
    return signal.sosfiltfilt(_SOS, noisy).astype(np.float32)


def wavelet(noisy: np.ndarray, _clean: np.ndarray) -> np.ndarray:
    """Coiflet 5, soft threshold sigma * sqrt(2 ln n), sigma of each level by its median (Donoho 1995)."""
    import pywt

    levels = min(6, pywt.dwt_max_level(len(noisy), "coif5"))
    found = pywt.wavedec(noisy, "coif5", level=levels)
    kept = [found[0]]
    for d in found[1:]:
        sigma = float(np.median(np.abs(d))) / 0.6745
        kept.append(pywt.threshold(d, sigma * np.sqrt(2 * np.log(len(noisy))), "soft"))
    return pywt.waverec(kept, "coif5")[: len(noisy)].astype(np.float32)


def spectral_gating(noisy: np.ndarray, _clean: np.ndarray) -> np.ndarray:
    """Stationary gate: per bin the mean and deviation of the level in dB set the threshold (mean + 1.5
    deviations), below it 12 dB less, the mask smoothed over 3 frames and 3 bins. After Sainburg 2019.
    """
    _, _, z = signal.stft(noisy, WORKING_RATE_HZ, nperseg=256, noverlap=192)
    level = 20 * np.log10(np.abs(z) + 1e-10)
    threshold = level.mean(1, keepdims=True) + 1.5 * level.std(1, keepdims=True)
    mask = signal.convolve2d((level > threshold).astype(float), np.ones((3, 3)) / 9, "same")
    gain = 10 ** (-12 / 20)
    _, y = signal.istft(z * (gain + (1 - gain) * mask), WORKING_RATE_HZ, nperseg=256, noverlap=192)
    return y[: len(noisy)].astype(np.float32)


CLASSICAL: dict[str, Cleaner] = {
    "nothing": nothing,
    "volume": volume,
    "band-pass": band_pass,
    "wavelet": wavelet,
    "spectral gating": spectral_gating,
}


# ── material ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Mixture:
    kind: str
    level_db: float
    reference: Reference
    clean: np.ndarray
    noisy: np.ndarray
    spans: tuple[tuple[float, float, str], ...]


class Noises:
    """Noise of every kind that is reported."""

    def __init__(self, data: Path) -> None:
        self.pool = NoisePool.load(data, "test", free_only=False)
        self.kinds = [k for k in RECORDED if k in self.pool.segments] + list(SYNTHESISED)

    def draw(self, rng: np.random.Generator, kind: str, n: int) -> np.ndarray:
        if kind == "taps":
            return taps(rng, n)
        if kind == "hum":
            return hum(rng, n)
        if kind in ("white", "pink"):
            return coloured(rng, n, 0.0 if kind == "white" else 1.0)
        return self.pool.draw(rng, kind, n, speed=False)

    def mix(self, rng: np.random.Generator, clean: np.ndarray, kind: str, level_db: float) -> np.ndarray:
        """The clean sound with that noise at an SNR in 25–400 Hz."""
        noise = self.draw(rng, kind, len(clean)).astype(np.float32)
        while float(np.std(band(noise))) < 1e-6:  # a piece of a recording without anything in the band
            noise = self.draw(rng, kind, len(clean)).astype(np.float32)
        gain = float(np.std(band(clean)) / np.std(band(noise))) * 10 ** (-level_db / 20)
        return (clean + gain * noise).astype(np.float32)


def _in_turn(refs: Sequence[Reference], rng: np.random.Generator) -> list[Reference]:
    """References with their databases in turn, inside each in random order."""
    by: dict[str, list[Reference]] = {}
    for k in rng.permutation(len(refs)):
        by.setdefault(refs[k].database, []).append(refs[k])
    found: list[Reference] = []
    while any(by.values()):
        found += [members.pop() for _, members in sorted(by.items()) if members]
    return found


def _piece(r: Reference, rng: np.random.Generator) -> tuple[np.ndarray, tuple[tuple[float, float, str], ...]]:
    start = int(rng.integers(max(1, len(r.sound) - PIECE + 1)))
    s0 = start / WORKING_RATE_HZ
    return r.sound[start : start + PIECE], tuple((a - s0, b - s0, s) for a, b, s in r.spans)


def _mixtures(refs: Sequence[Reference], noises: Noises, each: int, seed: int) -> list[Mixture]:
    rng = np.random.default_rng([seed, 1])
    order = _in_turn(refs, rng)
    found, k = [], 0
    for kind in noises.kinds:
        for level in LEVELS_DB:
            for _ in range(each):
                r = order[k % len(order)]
                k += 1
                clean, spans = _piece(r, rng)
                found.append(Mixture(kind, level, r, clean, noises.mix(rng, clean, kind, level), spans))
    return found


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────


def _improvements(mixtures: Sequence[Mixture], clean_up: Cleaner, seed: int) -> dict[str, Any]:
    plain, beyond, wide = [], [], []
    for m in mixtures:
        out = clean_up(m.noisy, m.clean)
        p, b = improvement(band(m.clean), band(m.noisy), band(out))
        plain.append(p)
        beyond.append(b)
        wide.append(snr_db(m.clean, out) - snr_db(m.clean, m.noisy))
    kinds = np.array([m.kind for m in mixtures])
    levels = np.array([m.level_db for m in mixtures])
    groups = np.array([m.reference.group for m in mixtures])
    values = {"plain": np.array(plain), "beyond_volume": np.array(beyond), "full_band": np.array(wide)}
    headline = np.isin(levels, HEADLINE_DB)

    def figures(where: np.ndarray) -> dict[str, Any]:
        return {k: bootstrap(v[where].tolist(), groups[where].tolist(), seed=seed) for k, v in values.items()}

    found: dict[str, Any] = {"all": figures(headline), "unseen": figures(headline & np.isin(kinds, UNSEEN))}
    found["kinds"] = {}
    for kind in dict.fromkeys(kinds.tolist()):
        here = kinds == kind
        found["kinds"][kind] = {
            **figures(headline & here),
            "by_snr": {
                f"{level:g}": {
                    "plain": round(float(values["plain"][here & (levels == level)].mean()), 2),
                    "beyond_volume": round(
                        float(values["beyond_volume"][here & (levels == level)].mean()), 2
                    ),
                }
                for level in LEVELS_DB
            },
        }
    found["made_worse"] = float(np.mean(values["plain"] < 0))
    return found


def _clean_in(refs: Sequence[Reference], clean_up: Cleaner, seed: int) -> dict[str, Any]:
    values, groups = [], []
    for r in refs:
        sound = r.sound[: 2 * PIECE]
        values.append(snr_db(band(sound), band(clean_up(sound, sound))))
        groups.append(r.group)
    return {
        "mean": bootstrap(values, groups, seed=seed),
        "percentile_5": bootstrap(values, groups, lambda v: float(np.percentile(v, 5)), seed=seed),
    }


def _murmur_changes(
    refs: Sequence[Reference], noises: Noises, clean_up: Cleaner, seed: int
) -> dict[str, Any]:
    """Change of the systolic excess against the clean recording's own, dB: clean in, 10 dB, 0 dB."""
    rng = np.random.default_rng([seed, 2])
    rows: dict[str, list[float]] = {"clean": [], "10": [], "0": []}
    groups = [r.group for r in refs]
    for k, r in enumerate(refs):
        sound = r.sound[: 2 * PIECE]
        own = murmur_excess_db(sound, r.spans)
        kind = noises.kinds[k % len(noises.kinds)]
        for name in rows:
            x = sound if name == "clean" else noises.mix(rng, sound, kind, float(name))
            rows[name].append(murmur_excess_db(clean_up(x, sound), r.spans) - own)
    return {
        name: {
            "median": bootstrap(v, groups, lambda a: float(np.median(a)), seed=seed),
            "percentile_10": bootstrap(v, groups, lambda a: float(np.percentile(a, 10)), seed=seed),
        }
        for name, v in rows.items()
    }


def _false_murmurs(refs: Sequence[Reference], noises: Noises, clean_up: Cleaner, seed: int) -> dict[str, Any]:
    """Systolic excess that normal beats at 0 dB have after cleaning, above what they had clean, dB."""
    rng = np.random.default_rng([seed, 3])
    values, groups = [], []
    for k, r in enumerate(refs):
        sound = r.sound[: 2 * PIECE]
        x = noises.mix(rng, sound, noises.kinds[k % len(noises.kinds)], 0.0)
        values.append(murmur_excess_db(clean_up(x, sound), r.spans) - murmur_excess_db(sound, r.spans))
        groups.append(r.group)
    return {
        "median": bootstrap(values, groups, lambda v: float(np.median(v)), seed=seed),
        "percentile_90": bootstrap(values, groups, lambda v: float(np.percentile(v, 90)), seed=seed),
    }


def _level_spread(mixtures: Sequence[Mixture], clean_up: Cleaner) -> float:
    """Largest difference, dB, of the improvement when the same sound peaks at 0.005 … 1.0 of full scale."""
    worst = 0.0
    for m in mixtures:
        found = []
        for peak in (0.005, 0.05, 0.3, 1.0):
            gain = np.float32(peak / np.max(np.abs(m.noisy)))
            out = clean_up(m.noisy * gain, m.clean * gain) / gain
            found.append(snr_db(band(m.clean), band(out)))
        worst = max(worst, max(found) - min(found))
    return worst


def _rounded(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _rounded(v) for k, v in x.items()}
    if isinstance(x, float):
        return None if not np.isfinite(x) else round(x, 3)
    return x


def _networks(checkpoints: Path) -> dict[str, tuple[Cleaner, dict[str, Any]]]:
    """Float rows from the checkpoints that are there."""
    found: dict[str, tuple[Cleaner, dict[str, Any]]] = {}
    for row, name in (("float", "denoiser-full.pt"), ("pruned", "denoiser-pruned.pt")):
        path = checkpoints / name
        if not path.is_file():
            continue
        from models.denoiser import tables
        from training.denoiser import Removal, denoise_whole, load_net
        from training.export import count_macs

        net, kept = load_net(path)
        coefficients = tables(int(kept["recipe"]["net"].get("frame", 96)))
        removal = Removal(coefficients)

        def clean_up(
            noisy: np.ndarray,
            _clean: np.ndarray,
            net: Any = net,
            removal: Any = removal,
            coefficients: Any = coefficients,
        ) -> np.ndarray:
            return denoise_whole(net, removal, coefficients, noisy)

        found[row] = (
            clean_up,
            {
                "parameters": int(sum(p.numel() for p in net.parameters())),
                "mac_per_s": count_macs(net, tuple(net.examples().values())) * 125,
            },
        )
    return found


def benchmark(
    data: Path,
    cache: Path,
    *,
    bundle: Path | None = None,
    checkpoints: Path | None = None,
    results: Path | None = None,
    each: int = 10,
    seed: int = 1,
    command: str = "",
) -> dict[str, Any]:
    """Measure all rows and write `results`/denoise.json (default docs/results). Returns what it wrote."""
    from training.release import commit_id

    started = time.monotonic()
    released = bundles.load(bundle)
    entry = released.model("denoiser")
    refs = [
        r for r in references(data, cache, (0,), least_db=14.0, share=1.0, most=20) if len(r.sound) >= PIECE
    ]
    normal = [r for r in refs if not r.murmur]
    heard = [
        r
        for r in references(data, cache, (0,), least_db=6.0, share=1.0)
        if r.murmur and murmur_excess_db(r.sound, r.spans) >= 6.0
    ]
    murmurs = heard[: 6 * each]
    quiet = [r for r in normal if abs(murmur_excess_db(r.sound, r.spans)) < 6.0][: 6 * each]
    noises = Noises(data)
    mixtures = _mixtures(normal, noises, each, seed)

    rows: dict[str, tuple[Cleaner, dict[str, Any]]] = {k: (f, {}) for k, f in CLASSICAL.items()}
    rows |= _networks(checkpoints) if checkpoints else {}
    rows["int8"] = (
        lambda noisy, _clean: denoise(entry, noisy),
        {k: entry.meta[k] for k in ("parameters", "mac_per_s", "kilobytes", "delay_ms")},
    )
    found: dict[str, Any] = {}
    for name, (clean_up, about) in rows.items():
        begun = time.monotonic()
        found[name] = {
            **about,
            **_improvements(mixtures, clean_up, seed),
            "clean_in": _clean_in(normal, clean_up, seed),
            "murmur": _murmur_changes(murmurs, noises, clean_up, seed),
            "false_murmur": _false_murmurs(quiet, noises, clean_up, seed),
        }
        if name == "int8":
            found[name]["level_spread_db"] = _level_spread(mixtures[:: max(1, len(mixtures) // 8)], clean_up)
        print(
            f"{name:16s} {found[name]['all']['plain']['value']:+6.2f} plain "
            f"{found[name]['all']['beyond_volume']['value']:+6.2f} beyond volume "
            f"({time.monotonic() - begun:.0f} s)",
            file=sys.stderr,
            flush=True,
        )
    by_database: dict[str, int] = {}
    for r in normal:
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
            "data": data_room.data_hashes(data),
            "minutes": (time.monotonic() - started) / 60,
            "snr_db": list(LEVELS_DB),
            "headline_snr_db": list(HEADLINE_DB),
            "counts": {
                "mixtures": len(mixtures),
                "each_kind_and_snr": each,
                "references": by_database,
                "subjects": len({r.group for r in normal}),
                "murmurs": len(murmurs),
                "murmur_subjects": len({r.group for r in murmurs}),
                "normal_beats": len(quiet),
            },
            "rows": found,
        }
    )
    results = results or RESULTS
    results.mkdir(parents=True, exist_ok=True)
    temporary = results / "denoise.json.tmp"
    temporary.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    os.replace(temporary, results / "denoise.json")
    return result


# ── tables for README, card and lab note ────────────────────────────────────────────────────────────────────


def _cell(figure: Mapping[str, Any], sign: bool = True) -> str:
    if figure.get("value") is None:
        return "–"
    spec = "+.1f" if sign else ".1f"
    return f"{figure['value']:{spec}} [{figure['low']:{spec}}, {figure['high']:{spec}}]"


NAMES = {
    "nothing": "nothing",
    "volume": "best volume, known from the truth",
    "band-pass": "band-pass 25–400 Hz",
    "wavelet": "wavelet, Coiflet 5, soft",
    "spectral gating": "spectral gating",
    "float": "ours, float",
    "pruned": "ours, pruned, float",
    "int8": "**ours, int8, as on the device**",
}


def table(result: Mapping[str, Any]) -> str:
    """Markdown of docs/results/denoise.json: improvement by row, by kind, harm and murmurs."""
    lines = [
        "| dB in band, fold 0, −6…6 dB | all kinds: plain | beyond volume | unseen kinds: plain"
        " | beyond volume | clean in: SNR out | made worse |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        clean = row["clean_in"]["mean"]
        cells = [NAMES.get(name, name)]
        cells += [_cell(row[of][what]) for of in ("all", "unseen") for what in ("plain", "beyond_volume")]
        cells.append("exact" if (clean["value"] or 0) >= 99.9 else _cell(clean, sign=False))
        cells.append(f"{100 * row['made_worse']:.1f} %")
        lines.append(f"| {' | '.join(cells)} |")
    ours = result["rows"]["int8"]
    lines += [
        "",
        "| kind of noise (int8) | plain | beyond volume | plain at −6 dB | at 0 dB | at 10 dB |",
        "|---|---|---|---|---|---|",
    ]
    for kind, k in ours["kinds"].items():
        by = k["by_snr"]
        cells = [kind + (" (never trained on)" if kind in UNSEEN else "")]
        cells += [_cell(k["plain"]), _cell(k["beyond_volume"])]
        cells += [f"{by[level]['plain']:+.1f}" for level in ("-6", "0", "10")]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| change of a murmur's excess, dB | clean in: median | worst tenth | 10 dB: median | worst tenth"
        " | 0 dB: median | worst tenth | put into normal beats at 0 dB: median |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ("nothing", "band-pass", "wavelet", "spectral gating", "float", "pruned", "int8"):
        row = result["rows"].get(name)
        if row is None:
            continue
        cells = [
            _cell(row["murmur"][at][what])
            for at in ("clean", "10", "0")
            for what in ("median", "percentile_10")
        ]
        lines.append(f"| {NAMES[name]} | {' | '.join(cells)} | {_cell(row['false_murmur']['median'])} |")
    c = result["counts"]
    databases = ", ".join(f"{k} {v}" for k, v in c["references"].items())
    lines += [
        "",
        f"{c['mixtures']} mixtures of {PIECE // WORKING_RATE_HZ} s from {sum(c['references'].values())}"
        f" recordings of {c['subjects']} subjects ({databases}); {c['murmurs']} recordings with a murmur of"
        f" {c['murmur_subjects']} subjects. Intervals: 95 %, bootstrap over subjects. Level: peaks from 0.005"
        f" to 1.0 of full scale give the same within {ours['level_spread_db']:.2f} dB. Written by"
        f" `stethopi benchmark denoise` ({result['minutes']:.0f} min).",
    ]
    return "\n".join(lines)


def brief(result: Mapping[str, Any]) -> str:
    """The few rows of docs/results/denoise.json that the README shows, as Markdown."""
    lines = [
        "| dB in 25–400 Hz, inputs of −6…6 dB | all kinds: plain | beyond volume"
        " | kinds never trained on: plain | beyond volume | clean in: SNR out"
        " | murmur's excess: clean in | 10 dB | 0 dB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in ("nothing", "volume", "band-pass", "wavelet", "spectral gating", "int8"):
        row = result["rows"].get(name)
        if row is None:
            continue
        clean = row["clean_in"]["mean"]
        cells = [NAMES.get(name, name)]
        cells += [_cell(row[of][what]) for of in ("all", "unseen") for what in ("plain", "beyond_volume")]
        cells.append("exact" if (clean["value"] or 0) >= 99.9 else _cell(clean, sign=False))
        cells += [_cell(row["murmur"][at]["median"]) for at in ("clean", "10", "0")]
        lines.append(f"| {' | '.join(cells)} |")
    ours = result["rows"]["int8"]["kinds"]
    hardest = min(ours, key=lambda kind: ours[kind]["plain"]["value"])
    lines += [
        "",
        "*Beyond volume* gives input and output their best gain first, so that turning the volume down"
        " earns nothing. *Murmur's excess*: median change of what a real murmur has more in systole than in"
        f" diastole. The hardest kind of noise is {hardest} ({_cell(ours[hardest]['plain'])} plain). By"
        " kind, with harm and the worst tenth: [docs/denoiser.md](docs/denoiser.md).",
    ]
    return "\n".join(lines)


def note(results: Path) -> dict[str, str]:
    """The generated parts of docs/denoiser.md by name, from the JSON files in `results`."""
    parts = {}
    if (path := results / "denoise.json").is_file():
        parts["benchmark"] = table(json.loads(path.read_text("utf-8")))
    if (path := results / "denoiser-pruning.json").is_file():
        rows = json.loads(path.read_text("utf-8"))["rows"]
        lines = [
            "| channels taken by | share | parameters | MMAC/s | plain | beyond volume | clean in: SNR out |",
            "|---|---|---|---|---|---|---|",
        ]
        for r in rows:
            v = r["fold_1"]
            cells = [r["by"], f"{r['ratio']:.2f}", f"{r['parameters']:,}", f"{r['mac_per_s'] / 1e6:.1f}"]
            cells += [f"{v['all plain']:+.2f}", f"{v['all beyond']:+.2f}", f"{v['clean out']:.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
        parts["pruning"] = "\n".join(lines)
    if (path := results / "denoiser-training.json").is_file():
        found = json.loads(path.read_text("utf-8"))
        lines = [
            "| fold 1, −6…6 dB | steps | minutes | plain | beyond volume | clean in: mean, p5"
            " | murmur, clean in | 10 dB | 0 dB |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        rows = [(k, found[k]["steps"], found[k]["minutes"], found[k]["fold_1"]) for k in ("full", "pruned")]
        if "export" in found:
            rows.append(("int8", "", "", found["export"]["fold_1_int8"]))
        for name, steps, minutes, v in rows:
            cells = [name, str(steps), str(minutes), f"{v['all plain']:+.2f}", f"{v['all beyond']:+.2f}"]
            cells += [f"{v['clean out']:.1f}, {v['clean out p5']:.1f}"]
            cells += [f"{v[k]:+.2f}" for k in ("murmur clean", "murmur 10", "murmur 0")]
            lines.append(f"| {' | '.join(cells)} |")
        parts["training"] = "\n".join(lines)
    return parts | denoiser_note.parts(results)


def write_note(path: Path, results: Path) -> str:
    """The lab note with its generated parts renewed: what stands between `<!-- name -->` and `<!-- /name
    -->`."""
    text = path.read_text("utf-8")
    for name, part in note(results).items():
        before, _, rest = text.partition(f"<!-- {name} -->")
        _, _, after = rest.partition(f"<!-- /{name} -->")
        text = f"{before}<!-- {name} -->\n\n{part}\n\n<!-- /{name} -->{after}"
    return text


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="stethopi benchmark denoise", description="Measure the denoiser on fold 0."
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/stethopi"))
    parser.add_argument("--bundle", type=Path, help="folder of a bundle (default: the newest there is)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="run folder with the checkpoints, for their rows"
    )
    parser.add_argument("--results", type=Path, help="folder for denoise.json (default docs/results)")
    parser.add_argument("--limit", type=int, default=10, help="references a kind and SNR (default 10)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--note", type=Path, help="only renew the tables of this lab note (docs/denoiser.md)")
    options = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    if options.note:
        text = write_note(options.note, options.results or RESULTS)
        temporary = options.note.with_name(options.note.name + ".tmp")
        temporary.write_text(text, "utf-8")
        os.replace(temporary, options.note)
        return 0
    try:
        import torch

        torch.set_num_threads(1)
        result = benchmark(
            options.data,
            options.cache.expanduser(),
            bundle=options.bundle,
            checkpoints=options.out,
            results=options.results,
            each=options.limit,
            seed=options.seed,
            command=f"stethopi benchmark denoise --limit {options.limit} --seed {options.seed}",
        )
    except StethopiError as error:
        print(f"stethopi: {error}", file=sys.stderr)
        return error.exit_code
    print(table(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
