"""Measure the ECG's denoisers on patients and noise that no training met.

    stethopi benchmark ecg --data ../shared/data --out runs     → docs/results/ecg.json
    stethopi benchmark ecg --limit 4                            a first look

Four parts, all of part `test` of the split, the noise from the end of the tracks, at 360 Hz:

1. mixtures: bw, em, ma, mixed (the three with equal power), white noise and mains hum at −6 … 18 dB. Pieces
   of 14 s of which the last 10 count (a lead is not put on for each figure); `--limit` pieces of each kind
   and level (default 12; of mixed noise twice as many), patients in turn. References are clear ones (own
   noise above 40 Hz 20 dB, own drift 17 dB under them: a rule set on dev); `any` is mixed noise on whatever
   is not flat or torn.
2. the protocol of DeepFilter (Romero et al. 2021) on the records marked `benchmark_test`: bw whose peak to
   peak is 0.2 to 2 times that of the beat, a window of 512 samples around a beat.
3. R peaks: a minute of each record with mixed noise at 0 dB; neurokit2's detector, ±150 ms, against the
   annotations, beside the same detector on the clean lead.
4. clean in: SNR out, the ST level (60 ms after the J point against the PR segment) and the QRS width, of the
   same beats before and after.

Rows: nothing; neurokit2's high pass and notch; a band-pass 0.5 to 40 Hz, zero phase; wavelet; the networks
whose checkpoints are in --out; `int8`, the bundle as the device runs it. References are the records without
their own baseline (training.data.ecg.reference). Intervals: bootstrap over patients. What is done is kept in
--cache by what decides it, so that a broken-off run goes on.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import signal

from device import durable
from device.denoise.stream import denoise
from device.errors import BadInput
from device.inference import bundle as bundles
from device.inference.interpreter import runtime_name
from device.rates import ECG_RATE_HZ
from training.core.provenance import RESULTS
from training.core.results import write_json
from training.core.say import Say
from training.data import ecg as ecg_data
from training.data.ecg import NoiseTracks, Piece
from training.metrics.denoising import bootstrap_values, improvement, snr_db
from training.metrics.ecg import cosine, mad, prd, ssd
from training.reports.ecg import ANY, ECG_NOISES

__all__ = ["benchmark_ecg"]

ECG_MEASURES_VERSION = 1
"""Raise it when this module or training.metrics.ecg come to give other figures for the same leads: every row
is then measured anew. Other words for the same are no reason."""

SYSTEMS_VERSION = 1
"""The same for how a checkpoint's system computes: models.ecg, models.ecg_baselines, training.ecg.systems."""

ECG_LEVELS_DB = (-6.0, 0.0, 6.0, 12.0, 18.0)
ECG_HEADLINE_DB = (-6.0, 0.0, 6.0, 12.0)
LEAD_IN, MEASURED = 4 * ECG_RATE_HZ, 10 * ECG_RATE_HZ
BEAT = 512
BEATS_EACH = 20
AMPLITUDES = ((0.2, 0.6), (0.6, 1.0), (1.0, 1.5), (1.5, 2.0))
NEAR_S = 0.15
BEAT_SYMBOLS = frozenset("NLRBAaJSVrFejnE/fQ?")

LeadDenoiser = Callable[[np.ndarray], np.ndarray]
"""One lead at 360 Hz, mV (n,) → (n,)."""


# ── classical rows ──────────────────────────────────────────────────────────────────────────────────────────


def untouched_lead(x: np.ndarray) -> np.ndarray:
    return x


def high_pass_notch(x: np.ndarray) -> np.ndarray:
    """neurokit2's own: Butterworth of order 5 at 0.5 Hz both ways, and a moving average over one mains
    period."""
    import neurokit2

    return np.asarray(neurokit2.ecg_clean(x, sampling_rate=ECG_RATE_HZ, method="neurokit", powerline=60))


_BAND = signal.butter(3, (0.5, 40.0), "bandpass", fs=ECG_RATE_HZ, output="sos")


def lead_band_pass(x: np.ndarray) -> np.ndarray:
    """Butterworth of order 3, 0.5 to 40 Hz, both ways."""
    return signal.sosfiltfilt(_BAND, x)


