"""The denoiser's benchmark: classical rows, material, kept pieces of work, texts that tell the figures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.errors import BadInput
from tests.training.rewritten import rewrite
from training.benchmarks import denoise_material, denoise_measure
from training.benchmarks import denoise_material as benchmarks_denoise_material
from training.benchmarks.denoise_material import PITCHES_HZ, TIMINGS, Clip, Noises, known_murmur
from training.data.mixing import NoisePool, Reference
from training.denoise.classical import (
    CLASSICAL,
    heart_band_pass,
    oracle_wiener,
    spectral_gating,
    untouched,
    volume,
    wavelet,
)
from training.metrics.denoising import band, improvement, snr_db
from training.reports import denoise as denoise_tables
from training.reports.denoise import denoise_goals, write_note

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def beats_and_noise(level_db: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    n = 12000
    t = np.arange(n) / 2000
    clean = np.sin(2 * np.pi * 60 * t) * np.exp(-((t % 0.8) / 0.04))
    noise = np.random.default_rng(seed).standard_normal(n)
    gain = np.std(band(clean)) / np.std(band(noise)) * 10 ** (-level_db / 20)
    return clean.astype(np.float32), (clean + gain * noise).astype(np.float32)


def beats(n_beats: int = 7) -> tuple[tuple[float, float, str], ...]:
    spans: list[tuple[float, float, str]] = []
    for k in range(n_beats):
        t = 0.8 * k
        spans += [(t, t + 0.1, "S1"), (t + 0.1, t + 0.32, "systole")]
        spans += [(t + 0.32, t + 0.4, "S2"), (t + 0.4, t + 0.8, "diastole")]
    return tuple(spans)


def noises() -> Noises:
    made = Noises.__new__(Noises)
    made.pool = NoisePool({"hospital": [np.sin(np.arange(9000) * 0.5).astype(np.float32)]})
    made.kinds = ["hospital", "taps", "hum", "white", "pink"]
    return made


@pytest.mark.train
@pytest.mark.parametrize("name", list(CLASSICAL))
def test_every_classical_row_keeps_the_length(name: str) -> None:
    clean, noisy = beats_and_noise()
    out = CLASSICAL[name](noisy, clean)
    assert out.shape == noisy.shape
    assert np.isfinite(out).all()


@pytest.mark.train
def test_classical_rows_do_what_their_names_say() -> None:
    clean, noisy = beats_and_noise()
    assert np.array_equal(untouched(noisy, clean), noisy)
    plain, beyond = improvement(band(clean), band(noisy), band(volume(noisy, clean)))
    assert plain == pytest.approx(3.0, abs=0.3)  # at 0 dB the best gain is a half
    assert beyond == pytest.approx(0.0, abs=0.05)
    assert (
        snr_db(clean, heart_band_pass(noisy, clean)) > snr_db(clean, noisy) + 3
    )  # most of white lies outside
    for way in (wavelet, spectral_gating):
        assert improvement(band(clean), band(noisy), band(way(noisy, clean)))[0] > 1.0


@pytest.mark.parametrize("level_db", [-10.0, 0.0, 20.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_oracle_is_never_worse_than_nothing_and_leaves_clean_sound(level_db: float, seed: int) -> None:
    clean, noisy = beats_and_noise(level_db, seed)
    out = oracle_wiener(noisy, clean)
    assert snr_db(band(clean), band(out)) > snr_db(band(clean), band(noisy))
    assert snr_db(clean, out) > snr_db(clean, noisy)
    assert snr_db(clean, oracle_wiener(clean, clean)) > 90


@pytest.mark.parametrize("kind", ["hospital", "taps", "hum", "white", "pink"])
def test_mixtures_stand_at_their_snr(kind: str) -> None:
    clean, _ = beats_and_noise()
    noisy = noises().mix(np.random.default_rng(1), clean, kind, 3.0)
    assert snr_db(band(clean), band(clean) + band(noisy - clean)) == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize("timing", list(TIMINGS))
@pytest.mark.parametrize("pitch", list(PITCHES_HZ))
def test_a_synthetic_murmur_has_the_energy_place_and_pitch_asked_for(timing: str, pitch: str) -> None:
    spans = beats()
    found = known_murmur(
        np.random.default_rng(3), 12000, spans, 2.0, under_db=12.0, timing=timing, pitch=pitch
    )
    sounding = np.abs(found) > 0
    assert float(np.mean(found[sounding].astype(float) ** 2)) == pytest.approx(2.0 * 10**-1.2, rel=0.01)
    phase, begin, stop, _ = TIMINGS[timing]
    inside = np.zeros(12000, dtype=bool)
    for start, end, state in spans:
        if state == phase:
            a, b = (round((start + u * (end - start)) * 2000) for u in (begin, stop))
            inside[a:b] = True
    assert not found[~inside].any()
    spectrum = np.abs(np.fft.rfft(found)) ** 2
    f = np.fft.rfftfreq(12000, 1 / 2000)
    low, high = PITCHES_HZ[pitch]
    # the pieces are short, so their edges spread a little
    assert spectrum[(f > low - 30) & (f < high + 30)].sum() > 0.85 * spectrum.sum()


def test_no_place_for_a_murmur_gives_none() -> None:
    made = known_murmur(
        np.random.default_rng(0), 400, beats(1), 1.0, under_db=6.0, timing="early diastolic", pitch="low"
    )
    assert not made.any()


def test_a_diastolic_murmur_raises_the_excess_of_its_own_phase() -> None:
    spans = beats()
    rng = np.random.default_rng(5)
    quiet = 0.01 * rng.standard_normal(12000)
    for timing in ("holosystolic", "mid-diastolic"):
        m = known_murmur(rng, 12000, spans, 1.0, under_db=10.0, timing=timing, pitch="medium")
        r = Reference("r", "a", "g", False, quiet, spans)
        clip = Clip("12 dB", timing, "medium", r, quiet, m, spans)
        assert clip.excess_db(quiet + m) > clip.excess_db(quiet) + 10


# ── pieces of work ──────────────────────────────────────────────────────────────────────────────────────────


class _Small(denoise_material.Material):
    """A few drawn beats instead of the data."""

    def __init__(self, cache: Path, each: int = 1) -> None:
        super().__init__(Path("."), cache, each, 1)
        clean, _ = beats_and_noise()
        refs = [Reference(f"r{k}", "ae"[k % 2], f"g{k}", False, clean, beats()) for k in range(3)]
        self.__dict__.update(noises=noises(), normal=refs, murmurs=refs[:2], quiet=refs, judged=[])
        self.__dict__["mixtures"] = denoise_material.mixtures_of(refs, noises(), each, 1)
        self.__dict__["clips"] = denoise_material.clips_of(refs, each, 1)[:5]


def _bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir(exist_ok=True)
    (folder / "bundle.json").write_text("{}")
    return folder


ROWS = [denoise_measure.Row("nothing", "classical"), denoise_measure.Row("band-pass", "classical")]


def test_what_is_measured_is_kept_and_a_broken_off_run_gives_the_same(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path)
    material = _Small(tmp_path / "one")
    jobs = denoise_measure.jobs_of(ROWS, material, bundle)
    denoise_measure.measure_jobs(jobs, material, bundle, 1)
    whole = denoise_measure.collect(jobs)
    assert [i["plain"] for i in whole["nothing"]["mixtures"]] == [0.0] * len(material.mixtures)
    assert all(v == 0 for i in whole["nothing"]["murmur"] for k, v in i.items() if k == "clean")

    again = _Small(tmp_path / "two")
    jobs = denoise_measure.jobs_of(ROWS, again, bundle)
    denoise_measure.measure_jobs(jobs[::2], again, bundle, 1)  # broken off: only some are there
    before = {j.kept: j.kept.stat().st_mtime_ns for j in jobs[::2]}
    denoise_measure.measure_jobs(jobs, again, bundle, 1)
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())
    found = denoise_measure.collect(jobs)
    assert json.dumps(found) == json.dumps(whole)


def test_figures_outlive_a_rename_but_not_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = _bundle(tmp_path)

    def kept() -> dict[str, set[Path]]:
        found: dict[str, set[Path]] = {}
        for job in denoise_measure.jobs_of(ROWS, _Small(tmp_path), bundle):
            found.setdefault(job.section, set()).add(job.kept)
        return found

    once = kept()
    rewrite(monkeypatch, tmp_path)
    assert kept() == once
    clean = dataclasses.replace(denoise_measure.SECTIONS["clean"], version=2)
    monkeypatch.setitem(denoise_measure.SECTIONS, "clean", clean)
    assert {name for name, files in kept().items() if files != once[name]} == {"clean"}
    monkeypatch.setattr(denoise_measure, "MEASURES_VERSION", denoise_measure.MEASURES_VERSION + 1)
    assert {name for name, files in kept().items() if files != once[name]} == set(once)


def test_other_sounds_are_measured_anew(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path)
    one = denoise_measure.jobs_of(ROWS, _Small(tmp_path), bundle)
    other = denoise_measure.jobs_of(ROWS, _Small(tmp_path, each=2), bundle)
    assert not {j.kept for j in one} & {j.kept for j in other}


def test_what_the_classifier_hears_decides_its_figures_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = _bundle(tmp_path)
    rows = [denoise_measure.Row("int8", "bundle", bundle / "bundle.json")]
    one = denoise_measure.jobs_of(rows, _Small(tmp_path), bundle)
    monkeypatch.setattr(denoise_measure, "HEARD_LEVELS", {"0": 3})
    other = denoise_measure.jobs_of(rows, _Small(tmp_path), bundle)
    changed = {a.section for a, b in zip(one, other, strict=True) if a.kept != b.kept}
    assert changed == {"classifier"}


def test_a_verdict_counts_as_kept_when_it_is_the_one_on_the_clean_piece() -> None:
    from types import SimpleNamespace

    from training.benchmarks.denoise import _verdict_figures
    from training.benchmarks.denoise_material import LEVELS_DB
    from training.reports.denoise import _verdict_table

    mixtures = [
        SimpleNamespace(kind=kind, level_db=level, reference=SimpleNamespace(group=group))
        for kind in ("taps", "hum")
        for level in LEVELS_DB
        for group in "pqr"
    ]
    # taps turn every verdict and cleaning brings it back, silence among them; hum leaves the verdict alone
    turned = {"clean": 0.2, "raw": 0.9, "cleaned": None}
    kept = {"clean": 0.7, "raw": 0.6, "cleaned": 0.8}
    items = [turned if m.kind == "taps" else kept for m in mixtures]
    found = _verdict_figures(items, SimpleNamespace(mixtures=mixtures, seed=1), 0.5)  # type: ignore[arg-type]
    assert found["kinds"]["taps"]["kept"]["raw"] == 0 and found["kinds"]["taps"]["kept"]["cleaned"] == 1
    assert found["kinds"]["hum"]["kept"]["difference"]["value"] == 0
    assert found["all"]["kept"]["difference"]["value"] == pytest.approx(0.5)
    assert found["kinds"]["taps"]["moved"]["cleaned"] == pytest.approx(0.2)
    assert found["by_snr"]["0"]["moved"]["raw"] == pytest.approx((0.7 + 0.1) / 2)
    lines = _verdict_table({"rows": {"int8": {"verdicts": found}}})
    assert lines[2].startswith("| taps | 0 → 100 |")
    assert "+100.0 [+100.0, +100.0]" in lines[2]


def test_draws_of_noise_are_averaged_within_the_bootstrap_over_subjects(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from training.benchmarks.denoise import _classifier_figures

    judged = [
        SimpleNamespace(
            group=f"g{k // 2}",
            label=("normal", "abnormal")[k % 2],
            database="circor",
            murmur_here=("no", "yes")[k % 2],
        )
        for k in range(12)
    ]
    said = [0.9 * (k % 2) + 0.05 for k in range(12)]  # right; the other draw is wrong throughout
    items = [
        {
            level: [[p, p, p, p]] + ([[1 - p, 1 - p, p, p]] if level == "0" else [])
            for level in benchmarks_denoise_material.HEARD_LEVELS
        }
        for p in said
    ]
    found = _classifier_figures(items, SimpleNamespace(judged=judged, seed=1), 0.5)  # type: ignore[arg-type]
    at_0 = found["levels"]["0"]
    for what in ("macc", "abnormal_auc", "murmur_auc"):
        assert at_0[what]["raw"]["value"] == pytest.approx(0.5)
        assert at_0[what]["cleaned"]["value"] == pytest.approx(1.0)
        assert at_0[what]["difference"]["low"] == pytest.approx(0.5)
        assert found["levels"]["10"][what]["difference"]["value"] == pytest.approx(0.0)


def test_rows_whose_file_is_missing_are_told(tmp_path: Path) -> None:
    rows, left_out = denoise_measure.rows_of(_bundle(tmp_path), tmp_path / "runs", tmp_path / "baselines")
    assert {"nothing", "oracle", "int8"} <= {r.name for r in rows}
    assert "stethopi train denoiser --model lu-net" in left_out["lu-net"]
    assert "--out" in left_out["float"]


def test_a_limit_of_nothing_is_refused(tmp_path: Path) -> None:
    from training.benchmarks.denoise import benchmark_denoise

    with pytest.raises(BadInput, match="--limit 0: must be 1 or more"):
        benchmark_denoise(tmp_path, tmp_path, each=0)


@pytest.mark.parametrize(
    ("steps", "difference", "said"),
    [(12500, 0.04, "met"), (12500, -0.01, "missed"), (500, 0.04, "not measured"), (500, -0.01, "missed")],
)
def test_pruning_wins_only_against_one_trained_as_long(
    steps: int, difference: float, said: str, tmp_path: Path
) -> None:
    rows = [
        {"kind": "full", "name": "denoiser-full", "steps": 12000, "mac_per_s": 40e6},
        {"kind": "pruned", "name": "pruned-60", "steps": 500, "mac_per_s": 8e6},
        {"kind": "pruned", "name": "pruned-36", "steps": 500, "mac_per_s": 18e6},
        {"kind": "scratch", "name": "scratch", "steps": steps, "mac_per_s": 17.9e6},
    ]
    figure = {"value": difference, "low": difference - 0.1, "high": difference + 0.1}
    beside = {"plain": figure | {"value": 0.1}, "beyond_volume": figure}
    (tmp_path / "denoiser-tuned.json").write_text(json.dumps({"rows": rows, "beside_scratch": beside}))
    found = denoise_tables.denoise_goals(_result(), tmp_path)[-1]
    assert found[-1] == said
    assert f"(12,500 steps in all; {steps:,})" in found[2]


# ── texts ───────────────────────────────────────────────────────────────────────────────────────────────────


def _result() -> dict[str, Any]:
    result: dict[str, Any] = json.loads((ROOT / "docs" / "results" / "denoise.json").read_text("utf-8"))
    return result


def test_a_missed_goal_is_told_as_missed() -> None:
    result = _result()
    told = {figure: met for figure, _, _, met in denoise_goals(result)}
    assert len(told) == len(denoise_goals(result)) >= 18
    result["rows"]["int8"]["made_worse_interval"]["value"] = 0.5
    result["rows"]["int8"]["level_spread_db"] = 0.31
    spoilt = {figure: met for figure, _, _, met in denoise_goals(result)}
    assert spoilt["sounds made worse at inputs of 10 dB or less"] == "missed"
    assert spoilt["level: input peaks from 0.005 to 1.0 of full scale"] == "missed"
    assert sum(a != b for a, b in zip(told.values(), spoilt.values(), strict=True)) <= 2


def test_the_lab_note_tells_what_the_results_say() -> None:
    note = ROOT / "docs" / "denoiser.md"
    assert note.read_text("utf-8") == write_note(note, ROOT / "docs" / "results"), (
        "run: python -m training.benchmarks.denoise --note docs/denoiser.md"
    )


def test_the_picture_is_small_and_the_same_each_time(tmp_path: Path) -> None:
    pictures = []
    for name in ("a.svg", "b.svg"):
        denoise_tables.draw_snr(_result(), tmp_path / name)
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) < 300_000
