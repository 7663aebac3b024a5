"""ECG recordings through the device's own stages: `stethopi denoise --kind ecg`.

Each lead goes from its rate to the model's, through the streaming step, and back, aligned to the sample.
What may not be believed (lead off, flat line, no numbers) stays in the output as it was in the input, and
is said.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from device.dsp.resample import resample, to_working
from device.ecg.files import Ecg, is_record, read_ecg, write_ecg
from device.ecg.lead import Mark, believed, not_cleaned
from device.ecg.r_peaks import r_peaks
from device.ecg.track import clean_track
from device.errors import BadInput
from device.inference.bundle import ModelEntry
from device.rates import ECG_RATE_HZ
from device.sources.files import Channel
from device.spans import merged

__all__ = ["check_target", "clean_lead", "denoise_file"]

_SOUND = (".wav", ".wave", ".flac")
_TABLE = (".csv", ".tsv", ".txt")
_EDF = (".edf",)


def check_target(source: Path, target: Path) -> None:
    """BadInput when the output would be of another kind, or the input itself."""
    for kind, suffixes in (("WAV or FLAC", _SOUND), ("CSV", _TABLE), ("EDF", _EDF)):
        if source.suffix.lower() in suffixes and target.suffix.lower() not in suffixes:
            raise BadInput(
                f"{target}: must be {kind}, as {source.name} is; end it in {' or '.join(suffixes)}"
            )
    if is_record(source) and not is_record(target):
        raise BadInput(f"{target}: must be a WFDB record, as {source.name} is; leave out the extension")
    names = [p.with_name(p.name.removesuffix(".hea").removesuffix(".dat")) for p in (source, target)]
    if names[0].resolve() == names[1].resolve():
        raise BadInput(f"{target}: the output is the input; give another name, inputs are never changed")


def clean_lead(
    x: np.ndarray, rate_hz: int, entry: ModelEntry, strength: float = 1.0, marks: Iterable[Mark] = ()
) -> np.ndarray:
    """One lead, float32 (n,) in mV at any rate, denoised by the streaming step, of the same length and
    alignment. What is marked, and what follows it until the denoiser has settled, stays as it is in `x`."""
    gaps = list(merged((mark.start, mark.end) for mark in marks))
    bridged = np.array(x, np.float32)
    for start, end in gaps:  # a cliff would ring in the filters
        bridged[start:end] = np.linspace(x[max(start - 1, 0)], x[min(end, len(x) - 1)], end - start)
    there = resample(bridged, rate_hz, ECG_RATE_HZ)
    spans = [to_working(start, end, rate_hz, ECG_RATE_HZ) for start, end in gaps]
    clean = clean_track(there, spans, entry, strength)
    back = resample(clean, ECG_RATE_HZ, rate_hz, len(x))
    for start, end in not_cleaned(gaps, rate_hz):
        back[start:end] = x[start:end]
    return back


def denoise_file(
    source: Path,
    target: Path,
    entry: ModelEntry,
    strength: float = 1.0,
    plot: Path | None = None,
    *,
    channel: Channel = 1,
    rate_hz: float | None = None,
) -> list[str]:
    """Clean a recording into another of its kind, rate, length and alignment; what is to be said of it.

    plot: a PNG of its first lead. channel, rate_hz: as in `read_ecg`. Raises BadInput.
    """
    ecg = read_ecg(source, channel=channel, rate_hz=rate_hz)
    notes = list(ecg.notes)
    written: list[np.ndarray] = []
    drawn = False
    problems: list[BadInput] = []
    for lead in ecg.leads:
        if not lead.voltage:
            written.append(lead.samples)
            continue
        what = f"{ecg.path or source}: {lead.name}" if len(ecg.leads) > 1 else f"{ecg.path or source}"
        try:
            known, marks = believed(what, lead.samples, ecg.rate_hz, lead.gaps, lead.rails_mv)
        except BadInput as error:
            problems.append(error)
            written.append(lead.samples)
            continue
        notes += _told(what, marks, ecg)
        clean = clean_lead(known, ecg.rate_hz, entry, strength, marks)
        for mark in marks:
            clean[mark.start : mark.end] = lead.samples[mark.start : mark.end]
        written.append(clean)
        if plot is not None and not drawn:
            drawn = True
            _draw(plot, known, clean, ecg.rate_hz, marks, source.name)
    if problems and len(problems) == sum(lead.voltage for lead in ecg.leads):
        raise problems[0]
    notes += [f"{problem}; this lead is handed on as it is" for problem in problems]
    write_ecg(target, written, ecg)
    return notes


def _told(what: str, marks: list[Mark], ecg: Ecg) -> list[str]:
    """A sentence for each reason that the reader has not given yet."""
    found = []
    for why in sorted({mark.why for mark in marks} - {"no numbers"}):
        spans = [mark for mark in marks if mark.why == why]
        seconds = sum(mark.end - mark.start for mark in spans) / ecg.rate_hz
        at = spans[0].start / ecg.rate_hz
        found.append(
            f"{what}: {why} for {seconds:.1f} s, first at {at:.1f} s; left as it is, nothing is invented"
        )
    return found


def _draw(
    path: Path, raw: np.ndarray, clean: np.ndarray, rate_hz: int, marks: list[Mark], title: str
) -> None:
    from host.files import plots

    gaps = [(mark.start, mark.end) for mark in marks]
    plots.ecg_before_after(path, raw, clean, rate_hz, r_peaks(clean, rate_hz, gaps), gaps, title)