def lead_wavelet(x: np.ndarray) -> np.ndarray:
    """Daubechies 4 in nine levels where the length allows: the coarsest part (below 0.35 Hz) is dropped, the
    three finest soft at sigma sqrt(2 ln n) (Donoho 1995)."""
    import pywt

    levels = min(9, pywt.dwt_max_level(len(x), "db4"))
    found = pywt.wavedec(x - np.mean(x), "db4", level=levels)
    found[0] = np.zeros_like(found[0])
    for k in range(len(found) - 3, len(found)):
        sigma = float(np.median(np.abs(found[k]))) / 0.6745
        found[k] = pywt.threshold(found[k], sigma * np.sqrt(2 * np.log(len(x))), "soft")
    return np.asarray(pywt.waverec(found, "db4")[: len(x)])


CLASSICAL_LEAD_FILTERS: dict[str, LeadDenoiser] = {
    "nothing": untouched_lead,
    "high-pass and notch": high_pass_notch,
    "band-pass": lead_band_pass,
    "wavelet": lead_wavelet,
}
FILTERS = ("high-pass and notch", "band-pass", "wavelet")


# ── material ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class EcgItem:
    """One thing to clean: the whole signal goes in, `where` of it counts."""

    kind: str
    level: float
    """dB; in DeepFilter's protocol the amplitude's share."""
    piece: Piece
    clean: np.ndarray
    noisy: np.ndarray
    where: slice


@dataclass(frozen=True)
class Minute:
    """A minute of one record with its annotated beats (samples)."""

    piece: Piece
    clean: np.ndarray
    noisy: np.ndarray
    beats: np.ndarray
    clear: list[bool]
    """Of each ten seconds after the fourth: is the reference clear?"""


def _places(p: Piece, seconds: int, clear: bool = False) -> np.ndarray:
    """Seconds at which so many usable (or clear) ones begin."""
    good = ecg_data.clear_enough(p) if clear else p.usable
    return np.flatnonzero(np.convolve(good, np.ones(seconds), "valid") == seconds)


def _in_turn(pieces: Sequence[Piece], rng: np.random.Generator) -> list[Piece]:
    """Patients in turn; of each its leads in random order."""
    by: dict[str, list[Piece]] = {}
    for k in rng.permutation(len(pieces)):
        by.setdefault(pieces[k].patient, []).append(pieces[k])
    found: list[Piece] = []
    while any(by.values()):
        found += [members.pop() for _, members in sorted(by.items()) if members]
    return found


def mixtures(pieces: Sequence[Piece], noises: NoiseTracks, each: int, seed: int) -> list[EcgItem]:
    rng = np.random.default_rng([seed, 1])
    seconds = (LEAD_IN + MEASURED) // ECG_RATE_HZ
    found: list[EcgItem] = []
    for kinds, clear in ((ECG_NOISES, True), ((ANY,), False)):
        places = {k: _places(p, seconds, clear) for k, p in enumerate(pieces)}
        order = _in_turn([p for k, p in enumerate(pieces) if len(places[k])], rng)
        at = {id(p): places[k] for k, p in enumerate(pieces)}
        turn = 0
        for kind in kinds:
            for level in ECG_LEVELS_DB:
                for _ in range(2 * each if kind in ("mixed", ANY) else each):
                    p = order[turn % len(order)]
                    turn += 1
                    start = int(rng.choice(at[id(p)])) * ECG_RATE_HZ
                    clean = p.samples[start : start + LEAD_IN + MEASURED]
                    power = float(np.std(clean[LEAD_IN:]))
                    noise = noises.draw(rng, "mixed" if kind == ANY else kind, len(clean))
                    noise = noise / max(float(np.std(noise[LEAD_IN:])), 1e-9)
                    noisy = (clean + power * 10 ** (-level / 20) * noise).astype(np.float32)
                    found.append(EcgItem(kind, level, p, clean, noisy, slice(LEAD_IN, None)))
    return found


