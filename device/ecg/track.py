"""The ECG beside the sound: watched over, at its working rate, aligned with the sound by both clocks.

    source ── watch ── 360 Hz ── ring ──┬── recorder of a site (not denoised) ── FLAC, place and true rate
                                        └── denoiser ── live trace

Its samples stay where its converter took them. Two lines through (samples, monotonic time), one of the
sound, one of the ECG, say which belong together: `Track.sound_of`, `Track.ecg_of`. A missing lead never
stops the sound: nothing here is waited for by it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from device.arrays import Samples
from device.contract.exam import EcgTrack, SoundFile
from device.contract.vocabulary import chunk_count
from device.dsp.resample import Resampler, to_working
from device.ecg.base import FULL_MV, EcgBlock, EcgSource
from device.ecg.lead import LONGEST_DOUBT_S, LOST, Mark, Watch, not_cleaned
from device.errors import BadInput, StethopiError
from device.rates import ECG_RATE_HZ, WORKING_RATE_HZ
from device.storage.recorder import Recorder
from device.stream.aligned import Cleaner
from device.stream.intake import Intake
from device.stream.ring import Ring
from device.stream.timeline import Nominal, Timeline

if TYPE_CHECKING:
    from device.inference.bundle import ModelEntry

__all__ = ["ECG_RATE_HZ", "Track", "TrackRecorder", "clean_track", "open_cleaner"]

log = logging.getLogger("ecg")


_MARGIN = ECG_RATE_HZ // 20
_DOUBT = round(LONGEST_DOUBT_S * ECG_RATE_HZ)

_PATIENCE_S = 2.0
"""How long the end of a site waits for the ECG to come to it too."""


def open_cleaner(entry: ModelEntry, strength: float = 1.0) -> Cleaner:
    """The streaming denoiser of a bundle's model `ecg`, mV in, mV out, at 360 Hz."""
    from device.denoise.stream import Denoiser

    stage = Denoiser(entry, strength)
    if stage.rate_hz != ECG_RATE_HZ:
        raise StethopiError(f"{entry.tflite}: made for {stage.rate_hz} Hz, the ECG comes at {ECG_RATE_HZ}")
    stage.step_times.name = "denoise ecg"
    return stage


def clean_track(
    x: Samples, gaps: Iterable[tuple[int, int]], entry: ModelEntry, strength: float = 1.0
) -> Samples:
    """A whole lead at 360 Hz, float32 (n,) in mV, denoised as the stream does it; 0 where it is not to be
    shown (device.ecg.lead.not_cleaned).
    """
    gaps = list(gaps)
    heard = np.array(x, np.float32)
    for start, end in gaps:
        heard[start:end] = np.nan  # the denoiser holds its breath there
    stage = open_cleaner(entry, strength)
    clean: Samples = np.concatenate([stage.process(heard), stage.flush()])
    for start, end in not_cleaned(gaps, ECG_RATE_HZ):
        clean[start:end] = 0.0
    return clean


