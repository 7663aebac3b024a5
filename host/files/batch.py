"""Files through the device's own stages: what the Pi computes on its microphone, on a recording.

`denoise` and `classify` are the commands of that name. Nothing is computed here; reading, decimation, the
streaming int8 step and the screening are the device's.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from device.denoise.baseline import WindowedFile, classic_file
from device.denoise.stream import Denoiser
from device.dsp.resample import decimate, upsample
from device.ecg.files import find_ecgs
from device.errors import BadInput, StethopiError
from device.inference import bundle as bundles
from device.rates import WORKING_RATE_HZ
from device.screening.quality import troubles
from device.screening.screen import screen_recording
from device.screening.verdict import Findings
from device.sources.files import SUFFIXES, Channel, Sound, read_sound, write_sound
from device.text import one_line, printable
from device.walk import Walk, is_folder, walk
from host.files import ecg
from host.files.states import NAME as STATES_NAME
from host.files.states import HeartState, read_states

__all__ = [
    "Outcome",
    "classify",
    "clean_sound",
    "denoise",
    "find_recordings",
    "find_sounds",
    "screen_files",
    "screen_sound",
    "summary",
]

Job = TypeVar("Job")
Done = TypeVar("Done")


@lru_cache(maxsize=2)
def _bundle(folder: Path | None) -> bundles.Bundle:
    return bundles.load(folder)


@lru_cache(maxsize=1)
def _windowed(path: Path) -> WindowedFile:
    return WindowedFile(path)


@lru_cache(maxsize=4)
def _model(folder: Path | None, name: str) -> bundles.ModelEntry:
    return _bundle(folder).model(name)


def clean_sound(
    sound: Sound, entry: bundles.ModelEntry, strength: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Denoise a whole sound by the streaming step.

    Returns (raw, clean) at the working rate, float32, of equal lengths, both aligned with the input.
    """
    raw = decimate(sound.samples, sound.rate_hz)
    denoiser = Denoiser(entry, strength=strength)
    return raw, np.concatenate([denoiser.process(raw), denoiser.flush()])


def screen_sound(sound: Sound, entry: bundles.ModelEntry) -> tuple[np.ndarray, Findings]:
    """Screen a whole sound; returns it at the working rate, float32 (n,), with what was found."""
    raw = decimate(sound.samples, sound.rate_hz)
    return raw, screen_recording(raw, entry, gaps=sound.working_gaps)


def find_sounds(folder: Path) -> Walk:
    """The WAV and FLAC files below a folder. BadInput when there is none."""
    found = walk(folder, SUFFIXES, beside=(STATES_NAME,))
    if not found.files:
        why = "; ".join(found.unreadable) or found.left_out
        raise BadInput(
            f"{folder}: no WAV or FLAC file in this folder; give one that holds recordings"
            + (f" ({why})" if why else "")
        )
    return found


def _say(notes: Sequence[str]) -> None:
    for note in notes:
        print(printable(one_line(f"stethopi: {note}"), sys.stderr), file=sys.stderr)


def _told(folder: Path, found: Walk) -> int:
    """Say what was left out of a folder; the exit code so far."""
    _say(found.unreadable)
    if found.left_out:
        _say([f"{folder}: {found.left_out}"])
    return 2 if found.unreadable else 0


def _failed(path: Path, error: Exception) -> str:
    """One line for whatever a file did. A package that is missing is no file's fault, and is raised."""
    if os.environ.get("DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, StethopiError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        raise error
    if isinstance(error, MemoryError):
        return f"{path}: does not fit into this machine's memory; cut it into pieces"
    what = " ".join(str(error).split())[:200]
    return (
        f"{path}: could not be worked on ({type(error).__name__}{': ' if what else ''}{what}); "
        f"it may be damaged: record or copy it again"
    )


def _single_thread() -> None:
    # one process a core does the work; more threads in each would only get in each other's way
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


@contextmanager
def _children_deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started within leave Ctrl-C to this one, which ends them in order and says one line."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _each(
    work: Callable[[Job], Done],
    lost: Callable[[Job], Done],
    jobs: Sequence[Job],
    processes: int | None,
    what: str,
) -> Iterator[Done]:
    """`work` on every job, in order, one process a core; few jobs stay in this process. `lost`: what to give
    for a job whose process was killed."""
    from tqdm import tqdm

    workers = min(processes or os.cpu_count() or 1, len(jobs))
    bar = tqdm(total=len(jobs), desc=what, unit="file", file=sys.stderr, disable=None, delay=1.5, leave=False)
    if workers < 2 or len(jobs) < 4:
        for job in jobs:
            yield work(job)
            bar.update()
        bar.close()
        return
    _single_thread()
    try:
        yield from _in_pool(work, lost, jobs, workers, bar.update)
    finally:
        bar.close()