def deepfilter_items(
    data: Path, pieces: Sequence[Piece], noises: NoiseTracks, each: int, seed: int
) -> list[EcgItem]:
    """Beats of the records that DeepFilter tests on, bw of 0.2 to 2 times their peak to peak."""
    rng = np.random.default_rng([seed, 2])
    found = []
    for p in pieces:
        if not p.benchmark:
            continue
        beats = _beats(data, p.record)
        beats = beats[(beats > LEAD_IN + BEAT) & (beats < len(p.samples) - BEAT)]
        if not len(beats):
            continue
        for at in rng.choice(beats, size=min(each, len(beats)), replace=False):
            start = int(at) - LEAD_IN - BEAT // 2
            clean = p.samples[start : start + LEAD_IN + BEAT]
            beat = clean[LEAD_IN:]
            noise = noises.draw(rng, "bw", len(clean))
            share = float(rng.uniform(0.2, 2.0))
            size = share * float(np.ptp(beat)) / max(float(np.ptp(noise[LEAD_IN:])), 1e-9)
            noisy = (clean + size * noise).astype(np.float32)
            found.append(EcgItem("beat", share, p, clean, noisy, slice(LEAD_IN, None)))
    return found


def _beats(data: Path, record: str) -> np.ndarray:
    """Annotated R peaks as samples at 360 Hz: `atr` where there is one, else QTDB's automatic `pu1`."""
    path = ecg_data.ecg_folder(data) / record
    found = ecg_data.beats(path, "atr") or ecg_data.beats(path, "pu1")
    if found is None:
        return np.zeros(0, dtype=int)
    rate = ecg_data.read_record(path).rate_hz
    at = np.array([s for s, symbol in zip(*found, strict=True) if symbol in BEAT_SYMBOLS], dtype=float)
    return np.round(at * ECG_RATE_HZ / rate).astype(int)