class Track:
    """One lead while it runs. `accept` is for one thread, the rest for any.

    sound: when the sound's samples were there, at its source's rate. delay_s: by which the amplifier is
    late.
    """

    def __init__(
        self, source: EcgSource, sound: Timeline | Nominal, seconds: float, delay_s: float = 0.0
    ) -> None:
        self.name = source.name
        self.source_rate_hz = source.rate_hz
        self.ring = Ring(seconds, ECG_RATE_HZ)
        self.state = "unknown"
        """One of messages.LEAD_WORDS."""
        self.over = False
        """No more will come."""
        self.times: Timeline | Nominal = (
            Nominal(source.rate_hz) if isinstance(sound, Nominal) else Timeline(source.rate_hz)
        )
        self._sound = sound
        self._delay_s = delay_s
        self._watch = Watch(source.rate_hz, source.rails_mv)
        self._intake = Intake(source.rate_hz, self.ring, Resampler(source.rate_hz, ECG_RATE_HZ))
        self._next = 0
        self._marks: deque[Mark] = deque(maxlen=5000)
        self._lock = threading.RLock()
        self._recorders: list[TrackRecorder] = []

    # ---- alignment

    def sound_of(self, index: float) -> float | None:
        """The 2-kHz sample of the sound that belongs to an ECG sample of 360 Hz; both may lie between two."""
        when = self.times.at(index * self.source_rate_hz / ECG_RATE_HZ)
        if when is None:
            return None
        found = self._sound.index_at(when - self._delay_s)
        return None if found is None else found * WORKING_RATE_HZ / self._sound.rate_hz

    def ecg_of(self, sample: float) -> float | None:
        """The ECG sample of 360 Hz that belongs to a 2-kHz sample of the sound."""
        when = self._sound.at(sample * self._sound.rate_hz / WORKING_RATE_HZ)
        if when is None:
            return None
        found = self.times.index_at(when + self._delay_s)
        return None if found is None else found * ECG_RATE_HZ / self.source_rate_hz

    @property
    def spread_s(self) -> float | None:
        """How far both clocks lie from their lines; None while it cannot be told."""
        lines = (self.times.line, self._sound.line)
        if any(line is None or line.spread_s is None for line in lines):
            return None
        return sum(line.spread_s or 0.0 for line in lines if line is not None)

    @property
    def drift_ppm(self) -> float | None:
        """By how much the ECG's clock goes faster than the sound's; None while it cannot be told."""
        ecg, sound = self.times.line, self._sound.line
        if ecg is None or sound is None or ecg.spread_s is None or sound.spread_s is None:
            return None
        return 1e6 * (
            ecg.true_rate_hz / self.times.rate_hz / (sound.true_rate_hz / self._sound.rate_hz) - 1.0
        )

    # ---- the ECG's thread

    def accept(self, block: EcgBlock) -> Samples:
        """Take a block; what of it reached the ring, float32 (m,) in mV."""
        with self._lock:
            missing = block.index - self._next
            if missing > 0:
                self._watch.skip()
                self._keep([Mark(self._next, block.index, LOST)])
            x, marks = self._watch.accept(block.samples, block.index, block.off)
            self.state = self._watch.state
            if isinstance(self.times, Timeline) and len(x):
                self.times.note(block.index + len(x), block.monotonic_s)
            self._next = block.index + len(x)
            nowhere = np.zeros(len(x), bool)
            made = self._intake.accept(replace(block, samples=x, full=nowhere))
            self._keep(marks)
            for recorder in self._recorders:
                recorder.feed()
        return made

    def _keep(self, marks: list[Mark]) -> None:
        for mark in marks:
            start, end = to_working(mark.start, mark.end, self.source_rate_hz, ECG_RATE_HZ)
            self.ring.blank(start, end)
            last = self._marks[-1] if self._marks else None
            if last is not None and last.why == mark.why and start <= last.end:
                self._marks[-1] = Mark(min(last.start, start), max(last.end, end), mark.why)
            else:
                self._marks.append(Mark(start, end, mark.why))

    def gone(self) -> None:
        """The converter cannot be reached, for now."""
        self.state = "gone"

    def finish(self) -> Samples:
        """No more will come: the rest, float32 (m,)."""
        with self._lock:
            self.over = True
            return self._intake.finish()

    # ---- who asks

    def reasons(self, start: int, end: int) -> list[str]:
        """Why samples [start, end) of 360 Hz are not believed, the most frequent first."""
        with self._lock:
            marks = list(self._marks)
        found: dict[str, int] = {}
        for mark in marks:
            inside = min(mark.end, end) - max(mark.start, start)
            if inside > 0:
                found[mark.why] = found.get(mark.why, 0) + inside
        return sorted(found, key=lambda why: -found[why])

    def record(self, folder: Path, name: str, sample: int) -> TrackRecorder:
        """Record beside a site of the sound that begins with 2-kHz sample `sample`."""
        recorder = TrackRecorder(self, folder, name, sample)
        with self._lock:
            self._recorders.append(recorder)
            recorder.feed()
        return recorder

    def let_go(self, recorder: TrackRecorder) -> None:
        """This recorder is fed no more."""
        with self._lock:
            if recorder in self._recorders:
                self._recorders.remove(recorder)

    @property
    def lock(self) -> threading.RLock:
        """Held while blocks are taken and recorders fed."""
        return self._lock


