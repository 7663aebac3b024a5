"""Do ECG and sound lie where they belong? Database a of PhysioNet 2016 has both, recorded together.

    python -m training.benchmarks.alignment --data ../shared/data      → docs/results/ecg-alignment.json

Of every recording: from the R peak (device.ecg.r_peaks, on the ECG at 360 Hz as the device has it) to the
onset of S1, once by the database's states (hand-corrected), once by the sound alone: where the mean envelope
of 25 to 150 Hz after an R peak has risen to half of its peak. The same in both halves of the recording says
whether it stays.

Then as a device would hear it: two crystals that are wrong, blocks that are told late, starts that differ.
The track (device.ecg.track) must put every R peak within 5 ms of where it belongs in the sound's time.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device.dsp.resample import resample
from device.ecg.base import EcgBlock
from device.ecg.r_peaks import r_peaks
from device.ecg.track import Track
from device.errors import BadInput, StethopiError
from device.rates import ECG_RATE_HZ, WORKING_RATE_HZ
from device.sources.files import read_sound, soundfile
from device.stream.timeline import Timeline
from training.core.provenance import RESULTS, commit_id
from training.core.results import write_json
from training.data.recordings import data_hashes, states

__all__ = ["main", "measure_alignment", "simulated"]

ECG_HZ = 500
_LONGEST_S = 0.25
_CLOCKS_PPM = ((0.0, 0.0), (200.0, -200.0), (-200.0, 200.0))
"""Of sound and ECG."""
LIMIT_S = 0.005


def leads(data: Path) -> dict[str, np.ndarray]:
    """Record → ECG, float32 in mV at 500 Hz."""
    folder = data / "physionet2016"
    index = folder / "ecg_index.csv"
    if not index.is_file():
        raise BadInput(f"{index}: is not there; give the folder of the compact layout with --data")
    whole, rate_hz = soundfile().read(folder / "ecg_a.flac", dtype="int16")
    if rate_hz != ECG_HZ:
        raise BadInput(f"{folder / 'ecg_a.flac'}: has {rate_hz} Hz, must have {ECG_HZ}")
    found = {}
    with index.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            start, samples = int(row["start_sample"]), int(row["samples"])
            # one step is a microvolt
            found[row["record"]] = whole[start : start + samples].astype(np.float32) / 1000
    return found


def _envelope(x: np.ndarray) -> np.ndarray:
    """Of 25 to 150 Hz, smoothed over 10 ms, aligned."""
    spectrum = np.fft.rfft(x)
    hz = np.fft.rfftfreq(len(x), 1 / WORKING_RATE_HZ)
    spectrum[(hz < 25) | (hz > 150)] = 0
    power = np.fft.irfft(spectrum, len(x)) ** 2
    width = WORKING_RATE_HZ // 100 | 1
    return np.sqrt(np.convolve(power, np.full(width, 1 / width), "same"))


def _onset_s(envelope: np.ndarray, peaks_s: np.ndarray) -> float | None:
    """From R to where S1 has risen to half, in the mean over beats; None for too few."""
    before, after = WORKING_RATE_HZ // 20, round(_LONGEST_S * WORKING_RATE_HZ)
    starts = np.rint(peaks_s * WORKING_RATE_HZ).astype(int)
    starts = starts[(starts >= before) & (starts + after < len(envelope))]
    if len(starts) < 5:
        return None
    beats = np.array([envelope[at - before : at + after] for at in starts])
    beats /= np.maximum(beats.max(axis=1, keepdims=True), 1e-12)
    mean = np.median(beats, axis=0)
    top = int(np.argmax(mean[before // 2 : before + round(0.15 * WORKING_RATE_HZ)])) + before // 2
    floor = float(np.percentile(mean, 10))
    half = floor + 0.5 * (mean[top] - floor)
    rising = np.flatnonzero(mean[:top] < half)
    return float((rising[-1] + 1 - before) / WORKING_RATE_HZ) if len(rising) else None


def measure_alignment(sound: np.ndarray, ecg: np.ndarray, s1_s: np.ndarray) -> dict[str, Any] | None:
    """One recording: sound at 2 kHz, ECG at 500 Hz in mV, onsets of S1. None where it has too few beats."""
    x = resample(ecg, ECG_HZ, ECG_RATE_HZ)
    peaks_s = r_peaks(x, ECG_RATE_HZ) / ECG_RATE_HZ
    if len(peaks_s) < 10 or len(s1_s) < 5:
        return None
    later = np.searchsorted(s1_s, peaks_s - 0.05)
    pairs = [(s1_s[k] - r) for r, k in zip(peaks_s, later, strict=True) if k < len(s1_s)]
    delays = np.array([d for d in pairs if d < _LONGEST_S])
    if len(delays) < 5:
        return None
    envelope = _envelope(sound)
    half = len(sound) / WORKING_RATE_HZ / 2
    halves = [_onset_s(envelope, peaks_s[peaks_s < half]), _onset_s(envelope, peaks_s[peaks_s >= half])]
    whole = _onset_s(envelope, peaks_s)
    return {
        "beats": len(delays),
        "states_ms": round(1e3 * float(np.median(delays)), 1),
        "states_spread_ms": round(1e3 * float(np.subtract(*np.percentile(delays, [75, 25]))), 1),
        "sound_ms": None if whole is None else round(1e3 * whole, 1),
        "halves_apart_ms": None
        if halves[0] is None or halves[1] is None
        else round(1e3 * (halves[1] - halves[0]), 1),
    }


class _Wired:
    """A lead that is only described, not read."""

    name = "database a"
    rails_mv: tuple[float, float] | None = None
    played = False
    rate_hz = ECG_HZ

    def start(self) -> None: ...

    def read(self) -> EcgBlock | None: ...

    def stop(self) -> None: ...


def simulated(
    ecg: np.ndarray, sound_ppm: float, ecg_ppm: float, seed: int
) -> tuple[np.ndarray, float | None]:
    """The ECG as a device would take it, by clocks that are wrong: (errors in s of every fifth sample's place
    in the sound's time, drift as it was measured in ppm).
    """
    rng = np.random.default_rng([seed, round(sound_ppm) + 1000, round(ecg_ppm) + 1000])
    seconds = len(ecg) / ECG_HZ
    sound = Timeline(48000)
    true_sound, true_ecg = 48000 * (1 + sound_ppm * 1e-6), ECG_HZ * (1 + ecg_ppm * 1e-6)
    begins_s = float(rng.uniform(0.0, 0.5))
    for end in range(240, int(seconds * true_sound), 240):
        sound.note(end, 10.0 + (end - 1) / true_sound + rng.exponential(0.002))
    track = Track(_Wired(), sound, seconds + 5)
    at = 0
    while at < len(ecg):
        end = min(at + 12, len(ecg))
        told_s = 10.0 + begins_s + (end - 1) / true_ecg + rng.exponential(0.002)
        track.accept(EcgBlock(ecg[at:end], at, told_s))
        at = end
    index = np.arange(0, track.ring.end, 5)
    found = np.array([track.sound_of(float(n)) or np.nan for n in index]) / WORKING_RATE_HZ
    # sample n was there at begins_s + n / 360 of the lead's clock; the sound counts its own seconds
    truth = (begins_s + index / ECG_RATE_HZ / (1 + ecg_ppm * 1e-6)) * (1 + sound_ppm * 1e-6)
    return found - truth, track.drift_ppm


def _spread(values: Sequence[float]) -> dict[str, float]:
    x = np.asarray(values, float)
    low, middle, high = np.percentile(x, [5, 50, 95])
    return {"median": round(float(middle), 1), "p5": round(float(low), 1), "p95": round(float(high), 1)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.benchmarks.alignment", description="ECG and sound of database a, aligned."
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--limit", type=int, default=0, help="recordings at most (default: all)")
    parser.add_argument("--simulate", type=int, default=40, help="recordings replayed by wrong clocks")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    started = time.monotonic()
    try:
        ecgs, known = leads(options.data), states(options.data)
        rows: dict[str, Any] = {}
        names = sorted(ecgs)[: options.limit or None]
        for name in names:
            sound = read_sound(options.data / "physionet2016" / "audio" / f"{name}.flac")
            s1 = np.array([a for a, _, state in known.get(name, []) if state == "S1" and a > 0])
            row = measure_alignment(sound.samples, ecgs[name], s1)
            if row is not None:
                rows[name] = row
        if not rows:
            raise BadInput(f"{options.data}: no recording of database a has sound, ECG and states")
        clocks: list[dict[str, Any]] = []
        for sound_ppm, ecg_ppm in _CLOCKS_PPM:
            errors, drifts = [], []
            for name in names[:: max(len(names) // max(options.simulate, 1), 1)]:
                apart, drift = simulated(ecgs[name], sound_ppm, ecg_ppm, options.seed)
                errors.append(apart)
                if drift is not None:
                    drifts.append(drift)
            off = 1e3 * np.abs(np.concatenate(errors))
            clocks.append(
                {
                    "sound_ppm": sound_ppm,
                    "ecg_ppm": ecg_ppm,
                    "recordings": len(errors),
                    "error_ms_p50": round(float(np.percentile(off, 50)), 2),
                    "error_ms_p99": round(float(np.percentile(off, 99)), 2),
                    "error_ms_worst": round(float(off.max()), 2),
                    "drift_ppm": None if not drifts else _spread(drifts),
                }
            )
    except StethopiError as problem:
        print(f"stethopi: {problem}", file=sys.stderr)
        return problem.exit_code
    apart_ms = [abs(row["halves_apart_ms"]) for row in rows.values() if row["halves_apart_ms"] is not None]
    result = {
        "what": "ECG and sound of PhysioNet 2016 database a: from R to S1; where samples lie by two clocks",
        "command": f"python -m training.benchmarks.alignment --seed {options.seed}"
        + (f" --limit {options.limit}" if options.limit else ""),
        "commit": commit_id(),
        "data": {k: v for k, v in data_hashes(options.data).items() if "2016" in k},
        "seed": options.seed,
        "took_minutes": round((time.monotonic() - started) / 60, 1),
        "recordings": len(rows),
        "r_to_s1_by_states_ms": _spread([row["states_ms"] for row in rows.values()]),
        "within_a_recording_iqr_ms": _spread([row["states_spread_ms"] for row in rows.values()]),
        "r_to_s1_by_sound_ms": _spread([r["sound_ms"] for r in rows.values() if r["sound_ms"] is not None]),
        "halves_apart_ms": _spread(apart_ms),
        "clocks": clocks,
        "limit_ms": 1e3 * LIMIT_S,
    }
    path = options.results / "ecg-alignment.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    print(json.dumps(result, indent=1))
    return 0 if all(clock["error_ms_worst"] <= 1e3 * LIMIT_S for clock in clocks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