def minutes(data: Path, pieces: Sequence[Piece], noises: NoiseTracks, seed: int, most: int) -> list[Minute]:
    """One minute of the first lead of each record, mixed noise at 0 dB."""
    rng = np.random.default_rng([seed, 3])
    found: list[Minute] = []
    seen: set[str] = set()
    for p in pieces:
        if p.record in seen or len(found) >= most:
            continue
        seen.add(p.record)
        places = _places(p, 64)
        beats = _beats(data, p.record)
        inside = [
            s
            for s in places
            if np.sum((beats > (s + 4) * ECG_RATE_HZ) & (beats < (s + 64) * ECG_RATE_HZ)) > 25
        ]
        if not inside:
            continue
        start = int(rng.choice(inside)) * ECG_RATE_HZ
        clean = p.samples[start : start + 64 * ECG_RATE_HZ]
        noise = noises.draw(rng, "mixed", len(clean))
        noisy = (clean + float(np.std(clean)) * noise).astype(np.float32)
        here = beats[(beats >= start) & (beats < start + len(clean))] - start
        good = ecg_data.clear_enough(p)[start // ECG_RATE_HZ + 4 : start // ECG_RATE_HZ + 64]
        clear = [bool(good[k : k + 10].all()) for k in range(0, 60, 10)]
        found.append(Minute(p, clean, noisy, here, clear))
    return found


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────


def r_peak_f1(x: np.ndarray, beats: np.ndarray) -> float:
    """F1 of neurokit2's detector on the lead after its fourth second, within 150 ms, one to one."""
    import neurokit2

    try:
        peaks = neurokit2.ecg_peaks(x, sampling_rate=ECG_RATE_HZ)[1]["ECG_R_Peaks"]
        found = np.asarray(peaks, dtype=float)
    except (ValueError, IndexError, ZeroDivisionError):  # what it raises when it finds nothing at all
        found = np.zeros(0)
    found = np.sort(found[np.isfinite(found)])
    found, wanted = found[found >= LEAD_IN], beats[beats >= LEAD_IN]
    return matched_f1(found, wanted, NEAR_S * ECG_RATE_HZ)


def matched_f1(found: np.ndarray, wanted: np.ndarray, near: float) -> float:
    """F1 of two sorted lists of instants, each matched at most once; 1 when both are empty."""
    hits, i, j = 0, 0, 0
    while i < len(found) and j < len(wanted):
        if abs(found[i] - wanted[j]) <= near:
            hits, i, j = hits + 1, i + 1, j + 1
        elif found[i] < wanted[j]:
            i += 1
        else:
            j += 1
    total = len(found) + len(wanted)
    return 2 * hits / total if total else 1.0


def qrs_edges(x: np.ndarray, beat: int) -> tuple[int, int]:
    """Onset and end of the QRS around a beat, samples: where the slope (over 14 ms, smoothed over 19 ms)
    falls below a twelfth of its largest."""
    reach = round(0.14 * ECG_RATE_HZ)
    a = max(beat - reach, 0)
    part = x[a : beat + reach].astype(np.float64)
    slope = np.abs(np.gradient(np.convolve(part, np.ones(5) / 5, "same")))
    slope = np.convolve(slope, np.ones(7) / 7, "same")
    slope[:4] = slope[-4:] = 0.0
    steep = np.flatnonzero(slope > slope.max() / 12)
    middle = int(np.argmax(slope))
    first = last = middle
    for k in steep[steep <= middle][::-1]:
        if first - k > 5:
            break
        first = int(k)
    for k in steep[steep >= middle]:
        if k - last > 5:
            break
        last = int(k)
    return a + first, a + last


def st_level(x: np.ndarray, onset: int, end: int) -> float:
    """ST level, mV: 20 ms around 60 ms after the J point, against 20 ms of the PR segment before the QRS."""
    at = end + round(0.06 * ECG_RATE_HZ)
    st = float(np.mean(x[at - 3 : at + 4]))
    return st - float(np.mean(x[max(onset - 10, 0) : max(onset - 3, 1)]))


def shapes(m: Minute, out: np.ndarray) -> tuple[float, float]:
    """Shift of the ST level (mV) and of the QRS width (ms) of a minute: medians over its beats of what is
    after less what was before."""
    st, width = [], []
    for beat in m.beats:
        if beat < LEAD_IN + 60 or beat > len(m.clean) - 120:
            continue
        onset, end = qrs_edges(m.clean, int(beat))
        st.append(st_level(out, onset, end) - st_level(m.clean, onset, end))
        first, last = qrs_edges(out, int(beat))
        width.append(((last - first) - (end - onset)) * 1000 / ECG_RATE_HZ)
    return (float(np.median(st)), float(np.median(width))) if st else (float("nan"), float("nan"))


def _figures_of(items: Sequence[EcgItem], clean_up: LeadDenoiser) -> dict[str, list[float]]:
    rows: dict[str, list[float]] = {k: [] for k in ("plain", "beyond_volume", "cosine", "ssd", "mad", "prd")}
    for item in items:
        out = np.asarray(clean_up(item.noisy), dtype=np.float64)
        s, x, y = item.clean[item.where], item.noisy[item.where], out[item.where]
        plain, beyond = improvement(s, x, y)
        for name, value in zip(
            rows, (plain, beyond, cosine(s, y), ssd(s, y), mad(s, y), prd(s, y)), strict=True
        ):
            rows[name].append(value)
    return rows


def _measure(
    clean_up: LeadDenoiser,
    items: Sequence[EcgItem],
    beats: Sequence[EcgItem],
    leads: Sequence[Minute],
) -> dict[str, Any]:
    """Everything about one row, by item: what is kept in the cache."""
    found: dict[str, Any] = {"mixtures": _figures_of(items, clean_up), "beats": _figures_of(beats, clean_up)}
    f1, quiet, st, width = [], [], [], []
    for m in leads:
        f1.append(r_peak_f1(np.asarray(clean_up(m.noisy), dtype=np.float64), m.beats))
        out = np.asarray(clean_up(m.clean), dtype=np.float64)
        quiet.append(
            [
                snr_db(m.clean[k : k + MEASURED], out[k : k + MEASURED])
                for k in range(LEAD_IN, len(m.clean) - MEASURED + 1, MEASURED)
            ]
        )
        shift = shapes(m, out)
        st.append(shift[0])
        width.append(shift[1])
    return {**found, "f1": f1, "clean_out": quiet, "st": st, "width": width}


def _summary(
    row: Mapping[str, Any],
    items: Sequence[EcgItem],
    beats: Sequence[EcgItem],
    leads: Sequence[Minute],
    clean_f1: Sequence[float],
    seed: int,
) -> dict[str, Any]:
    kinds = np.array([i.kind for i in items])
    levels = np.array([i.level for i in items])
    groups = np.array([i.piece.patient for i in items])
    values = {k: np.array(v) for k, v in row["mixtures"].items()}

    def figures(where: np.ndarray) -> dict[str, Any]:
        return {
            k: bootstrap_values(v[where].tolist(), groups[where].tolist(), seed=seed)
            for k, v in values.items()
            if k in ("plain", "beyond_volume", "cosine", "prd")
        }

    headline = np.isin(levels, ECG_HEADLINE_DB)
    found: dict[str, Any] = {"kinds": {}}
    for kind in (*ECG_NOISES, ANY):
        here = kinds == kind
        found["kinds"][kind] = {
            **figures(here & headline),
            "by_snr": {
                f"{level:g}": {
                    k: float(v[here & (levels == level)].mean())
                    for k, v in values.items()
                    if k in ("plain", "beyond_volume", "cosine")
                }
                for level in ECG_LEVELS_DB
            },
        }
    shares = np.array([i.level for i in beats])
    patients = [i.piece.patient for i in beats]
    found["beats"] = {
        k: bootstrap_values(row["beats"][k], patients, seed=seed) for k in ("ssd", "mad", "prd", "cosine")
    }
    found["beats"]["by_amplitude"] = {
        f"{low:g}-{high:g}": {
            k: float(np.mean(np.array(row["beats"][k])[(shares >= low) & (shares < high)]))
            for k in ("ssd", "mad", "prd", "cosine")
        }
        for low, high in AMPLITUDES
        if ((shares >= low) & (shares < high)).any()
    }
    who = [m.piece.patient for m in leads]
    f1, best = np.array(row["f1"]), np.array(clean_f1)
    found["r_peaks"] = {
        "f1": bootstrap_values(f1.tolist(), who, seed=seed),
        "clean_f1": float(best.mean()),
        "relative": bootstrap_values((f1 / np.maximum(best, 1e-9)).tolist(), who, seed=seed),
    }
    quiet = [v for values_of in row["clean_out"] for v in values_of]
    owners = [w for w, values_of in zip(who, row["clean_out"], strict=True) for _ in values_of]
    is_clear = np.array([c for m in leads for c in m.clear])
    every = bootstrap_values(quiet, owners, lambda v: float(np.percentile(v, 5)), seed=seed)
    quiet = [v for v, c in zip(quiet, is_clear, strict=True) if c]
    owners = [w for w, c in zip(owners, is_clear, strict=True) if c]
    found["clean_in"] = {
        "mean": bootstrap_values(quiet, owners, seed=seed),
        "percentile_5": bootstrap_values(quiet, owners, lambda v: float(np.percentile(v, 5)), seed=seed),
        "percentile_5_any": every,
        "st_shift_mv": bootstrap_values(np.abs(row["st"]).tolist(), who, seed=seed),
        "st_shift_mv_percentile_95": bootstrap_values(
            np.abs(row["st"]).tolist(), who, lambda v: float(np.percentile(v, 95)), seed=seed
        ),
        "qrs_width_ms": bootstrap_values(np.abs(row["width"]).tolist(), who, seed=seed),
    }
    return found


def _rounded(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _rounded(v) for k, v in x.items()}
    if isinstance(x, float):
        return None if not np.isfinite(x) else round(x, 4)
    return x


def _rows(
    bundle: bundles.Bundle, checkpoints: Path | None
) -> dict[str, tuple[LeadDenoiser, dict[str, Any], str]]:
    """Row → how it cleans, what is said about it, and what decides it."""
    found: dict[str, tuple[LeadDenoiser, dict[str, Any], str]] = {
        k: (f, {}, k) for k, f in CLASSICAL_LEAD_FILTERS.items()
    }
    if checkpoints:
        from training.ecg.systems import ECG_MODELS, checkpoint_path, load_system

        paths = {name: checkpoint_path(checkpoints, name) for name in ECG_MODELS}
        for name, path in paths.items():
            if not path.is_file():
                continue
            made, kept = load_system(path)
            parameters, macs = made.parameters_and_macs()
            about = {
                "parameters": parameters,
                "mac_per_s": round(macs),
                "steps": kept["step"],
                "minutes": round(kept["seconds"] / 60, 1),
            }
            label = "float" if name == "ours" else name
            found[label] = (made.whole, about, f"{durable.sha256_of(path)} {SYSTEMS_VERSION}")
    if "ecg" in bundle.models:
        entry = bundle.model("ecg")
        about = {k: entry.meta[k] for k in ("parameters", "mac_per_s", "kilobytes", "delay_ms")}
        found["int8"] = (lambda x: denoise(entry, x), about, entry.meta["sha256"])
    return found


def _digest(items: Sequence[EcgItem], beats: Sequence[EcgItem], leads: Sequence[Minute]) -> str:
    """sha256 of all that is measured on."""
    digest = hashlib.sha256()
    everything: list[EcgItem | Minute] = [*items, *beats, *leads]
    for one in everything:
        digest.update(one.clean.tobytes() + one.noisy.tobytes())
    return digest.hexdigest()


def benchmark_ecg(
    data: Path,
    cache: Path,
    *,
    bundle: Path | None = None,
    checkpoints: Path | None = None,
    results: Path | None = None,
    limit: int | None = None,
    seed: int = 1,
    command: str = "",
    say: Say = lambda text: print(text, file=sys.stderr, flush=True),
) -> dict[str, Any]:
    """Measure all rows and write `results`/ecg.json (default docs/results). Returns what it wrote."""
    from training.core.provenance import commit_id

    started = time.monotonic()
    each = limit or 12
    released = bundles.load(bundle)
    rows = _rows(released, checkpoints)
    if "int8" not in rows:
        say(f"{released.folder}: the bundle has no ecg; its row is left out")
    pieces = ecg_data.load_pieces(data, ("test",))
    noises = NoiseTracks(data, "test")
    items = mixtures(pieces, noises, each, seed)
    beats = deepfilter_items(data, pieces, noises, min(BEATS_EACH, 2 * each), seed)
    leads = minutes(data, pieces, noises, seed, 1000 if limit is None else 3 * limit)
    if not leads:
        raise BadInput(f"{data}: no record of the test part has annotated beats; fetch .atr or .pu1 too")
    clean_f1 = [r_peak_f1(m.clean.astype(np.float64), m.beats) for m in leads]
    hashes = ecg_data.ecg_hashes(data)
    measured = [ECG_MEASURES_VERSION, _digest(items, beats, leads)]
    found: dict[str, Any] = {}
    raw: dict[str, Any] = {}
    for name, (clean_up, about, decides) in rows.items():
        key = hashlib.sha256(
            json.dumps([name, decides, hashes, each, limit, seed, measured]).encode()
        ).hexdigest()
        kept = cache / "ecg-benchmark" / f"{key[:16]}.json"
        begun = time.monotonic()
        if kept.is_file():
            row = json.loads(kept.read_text("utf-8"))
        else:
            row = _measure(clean_up, items, beats, leads)
            write_json(kept, row)
        raw[name] = row
        found[name] = {**about, **_summary(row, items, beats, leads, clean_f1, seed)}
        mixed = found[name]["kinds"]["mixed"]
        say(
            f"{name:20s} mixed {mixed['plain']['value']:+6.2f} plain {mixed['beyond_volume']['value']:+6.2f}"
            f" beyond volume, cosine {mixed['cosine']['value']:.3f} ({time.monotonic() - begun:.0f} s)"
        )
    where = np.array([i.kind == "mixed" and i.level in ECG_HEADLINE_DB for i in items])
    groups = np.array([i.piece.patient for i in items])[where].tolist()
    best = max((n for n in FILTERS if n in found), key=lambda n: found[n]["kinds"]["mixed"]["plain"]["value"])
    against: dict[str, Any] = {"best_filter": best}
    ours = "int8" if "int8" in raw else "float"
    if ours in raw:
        mine = np.array(raw[ours]["mixtures"]["plain"])[where]
        for name in raw:
            if name not in (ours, "nothing"):
                other = np.array(raw[name]["mixtures"]["plain"])[where]
                against[name] = bootstrap_values((mine - other).tolist(), groups, seed=seed)
    result = _rounded(
        {
            "what": "ECG denoising, part test, unseen patients and noise",
            "bundle": released.version,
            "model_sha256": rows["int8"][2] if "int8" in rows else None,
            "runtime": runtime_name(),
            "seed": seed,
            "commit": commit_id(),
            "command": command,
            "data": hashes,
            "minutes": (time.monotonic() - started) / 60,
            "snr_db": list(ECG_LEVELS_DB),
            "headline_snr_db": list(ECG_HEADLINE_DB),
            "counts": {
                "mixtures": len(items),
                "each_kind_and_snr": each,
                "patients": len({p.patient for p in pieces}),
                "records": len({p.record for p in pieces}),
                "beats": len(beats),
                "beat_records": len({i.piece.record for i in beats}),
                "minutes": len(leads),
                "clear_share": float(np.mean([ecg_data.clear_enough(p).mean() for p in pieces])),
                "clear_patients": len({i.piece.patient for i in items if i.kind != ANY}),
            },
            "rows": found,
            "ours_above": against,
        }
    )
    write_json((results or RESULTS) / "ecg.json", result)
    return result