def _in_pool(
    work: Callable[[Job], Done],
    lost: Callable[[Job], Done],
    jobs: Sequence[Job],
    workers: int,
    done: Callable[[], object],
) -> Iterator[Done]:
    # spawned, not forked: an interpreter and its threads do not survive a fork
    context = multiprocessing.get_context("spawn")
    queue = deque(jobs)
    alone = False
    while queue:
        # a process that is killed takes its whole pool along: what was in flight is done again, one by one,
        # until the job that kills is found
        size = 1 if alone else workers
        with ProcessPoolExecutor(size, mp_context=context) as pool:
            try:
                # a bounded number in flight, so that an interrupted run stops at once
                with _children_deaf_to_ctrl_c():
                    ahead = 1 if alone else 4 * workers
                    pending = deque((job, pool.submit(work, job)) for job in islice(queue, ahead))
                while pending:
                    job, future = pending[0]
                    result = future.result()
                    pending.popleft()
                    queue.popleft()
                    yield result
                    done()
                    alone = False
                    if len(queue) > len(pending):
                        following = queue[len(pending)]
                        pending.append((following, pool.submit(work, following)))
            except BrokenProcessPool:
                if alone:
                    yield lost(queue.popleft())
                    done()
                alone = not alone
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _lies_in(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # a link that leads to itself: reading it will say so
        return False


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"{folder}: cannot be made a folder ({error.strerror}); choose one that you may write"
        ) from None


def _plot_names(names: Iterable[Path], folder: Path | None) -> list[Path | None]:
    """One PNG a recording below `folder`; those that would share one (a.wav and a.flac) stay apart."""
    taken: set[Path] = set()
    found: list[Path | None] = []
    for name in names:
        if folder is None:
            found.append(None)
            continue
        png, count = folder / name.with_suffix(".png"), 1
        while png in taken:
            count += 1
            png = folder / name.with_name(f"{name.stem}-{count}.png")
        taken.add(png)
        found.append(png)
    return found


# --- denoise --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _DenoiseJob:
    source: Path
    target: Path
    plot: Path | None
    strength: float
    bundle: Path | None
    states: Path | None = None
    kind: str = "sound"
    channel: Channel = 1
    rate_hz: float | None = None
    model: Path | None = None
    """A classic U-Net's file instead of the bundle's denoiser."""


@dataclass(frozen=True)
class Outcome:
    """What came of one file."""

    path: Path
    notes: tuple[str, ...] = ()
    error: str | None = None
    """Why it could not be read, with the remedy."""
    code: int = 0
    """What the command ends with for this file alone."""
    findings: Findings | None = None


def _lost(job: _DenoiseJob | _ClassifyJob) -> Outcome:
    path = job.source if isinstance(job, _DenoiseJob) else job.path
    return Outcome(
        path,
        code=2,
        error=f"{path}: its process was killed, most likely for want of memory; "
        f"give fewer --processes, or cut it into pieces",
    )


def _states_of(job: _DenoiseJob) -> tuple[list[HeartState], list[str]]:
    """What is known of the heart's states in a recording, and what to say about it."""
    beside = job.source.parent / STATES_NAME
    if job.states is None and not beside.is_file():
        return [], []
    table = job.states or beside
    try:
        states = read_states(table).get(job.source.stem, [])
    except BadInput as error:
        if job.states is not None:
            raise
        return [], [f"{error}; S1 and S2 are not drawn"]
    if not states and job.states is not None:
        return [], [f"{job.source}: not in {table}; S1 and S2 are not drawn"]
    return states, []


def _clipped(target: Path, output: np.ndarray, sound: Sound) -> list[str]:
    """Floating point may reach beyond full scale; FLAC may not."""
    over = int(np.count_nonzero(np.abs(output) > 1.0))
    if not sound.floating or target.suffix.lower() != ".flac" or not over:
        return []
    return [
        f"{target}: {over} samples reach beyond full scale and are clipped there; "
        f"choose a name that ends in .wav to keep them"
    ]


def _denoise_one(job: _DenoiseJob) -> Outcome:
    notes: list[str] = []
    try:
        if job.kind == "ecg":
            notes = ecg.denoise_file(
                job.source,
                job.target,
                _model(job.bundle, "ecg"),
                job.strength,
                job.plot,
                channel=job.channel,
                rate_hz=job.rate_hz,
            )
            return Outcome(job.source, tuple(notes))
        sound = read_sound(job.source, channel=job.channel)
        if job.model:
            raw = decimate(sound.samples, sound.rate_hz)
            clean = raw + np.float32(job.strength) * (_windowed(job.model)(raw) - raw)
        else:
            raw, clean = clean_sound(sound, _model(job.bundle, "denoiser"), job.strength)
        output = (
            clean if sound.rate_hz == WORKING_RATE_HZ else upsample(clean, sound.rate_hz, len(sound.samples))
        )
        # 8 bit would add more noise than was taken away
        write_sound(job.target, output, sound.rate_hz, like=replace(sound, bits=max(sound.bits, 16)))
        if job.plot:
            from host.files import plots

            states, notes = _states_of(job)
            plots.before_after(job.plot, raw, clean, title=job.source.name, states=states)
        notes += _clipped(job.target, output, sound)
    except Exception as error:  # whatever one file does, the others go on
        return Outcome(job.source, error=_failed(job.source, error), code=getattr(error, "exit_code", 2))
    return Outcome(job.source, (*sound.notes, *notes))


