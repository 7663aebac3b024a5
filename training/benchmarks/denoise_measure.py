"""Measure ways to clean sound, piece by piece, in processes; what is measured is kept and not measured
again.

A row is one way to clean, a section one kind of figure, a job a part of a row's section. A job's result
lies in CACHE/benchmark-denoise under a name that holds a hash of all that decides it: the material, the
network's file, the programs here and in training.metrics.denoising and training.denoise.classical.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device.denoise.baseline import CLASSIC_RATE_HZ, CLASSIC_WINDOW, WindowedFile, classic_file
from device.denoise.stream import denoise
from device.durable import sha256_of
from device.inference import bundle as bundles
from device.inference.interpreter import runtime_name
from training.benchmarks.denoise_material import CLEAN, HEARD_LEVELS, MURMUR_LEVELS, PIECE, Material
from training.core.results import write_text
from training.core.say import say
from training.denoise.classical import CLASSICAL, WholeDenoiser
from training.metrics.denoising import (
    band,
    beat_shifts_ms,
    correlation,
    improvement,
    kept_db,
    murmur_excess_db,
    snr_db,
)

__all__ = [
    "MEASURES",
    "Item",
    "MeasureJob",
    "Row",
    "Section",
    "SECTIONS",
    "collect",
    "jobs_of",
    "measure_jobs",
    "rows_of",
    "say",
]

PARTS = {"mixtures": 8, "murmur": 2, "synthetic": 4, "classifier": 12, "verdicts": 8}
"""Pieces of work a section is cut into; one for the others."""


BASELINE = "rival"
"""A row of a network that ours is measured against. The word goes into the names of what was measured
and kept, and another would cost hours."""


# ── rows ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Row:
    """One way to clean, and how another process can make it: a kind and a file."""

    name: str
    way: str
    path: Path | None = None

    @property
    def key(self) -> str:
        """What this row's file says of how it cleans; of a bundle its denoiser alone."""
        if self.path is None:
            return ""
        return _of_bundle(self.path, "denoiser") if self.way == "bundle" else sha256_of(self.path)

    def cleaner(self) -> WholeDenoiser:
        if self.way == "classical":
            return CLASSICAL[self.name]
        assert self.path is not None
        if self.way == "bundle":
            entry = bundles.load(self.path.parent).model("denoiser")
            return lambda noisy, _clean: denoise(entry, noisy)
        if self.way == "windowed":
            run: Callable[[np.ndarray], np.ndarray] = WindowedFile(self.path)
        elif self.way == BASELINE:
            from training.denoise.baselines import baseline_denoiser, load_baseline

            net, kept = load_baseline(self.path)
            run = baseline_denoiser(kept["name"], net)
        else:
            run = _our_net(self.path)
        return lambda noisy, _clean: run(noisy)

    def about(self) -> dict[str, Any]:
        """Size and cost, as far as they mean something for this row."""
        if self.way == "classical":
            return {}
        assert self.path is not None
        if self.way == "bundle":
            meta = bundles.load(self.path.parent).model("denoiser").meta
            return {k: meta[k] for k in ("parameters", "mac_per_s", "kilobytes", "delay_ms")}
        if self.way == "windowed":
            about = self.path.with_suffix(".json")
            kept = json.loads(about.read_text("utf-8")) if about.is_file() else {}
            found = {k: kept[k] for k in ("parameters", "mac_per_s", "steps", "minutes") if k in kept}
            size = round(self.path.stat().st_size / 1000, 1)
            return {**found, "kilobytes": size, "delay_ms": 1000 * CLASSIC_WINDOW / CLASSIC_RATE_HZ}
        if self.way == BASELINE:
            from training.denoise.baselines import DENOISING_BASELINES, load_baseline, mac_per_s

            net, kept = load_baseline(self.path)
            parameters = int(sum(p.numel() for p in net.parameters()))
            return {
                "parameters": parameters,
                "mac_per_s": mac_per_s(kept["name"], net),
                "kilobytes": round(4 * parameters / 1000, 1),
                "delay_ms": 1000 * DENOISING_BASELINES[kept["name"]].window_s,
                "steps": kept["step"],
                "minutes": round(kept["seconds"] / 60, 1),
            }
        from training.denoise.apply import load_net
        from training.export.export import count_macs

        net, kept = load_net(self.path)
        parameters = int(sum(p.numel() for p in net.parameters()))
        return {
            "parameters": parameters,
            "mac_per_s": count_macs(net, tuple(net.examples().values())) * 125,
            "kilobytes": round(4 * parameters / 1000, 1),
            "delay_ms": 24.0,
            "steps": kept["step"],
            "minutes": round(kept["seconds"] / 60, 1),
        }