class TrackRecorder:
    """The ECG of one site on disk, spooled as the sound is. A disk that does not take it is told once; the
    sound goes on without it.
    """

    def __init__(self, track: Track, folder: Path, name: str, sample: int) -> None:
        self._track = track
        self._folder, self._name = folder, name
        self._sample = sample
        self._recorder: Recorder | None = None
        self._first: int | None = None  # ECG sample that is the first of the file
        self._fed = 0  # ECG sample up to which the file has it
        self._failed = False

    def feed(self, to: int | None = None) -> None:
        """Write what is beyond doubt (or all up to ECG sample `to`). Under the track's lock."""
        if self._failed:
            return
        track = self._track
        if self._first is None:
            begins = track.ecg_of(self._sample)
            if begins is None:
                return
            first = int(np.floor(begins)) - _MARGIN
            # a lead that begins with the sound has nothing before it, and that is no gap
            self._first = self._fed = max(first, 0) if begins > -_MARGIN else first
        end = track.ring.end - _DOUBT if to is None else min(to, track.ring.end)
        if end <= self._fed:
            return
        try:
            if self._recorder is None:
                self._recorder = Recorder(self._folder, self._name, ECG_RATE_HZ)
            before = min(max(track.ring.oldest, 0), end)
            self._nothing(before)
            if end > self._fed:
                x = track.ring.read(self._fed, end - self._fed)
                self._recorder.append(x / np.float32(FULL_MV))
                for gap in track.ring.gaps(self._fed, end):
                    self._recorder.mark_gap(gap.start - self._first, gap.end - self._first)
                self._fed = end
        except StethopiError as error:
            log.error("the ECG cannot be recorded, the sound goes on: %s", error)
            self._failed = True
            self.close()

    def _nothing(self, to: int) -> None:
        """Up to ECG sample `to` nothing came: marked zeros."""
        if to <= self._fed:
            return
        assert self._recorder is not None and self._first is not None
        self._recorder.append(np.zeros(to - self._fed, np.float32))
        self._recorder.mark_gap(self._fed - self._first, to - self._first)
        self._fed = to

    def finish(self, samples: int, chunk_size: int) -> tuple[EcgTrack, Path] | None:
        """The site has `samples` of sound: its ECG and where that lies; None when there is none.

        Waits a moment for the ECG to come to the site's end, then takes what is there.
        """
        track = self._track
        # a file that is read as fast as it goes may still be behind
        patience_s = _PATIENCE_S if isinstance(track.times, Timeline) else 10 * _PATIENCE_S
        deadline = time.monotonic() + patience_s
        wanted = self._end_of(samples)
        while not track.over and track.state != "gone" and time.monotonic() < deadline:
            if wanted is not None and track.ring.end >= wanted:
                break
            time.sleep(0.01)
            wanted = self._end_of(samples)
        with track.lock:
            track.let_go(self)
            if wanted is None or track.ring.end == 0:
                self.discard()
                return None
            self.feed(wanted)
            first, recorder = self._first, self._recorder
            if self._failed or recorder is None or first is None or wanted <= first:
                self.discard()
                return None
            try:
                self._nothing(wanted)
                found = recorder.finish(wanted - first)
            except StethopiError as error:
                if not isinstance(error, BadInput):
                    log.error("the ECG cannot be recorded, the sound goes on: %s", error)
                recorder.close()
                return None
            start, end = track.sound_of(first), track.sound_of(wanted)
            spread_s, reasons = track.spread_s, track.reasons(first, wanted)
        if start is None or end is None or end <= start:
            found.path.unlink(missing_ok=True)
            return None
        gaps = tuple((int(a), int(b)) for a, b in found.gaps)
        made = EcgTrack(
            rate_hz=ECG_RATE_HZ,
            true_rate_hz=round((wanted - first) * WORKING_RATE_HZ / (end - start), 6),
            start_s=round((start - self._sample) / WORKING_RATE_HZ, 6),
            spread_ms=None if spread_s is None else round(1e3 * spread_s, 3),
            samples=found.samples,
            clipped=tuple((int(a), int(b)) for a, b in found.clipped),
            gaps=gaps,
            reasons=tuple(reasons or ([LOST] if gaps else [])),
            sound=SoundFile(
                found.path.name,
                found.size,
                found.sha256,
                chunk_size,
                chunk_count(found.size, chunk_size),
            ),
        )
        return made, found.path

    def _end_of(self, samples: int) -> int | None:
        end = self._track.ecg_of(self._sample + samples)
        return None if end is None else int(np.ceil(end)) + _MARGIN

    def close(self) -> None:
        """Stop without finishing: what was heard stays as a partial recording."""
        self._track.let_go(self)
        if self._recorder is not None:
            self._recorder.close()

    def discard(self) -> None:
        """Stop and throw away what was heard."""
        self._track.let_go(self)
        if self._recorder is not None:
            self._recorder.discard()