def denoise(
    source: Path,
    target: Path,
    *,
    plot: Path | None = None,
    strength: float = 1.0,
    bundle: Path | None = None,
    processes: int | None = None,
    states: Path | None = None,
    kind: str = "sound",
    model: str | None = None,
    channel: Channel = 1,
    rate_hz: float | None = None,
) -> int:
    """Clean a file, or every WAV and FLAC file of a folder into another folder under the same names. With
    `kind` ecg: a WFDB record, a WAV, FLAC or CSV, or every one of a folder.

    `plot`: a PNG file, or a folder of them when `source` is one. `states`: a table of where S1 and S2 lie,
    for the plot; None: a states.csv beside the recording, if there is one. `model`: "unet-classic", or
    "unet-classic:FILE", for the network that ours is measured against. `channel`: of a sound that has
    several, from 1, or "loudest". `rate_hz`: of an ECG whose table has neither times nor a rate. Returns the
    exit code: 0, or 2 when a file could not be read (the others are done all the same).
    """
    if states is not None:
        if plot is None:
            raise BadInput("--states: is drawn into the picture; give --plot PNG too")
        read_states(states)  # a broken table is told once, before any work
    if rate_hz is not None and kind != "ecg":
        raise BadInput("--rate: is for a table without times; give --kind ecg, or leave it out")
    other = classic_file(model) if model else None
    if other:
        if kind != "sound":
            raise BadInput(f"--model {model}: cleans heart sound only; leave it out for --kind {kind}")
        _windowed(other)
    code = 0
    if is_folder(source):
        if target.exists() and not target.is_dir():
            raise BadInput(f"{target}: a file, but {source} is a folder; give a folder for the output")
        if source.resolve() == target.resolve():
            raise BadInput(
                f"{target}: the output folder is the input folder; give another, inputs are never changed"
            )
        found = find_ecgs(source) if kind == "ecg" else find_sounds(source)
        code = _told(source, found)
        inside = target.resolve()
        paths = [path for path in found.files if not _lies_in(path, inside)]
        if not paths:
            raise BadInput(f"{source}: its only recordings lie in the output folder {target}; give another")
        if plot:
            _make_folder(plot)
        names = [path.relative_to(source) for path in paths]
        jobs = [
            _DenoiseJob(path, target / name, png, strength, bundle, states, kind, channel, rate_hz, other)
            for path, name, png in zip(paths, names, _plot_names(names, plot), strict=True)
        ]
    else:
        if is_folder(target):
            target = target / source.name
        if kind == "ecg":
            ecg.check_target(source, target)
        elif target.suffix.lower() not in SUFFIXES:
            raise BadInput(f"{target}: the output must end in {' or '.join(SUFFIXES)}")
        if target.exists() and source.exists() and target.samefile(source):
            raise BadInput(f"{target}: the output is the input; give another name, inputs are never changed")
        if plot and plot.suffix.lower() != ".png":
            raise BadInput(f"{plot}: pictures are written as PNG; give a name that ends in .png")
        jobs = [_DenoiseJob(source, target, plot, strength, bundle, states, kind, channel, rate_hz, other)]
    if kind == "ecg":
        _model(bundle, "ecg")
    _bundle(bundle)  # a broken bundle is told once, before any work
    for outcome in _each(_denoise_one, _lost, jobs, processes, "denoise"):
        _say(outcome.notes)
        if outcome.error:
            _say([outcome.error])
            code = 2 if len(jobs) > 1 else max(code, outcome.code)
    return code


# --- classify -------------------------------------------------------------------------------------


_MOST_TROUBLES = 3
"""Told in a line for people; --json has them all."""


@dataclass(frozen=True)
class _ClassifyJob:
    path: Path
    plot: Path | None
    bundle: Path | None
    channel: Channel = 1


def _finite(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)


def _classify_one(job: _ClassifyJob) -> Outcome:
    try:
        sound = read_sound(job.path, channel=job.channel)
        raw, found = screen_sound(sound, _model(job.bundle, "classifier"))
        if job.plot:
            from host.files import plots

            plots.screening(job.plot, raw, found, title=job.path.name)
    except Exception as error:  # whatever one file does, the others go on
        return Outcome(job.path, error=_failed(job.path, error))
    return Outcome(job.path, tuple(sound.notes), findings=found)


