"""The sound's way, connected when the source is open: only then its rate is known."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from device import __version__
from device.contract.exam import Exam
from device.daemon.from_settings import plan_of
from device.daemon.judge_thread import JudgeThread
from device.daemon.models import Models
from device.daemon.parts import Parts
from device.daemon.sound_thread import SoundThread
from device.daemon.source_thread import Blocks
from device.ecg.run import LeadRun
from device.ecg.sources import open_ecg
from device.exam.examiner import Examiner, ring_seconds
from device.exam.identity import Identity, LiveSink
from device.exam.result import delay_of
from device.panel.light import Light
from device.sources.base import Source
from device.stream.chain import ChainTimes, Hearer, SoundChain
from device.stream.intake import Intake
from device.stream.ring import Ring
from device.stream.timeline import Nominal, Timeline
from device.stream.waveform import LiveWaves

if TYPE_CHECKING:
    from device.settings.settings import Settings

__all__ = ["SoundWiring"]

log = logging.getLogger("daemon")


class SoundWiring:
    """Connects what lies behind the source."""

    def __init__(
        self,
        settings: Settings,
        models: Models,
        parts: Parts,
        blocks: Blocks,
        *,
        fast: bool,
        stop: threading.Event,
        over: threading.Event,
        spawn: Callable[[str, Callable[[], None]], None],
        live: LiveSink,
        put: Callable[[Exam], None],
    ) -> None:
        """parts: those that are there already; what is made here is added. blocks, fast, stop, over: as of
        the threads. spawn: starts a thread. live, put: of the examiner.
        """
        self._settings = settings
        self._models = models
        self._parts = parts
        self._blocks = blocks
        self._fast = fast
        self._stop = stop
        self._over = over
        self._spawn = spawn
        self._live = live
        self._put = put

    def connect(self, source: Source) -> None:
        """Everything behind the source, which is open; then the threads begin. StethopiError when the ear's
        output or the ECG cannot be opened."""
        settings, parts, models = self._settings, self._parts, self._models
        ring = Ring(ring_seconds(settings.exam.max_s))
        intake, times = Intake(source.rate_hz, ring), ChainTimes()
        lead_times = [models.lead.step_times] if models.lead is not None else []
        examiner = self._examiner(source, models, ring, intake, times)
        parts.timers = [
            *(times.decimate, times.listen, models.denoiser.step_times, *lead_times),
            *(examiner.recording_times, examiner.judging_times),
        ]
        for note in getattr(source, "notes", []):
            log.warning("%s", note)
        log.info(
            "listening to %s at %d Hz, bundle %s, %.1f ms from sample to clean sound",
            *(source.name, source.rate_hz, models.version, examiner.identity.delay.total_ms),
        )
        parts.lamp.show(Light.READY)
        listener = parts.listening.open(models.denoiser, source.rate_hz)
        if not self._fast:
            parts.source.tap = listener.tap
        hearers: dict[str, list[Hearer]] = {
            "none": [],
            "file": [listener],
            "device": [listener, parts.feedback],
        }
        parts.chain = SoundChain(
            intake,
            examiner.feed,
            models.denoiser,
            hearers[parts.listening.now.output],
            LiveWaves(lambda: examiner.exam_id, lambda wave: self._live("wave", wave)),
            times,
        )
        parts.source.times = Nominal(source.rate_hz) if self._fast else Timeline(source.rate_hz)
        self._open_lead(parts.source.times, models, examiner, ring)
        sound = SoundThread(
            *(self._blocks, parts.chain, examiner, listener),
            rate_hz=source.rate_hz,
            shedder=parts.shedder,
            source=parts.source,
            stop=self._stop,
            over=self._over,
            fast=self._fast,
        )
        parts.judge = JudgeThread(examiner, models.judge, parts.shedder)
        parts.controls.examiner = parts.examiner = examiner
        self._spawn("sound", sound.run)
        self._spawn("judge", parts.judge.run)

    def _examiner(
        self, source: Source, models: Models, ring: Ring, intake: Intake, times: ChainTimes
    ) -> Examiner:
        settings, parts, denoiser = self._settings, self._parts, models.denoiser
        assert parts.outbox is not None
        examiner = Examiner(
            Identity(
                fleet=settings.device.fleet,
                device=settings.device.id,
                software=__version__,
                bundle=models.version,
                source=source.name[:200],
                source_rate_hz=source.rate_hz,
                delay=delay_of(intake.decimator.delay_s, denoiser.hop_s, denoiser.look_ahead_s),
            ),
            ring,
            models.judge,
            models.meta,
            parts.outbox,
            parts.clock,
            timers=[
                times.decimate,
                denoiser.step_times,
                times.listen,
                *([models.lead.step_times] if models.lead is not None else []),
            ],
            dropped=lambda: parts.dropped,
            live=self._live,
            put=self._put,
            contact=models.contact,
            fast=self._fast,
        )
        if settings.exam.autostart:
            examiner.autostart = plan_of(settings)
            examiner.autostart_left = settings.exam.exams or -1
        return examiner

    def _open_lead(self, times: Timeline | Nominal, models: Models, examiner: Examiner, ring: Ring) -> None:
        """The ECG beside the sound, where one is asked for."""
        settings, shedder = self._settings, self._parts.shedder
        found = open_ecg(settings.ecg, pace="fast" if self._fast else "real")
        if found is None:
            return
        lead = self._parts.lead = LeadRun(
            found,
            settings.ecg,
            times,
            ring,
            seconds=ring_seconds(settings.exam.max_s),
            cleaner=models.lead,
            exam=lambda: examiner.exam_id,
            tell=lambda message: self._live("ecg", message),
            shed=lambda: shedder.now,
        )
        examiner.lead = lead.track
        log.info("ECG from %s at %d Hz", found.name, found.rate_hz)
        self._spawn("ecg", lead.run)