def _our_net(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    from models.denoiser import tables
    from training.denoise.apply import MaskLayer, denoise_whole, load_net

    net, kept = load_net(path)
    coefficients = tables(int(kept["recipe"]["net"].get("frame", 96)))
    removal = MaskLayer(coefficients)
    return lambda noisy: denoise_whole(net, removal, coefficients, noisy)


def rows_of(bundle: Path, checkpoints: Path, baselines: Path) -> tuple[list[Row], dict[str, str]]:
    """The rows whose files are there, and why the others are not."""
    rows = [Row(name, "classical") for name in CLASSICAL]
    left_out: dict[str, str] = {}
    exported = baselines / "unet-classic" / "unet-classic.tflite"
    if not exported.is_file():
        exported = classic_file("unet-classic")
    for name, way, path, remedy in (
        ("unet-classic", BASELINE, baselines / "unet-classic.pt", "train denoiser --model unet-classic"),
        ("unet-classic int8", "windowed", exported, "export denoiser --model unet-classic"),
        ("lu-net", BASELINE, baselines / "lu-net.pt", "train denoiser --model lu-net"),
        ("float", "net", checkpoints / "denoiser-full.pt", "train denoiser"),
        ("pruned", "net", checkpoints / "denoiser-pruned.pt", "prune denoiser"),
    ):
        if path.is_file():
            rows.append(Row(name, way, path))
        else:
            where = "--baselines" if way in (BASELINE, "windowed") else "--out"
            left_out[name] = f"no {path.name} in {where}; write it: stethopi {remedy}"
    return [*rows, Row("int8", "bundle", bundle / "bundle.json")], left_out


# ── what is measured, item by item ──────────────────────────────────────────────────────────────────────────

Item = dict[str, Any]


def _mixture(m: Material, k: int, clean_up: WholeDenoiser) -> Item:
    x = m.mixtures[k]
    out = clean_up(x.noisy, x.clean)
    s, y = band(x.clean), band(out)
    plain, beyond = improvement(s, band(x.noisy), y)
    full, full_beyond = improvement(x.clean, x.noisy, out)
    return {
        "plain": plain,
        "beyond_volume": beyond,
        "full_band": full,
        "full_band_beyond": full_beyond,
        "correlation": correlation(s, y),
        **beat_shifts_ms(x.clean, out, x.spans),
    }


def _clean(m: Material, k: int, clean_up: WholeDenoiser) -> Item:
    r = m.normal[k]
    sound = r.sound[: 2 * PIECE]
    out = clean_up(sound, sound)
    s, y = band(sound), band(out)
    return {
        "snr": snr_db(s, y),
        "full_band": snr_db(sound, out),
        "correlation": correlation(s, y),
        **beat_shifts_ms(sound, out, r.spans),
    }


def _murmur(m: Material, k: int, clean_up: WholeDenoiser) -> Item:
    r = m.murmurs[k]
    sound = r.sound[: 2 * PIECE]
    own = murmur_excess_db(sound, r.spans)
    rng = m.rng(2, k)
    found = {}
    for level in MURMUR_LEVELS:
        x = sound if level == CLEAN else m.noises.mix(rng, sound, m.kind(k), float(level))
        found[level] = murmur_excess_db(clean_up(x, sound), r.spans) - own
    return found


def _synthetic(m: Material, k: int, clean_up: WholeDenoiser) -> Item:
    clip = m.clips[k]
    sound = clip.beats + clip.murmur
    own = clip.excess_db(sound)
    rng = m.rng(6, k)
    found: Item = {}
    for level in MURMUR_LEVELS:
        x = sound if level == CLEAN else m.noises.mix(rng, sound, m.kind(k), float(level))
        out = clean_up(x, sound)
        found[level] = [clip.excess_db(out) - own, kept_db(clip.murmur, clip.beats, out)]
    return found


def _false_murmur(m: Material, k: int, clean_up: WholeDenoiser) -> Item:
    r = m.quiet[k]
    sound = r.sound[: 2 * PIECE]
    x = m.noises.mix(m.rng(3, k), sound, m.kind(k), 0.0)
    return {"change": murmur_excess_db(clean_up(x, sound), r.spans) - murmur_excess_db(sound, r.spans)}


PEAKS = (0.005, 0.05, 0.3, 1.0)


def _level(m: Material, k: int, clean_up: WholeDenoiser) -> Item:
    x = m.mixtures[k * max(1, len(m.mixtures) // 8)]
    found = []
    for peak in PEAKS:
        gain = np.float32(peak / np.max(np.abs(x.noisy)))
        out = clean_up(x.noisy * gain, x.clean * gain) / gain
        found.append(snr_db(band(x.clean), band(out)))
    return {"spread": max(found) - min(found)}


def _classifier(m: Material, k: int, clean_up: WholeDenoiser) -> Item:
    """What the released classifier says of the raw and of the cleaned sound: (abnormal, murmur) of both, for
    each draw of noise."""
    from device.screening.screen import Int8Network, screen_recording

    entry = bundles.load(_CLASSIFIER_OF[0]).model("classifier")
    network = Int8Network(entry)
    sound = m.heard(m.judged[k])
    found: Item = {}
    for n, (level, draws) in enumerate(HEARD_LEVELS.items()):
        found[level] = []
        for draw in range(draws):
            rng = np.random.default_rng([m.seed, 7, k, n, draw])
            kind = m.kind(k + 3 * n + 5 * draw)
            x = sound if level == CLEAN else m.noises.mix(rng, sound, kind, float(level))
            values: list[float] = []
            for heard in (x, clean_up(x, sound)):
                said = screen_recording(heard, entry, network=network)
                values += [said.probability or 0.0, said.murmur or 0.0]  # silence is neither
            found[level].append(values)
    return found


def _verdict(m: Material, k: int, clean_up: WholeDenoiser) -> Item:
    """What the released classifier says, abnormal, of the clean piece, of the mixture, and of it cleaned."""
    from device.screening.screen import Int8Network, screen_recording

    entry = bundles.load(_CLASSIFIER_OF[0]).model("classifier")
    network = Int8Network(entry)
    x = m.mixtures[k]
    heard = {"clean": x.clean, "raw": x.noisy, "cleaned": clean_up(x.noisy, x.clean)}
    return {what: screen_recording(s, entry, network=network).probability for what, s in heard.items()}


_CLASSIFIER_OF: list[Path] = []
"""Folder of the bundle whose classifier listens; set in each process."""


MEASURES = ("plain", "beyond_volume", "full_band", "full_band_beyond")


@dataclass(frozen=True)
class Section:
    measure: Callable[[Material, int, WholeDenoiser], Item]
    count: Callable[[Material], int]
    only: tuple[str, ...] = ()
    """Rows it is measured for; all when empty."""
    version: int = 1
    """Raise it when `measure` comes to give other figures for the same sound: the other sections stay."""


MEASURES_VERSION = 1
"""Raise it when what all sections rest on comes to give other figures for the same sound:
training.denoise.classical, .metrics, how .mixing and .denoise_material draw noise and murmurs, or how a `Row`
cleans. Everything is then measured anew, which takes hours; other words for the same are no reason.
"""

SECTIONS = {
    "mixtures": Section(_mixture, lambda m: len(m.mixtures)),
    "clean": Section(_clean, lambda m: len(m.normal)),
    "murmur": Section(_murmur, lambda m: len(m.murmurs)),
    "synthetic": Section(_synthetic, lambda m: len(m.clips)),
    "false_murmur": Section(_false_murmur, lambda m: len(m.quiet)),
    "level": Section(_level, lambda m: min(8, len(m.mixtures)), ("int8",)),
    "classifier": Section(_classifier, lambda m: len(m.judged), ("int8",)),
    "verdicts": Section(_verdict, lambda m: len(m.mixtures), ("int8",)),
}


# ── pieces of work, in processes, kept ──────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class MeasureJob:
    row: Row
    section: str
    part: int
    parts: int
    kept: Path


_WORKER: dict[str, Any] = {}


def _set_up(material: Material, bundle: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children in order
    _set_up_here(material, bundle)


def _set_up_here(material: Material, bundle: Path) -> None:
    _WORKER.clear()
    _WORKER["material"] = material
    _CLASSIFIER_OF[:] = [bundle]


def _work(job: MeasureJob) -> float:
    """Measure a piece of work and keep it in a file; returns the seconds of a core that it took."""
    if job.row.way in (BASELINE, "net"):
        import torch

        torch.set_num_threads(1)
    started = time.process_time()
    material: Material = _WORKER["material"]
    if job.row.name not in _WORKER:
        _WORKER[job.row.name] = job.row.cleaner()
    section = SECTIONS[job.section]
    items = [
        section.measure(material, k, _WORKER[job.row.name])
        for k in range(job.part, section.count(material), job.parts)
    ]
    write_text(job.kept, json.dumps(items))
    return time.process_time() - started


def _decided_by(material: Material) -> str:
    """Hash of what decides a figure beside the row: every sound, and the version of what measures it."""
    digest = hashlib.sha256()
    for r in (*material.normal, *material.murmurs, *material.quiet):
        digest.update(r.record.encode() + r.sound.tobytes() + json.dumps(r.spans).encode())
    for kind, segments in sorted(material.noises.pool.segments.items()):
        digest.update(kind.encode() + b"".join(s.tobytes() for s in segments))
    for x in material.mixtures:
        digest.update(x.noisy.tobytes())
    for clip in material.clips:
        digest.update(clip.murmur.tobytes())
    plain = [material.each, material.seed, runtime_name(), PIECE, PEAKS, MURMUR_LEVELS, MEASURES_VERSION]
    digest.update(json.dumps(plain).encode())
    return digest.hexdigest()


def _section_by(name: str, material: Material, bundle: Path) -> list[str]:
    """What decides the figures of one section beside all that is common: how it measures, and who listens."""
    section = SECTIONS[name]
    found = [str(section.version)]
    listens = _of_bundle(bundle / "bundle.json", "classifier")
    if name == "classifier":
        judged = " ".join(r.record for r in material.judged)
        found += [judged, json.dumps(HEARD_LEVELS), listens]
    elif name == "verdicts":
        found.append(listens)
    return found


def _of_bundle(path: Path, model: str) -> str:
    """All that a bundle says of one of its models, hashes of its files among it."""
    return json.dumps(json.loads(path.read_text("utf-8")).get("models", {}).get(model), sort_keys=True)


def jobs_of(rows: Sequence[Row], material: Material, bundle: Path) -> list[MeasureJob]:
    """All jobs, section by section. bundle: the folder whose classifier listens."""
    common = _decided_by(material)
    folder = material.cache / "benchmark-denoise"
    found = []
    for name, section in SECTIONS.items():
        here = _section_by(name, material, bundle)
        for row in rows:
            if section.only and row.name not in section.only:
                continue
            parts = PARTS.get(name, 1)
            for part in range(parts):
                because = [common, row.name, row.way, row.key, name, part, parts, *here]
                key = hashlib.sha256(json.dumps(because).encode()).hexdigest()[:20]
                file = f"{row.name.replace(' ', '-')}-{name}-{part}-{key}.json"
                found.append(MeasureJob(row, name, part, parts, folder / file))
    return found


def measure_jobs(jobs: Sequence[MeasureJob], material: Material, bundle: Path, processes: int) -> None:
    """All jobs whose result is not kept yet, the long ones first."""
    # a row's own time decides: the streamed int8 step and long windows take longest
    slow = {"int8": 0, "unet-classic int8": 1, "unet-classic": 2, "lu-net": 2}
    missing = [j for j in jobs if not j.kept.is_file()]
    missing.sort(key=lambda j: (slow.get(j.row.name, 3), j.section, j.part))
    done, started = len(jobs) - len(missing), time.monotonic()
    if done:
        say(f"{done} of {len(jobs)} pieces of work are kept from before")

    def tell(job: MeasureJob, seconds: float) -> None:
        nonlocal done
        done += 1
        part = f" {job.part + 1}/{job.parts}" if job.parts > 1 else ""
        minutes = (time.monotonic() - started) / 60
        say(f"[{done}/{len(jobs)}, {minutes:.1f} min] {job.row.name}: {job.section}{part} {seconds:.0f} s")

    if processes < 2 or len(missing) < 2:
        _set_up_here(material, bundle)
        for job in missing:
            tell(job, _work(job))
        return
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # one process a core does the work
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _set_up, (material, bundle)) as pool:
        queue = iter(missing)
        running: dict[Future[float], MeasureJob] = {}
        try:
            while True:
                while len(running) < processes + 1 and (following := next(queue, None)):
                    running[pool.submit(_work, following)] = following
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    tell(running.pop(future), future.result())
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def collect(jobs: Sequence[MeasureJob]) -> dict[str, dict[str, list[Item]]]:
    """By row and section the items in their order."""
    found: dict[str, dict[str, list[Item]]] = {}
    for job in jobs:
        items = json.loads(job.kept.read_text("utf-8"))
        rows = found.setdefault(job.row.name, {}).setdefault(job.section, [])
        rows.extend([{}] * (job.part + (len(items) - 1) * job.parts + 1 - len(rows)) if items else [])
        for k, item in enumerate(items):
            rows[job.part + k * job.parts] = item
    return found