def summary(found: Findings) -> dict[str, Any]:
    """The findings in one recording as plain values, fit for JSON; probabilities to four places."""
    return {
        "label": found.label.value,
        "probability": _finite(found.probability),
        "murmur_probability": _finite(found.murmur),
        "quality": _finite(found.quality),
        "reasons": list(found.reasons),
        "troubles": [str(trouble) for trouble in troubles((w.start, w.reasons) for w in found.windows)],
        "windows": len(found.windows),
        "window_probabilities": [_finite(w.probability) for w in found.windows],
    }


@dataclass
class Found:
    """What files and folders hold that can be screened."""

    files: list[Path] = field(default_factory=list)
    """The files given, and the WAV and FLAC files of the folders given."""
    empty: list[Outcome] = field(default_factory=list)
    """Of each folder without any, one that says so."""
    unreadable: list[str] = field(default_factory=list)
    """A line for each folder that could not be looked into."""
    left_out: list[str] = field(default_factory=list)
    """A line for each folder that holds files of other kinds."""


def find_recordings(inputs: Sequence[Path]) -> Found:
    """The recordings among files and folders."""
    found = Found()
    for path in inputs:
        try:
            if not is_folder(path):
                found.files.append(path)
                continue
            inside = find_sounds(path)
        except BadInput as error:
            found.empty.append(Outcome(path, error=str(error)))
            continue
        found.files += inside.files
        found.unreadable += inside.unreadable
        if inside.left_out:
            found.left_out.append(f"{path}: {inside.left_out}")
    return found


def screen_files(
    paths: Sequence[Path],
    *,
    plot: Path | None = None,
    bundle: Path | None = None,
    processes: int | None = None,
    channel: Channel = 1,
) -> Iterator[Outcome]:
    """Screen files, in their order; what cannot be read is an outcome with its error.

    `plot`: a folder for pictures. `bundle`: its folder; a broken one is told before any work. `processes`:
    one a core by default. `channel`: as in `denoise`.
    """
    if plot:
        _make_folder(plot)
    _bundle(bundle)
    pictures = _plot_names([Path(path.name) for path in paths], plot)
    jobs = [_ClassifyJob(path, png, bundle, channel) for path, png in zip(paths, pictures, strict=True)]
    return _each(_classify_one, _lost, jobs, processes, "classify")


def classify(
    inputs: Sequence[Path],
    *,
    as_json: bool = False,
    plot: Path | None = None,
    bundle: Path | None = None,
    processes: int | None = None,
    channel: Channel = 1,
) -> int:
    """Screen files and folders; print a line a recording. `channel`: as in `denoise`.

    Returns the exit code: 0, or 2 when a file could not be read (the others are done all the same).
    """
    inside = find_recordings(inputs)
    outcomes = screen_files(inside.files, plot=plot, bundle=bundle, processes=processes, channel=channel)
    _say(inside.unreadable)
    _say(inside.left_out)
    code = 2 if inside.unreadable else 0
    if not as_json and inside.files:
        print(f"{'verdict':<9} {'p(abnormal)':>11} {'quality':>7}  recording")
    for outcome in chain(inside.empty, outcomes):
        _say(outcome.notes)
        if outcome.error:
            code = 2
            _say([outcome.error])
        found = outcome.findings and summary(outcome.findings)
        if as_json:
            shown = {"file": str(outcome.path), **(found or {"error": outcome.error})}
            print(_json(shown), flush=True)
        elif found:
            print(printable(one_line(_line(outcome.path, found)), sys.stdout), flush=True)
    if not as_json and inside.files:
        print("It screens; it does not diagnose. Not a medical device.", file=sys.stderr)
    return code


def _json(shown: dict[str, Any]) -> str:
    """One line of JSON; what stdout cannot hold, and bytes of a name that are no text, escaped as it asks."""
    text = json.dumps(shown, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(shown)
    return text


def _line(path: Path, result: dict[str, Any]) -> str:
    def number(value: float | None) -> str:
        return "unknown" if value is None else f"{value:.2f}"

    # a trouble says when; a reason that is one of them need not be said twice
    said = [r for r in result["reasons"] if not any(t.startswith(r) for t in result["troubles"])]
    said += result["troubles"][:_MOST_TROUBLES]
    if len(result["troubles"]) > _MOST_TROUBLES:
        said.append(f"{len(result['troubles']) - _MOST_TROUBLES} more")
    reasons = f"  ({', '.join(said)})" if said else ""
    probability, quality = number(result["probability"]), number(result["quality"])
    return f"{result['label']:<9} {probability:>11} {quality:>7}  {path}{reasons}"
