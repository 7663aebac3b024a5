"""The daemon: wires the rooms, owns the threads, the budget and the shedding. What each room does is its
own.

    source ──queue──▶ sound ──ring──▶ judge ──outbox──▶ uplink
    (copies)          ring, recording,  classifier, FLAC,     MQTT
                      denoise, listen,  verdict, put
                      waveform
    panel, main: button and lights; health, watch over silence, signals

The queue from source to sound is bounded; what does not fit in real time is a marked gap. The sound thread
never waits for the judge, except for a file that is read as fast as it goes. When late it leaves out, in
this order, waveform, classification rate, denoising; never the recording.
"""

from __future__ import annotations

import gc
import logging
import queue
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from device import __version__
from device.clock import Clock, SystemClock
from device.contract.control import Answer, Command, Health, Listen, Listening, State
from device.contract.exam import Exam
from device.contract.live import LiveExam
from device.contract.topics import Address
from device.contract.vocabulary import Moment, is_subject_code
from device.daemon.from_settings import broker_of, plan_of
from device.daemon.health import resident_bytes, switch_off, temperature_c
from device.daemon.models import Models, load_models
from device.daemon.service import Notifier, Signs, Watchdog
from device.delivery.uplink import Pace, Uplink
from device.ecg.run import LeadRun
from device.ecg.sources import open_ecg
from device.errors import SourceGone, StethopiError
from device.exam.examiner import Examiner, plan_for, ring_seconds
from device.exam.identity import Identity, WindowJudge
from device.exam.plan import Phase, Plan
from device.exam.result import delay_of
from device.exam.subjects import SubjectList, Subjects
from device.listening.feedback import FeedbackWatch
from device.listening.outputs import Listener, open_listener
from device.panel.button_actions import FLASH_S, Guide
from device.panel.keypad import Keypad
from device.panel.lamp import Lamp
from device.panel.light import Light
from device.panel.panels import Panel, open_panel
from device.rates import HOP, HOP_S
from device.screening import quality
from device.settings.specs import is_live
from device.sources import open_source
from device.sources.base import Block, Source
from device.storage.outbox import Outbox
from device.stream.aligned import AlignedStream, Cleaner
from device.stream.intake import Intake
from device.stream.ring import Ring
from device.stream.shedding import Shed, Shedder
from device.stream.timeline import Nominal, Timeline
from device.stream.waveform import Display
from device.timing import StageTimer

if TYPE_CHECKING:
    from device.settings.settings import Settings

__all__ = ["Daemon"]

log = logging.getLogger("daemon")

HEALTH_EVERY_S = 10.0
SILENT_AFTER_S = 8.0
"""A source that is alive and gives nothing for so long is told of, and started again: within 10 s."""
WATCH_S = 0.1
"""How often the main thread looks after the others."""
LOOK_EVERY_S = 2.0
"""How often room on the disk is looked after, and systemd told what is going on."""
GONE_AFTER_S = 10.0
"""A source that is away for so long ends the exam with what there is."""
RETRY_S = (0.25, 1.0)
"""How long after losing the source it is tried again, first and at most."""
END_S = 20.0
"""How long a clean end may take before what is left of an exam becomes a partial."""
DELIVER_S = 30.0
"""How long the last exam of `exams = N` may take to be delivered before the daemon ends all the same."""
CONNECT_S = 15.0
"""The same while there is no broker. A card that is cold, or a busy network, needs some of it."""
STORED_S = 8.0
"""How long the light says that the exam is safe."""
FEEDBACK_DB = 6.0
"""By how much the gain goes down when the microphone hears the loudspeaker."""
_QUEUE_S = 10.0
_SHEDDING = {
    Shed.NOTHING: "nothing",
    Shed.WAVEFORM: "waveform",
    Shed.CLASSIFICATION: "classification",
    Shed.DENOISING: "denoising",
}
_SHED_EVERY = 3
_LIGHTS = {
    "recording": Light.LISTENING,
    "cancelled": Light.READY,
    "partial": Light.ERROR,
}


class _ExamControls:
    """What the guide can do with the daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @property
    def phase(self) -> Phase:
        examiner = self._daemon.examiner
        return examiner.phase if examiner else Phase.IDLE

    def begin(self, same_subject: bool = False) -> bool:
        self._daemon.begin_exam(plan_of(self._daemon.settings), again=same_subject)
        return True

    def stop(self) -> bool:
        examiner = self._daemon.examiner
        return examiner is not None and examiner.stop()

    def next_site(self) -> bool:
        examiner = self._daemon.examiner
        return examiner is not None and examiner.next_site()

    def repeat_site(self) -> bool:
        examiner = self._daemon.examiner
        return examiner is not None and examiner.repeat_site()

    def cancel(self) -> bool:
        examiner = self._daemon.examiner
        return examiner is not None and examiner.cancel()

    def shut_down(self) -> bool:
        return self._daemon.shut_down()

    def louder(self, steps: int) -> bool:
        return self._daemon.louder(steps)


class _Ended:
    """In place of a block: the sound has ended."""


class Daemon:
    """Everything of one stethoscope, from `run` to its return.

    models, source, panel, clock and pace are given by tests; otherwise they are what the settings say.
    patient: keep trying when the source cannot be opened or started; else that is an error of `run`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        patient: bool = True,
        models: Models | None = None,
        source: Source | None = None,
        panel: Panel | None = None,
        clock: Clock | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.settings = settings
        self.exams: deque[Exam] = deque(maxlen=16)
        """The last ones put in the outbox since the start."""
        self.delivered: set[str] = set()
        """Ids of those that the host had stored when `run` returned."""
        self.outbox: Outbox | None = None
        self.uplink: Uplink | None = None
        self.examiner: Examiner | None = None
        self.source_blocks_lost = 0
        self._patient = patient
        self._models = models
        self._source = source
        self._panel: Panel = panel or open_panel(settings.panel)
        self._clock = clock or SystemClock()
        self._lamp = Lamp(self._panel, self._clock.monotonic)
        self._subjects = Subjects()
        self._subject: str | None = None
        self._keypad: Keypad | None = None
        self._switch_off = False
        self._feedback = FeedbackWatch()
        self._pace = pace
        self._fast = settings.source.pace == "fast" and not is_live(settings.source.spec)
        self._stop = threading.Event()
        self._sound_over = threading.Event()
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._queue: queue.Queue[Block | _Ended] = queue.Queue(round(_QUEUE_S * 100))
        self._waiting_s = 0.0
        self._shedder = Shedder()
        self._state = "starting"
        self._started_s = self._clock.monotonic()
        self._last_sample_s: float | None = None
        self._reading_since_s: float | None = None
        self._gone_since: float | None = None
        self._gone_ended = False
        self._restart_source = False
        self._live_skipped = 0
        listen = settings.listen
        self._listening = Listening(
            monitor=listen.monitor,
            strength=settings.denoise.strength,
            preset=listen.preset,
            gain_db=listen.gain_db,
            output=listen.output.partition(":")[0],
        )
        self._listen_lock = threading.Lock()
        self._listener: Listener | None = None
        self._lead: LeadRun | None = None
        self._times: Timeline | Nominal | None = None
        self._cleaner: Cleaner | None = None
        self._health_soon = threading.Event()
        self._next_health_s = 0.0
        self._judge_may_go = threading.Event()
        self._notifier = Notifier()
        self._watchdog = Watchdog(self._notifier)
        self._tried_s = time.monotonic()
        self._judge_s: float | None = None
        self._said = ""
        self._trouble: str | None = None
        self._own_process = False
        self._kept_for_good = False

    # ---- from outside

    def request_stop(self) -> None:
        """End cleanly, soon. Safe from a signal handler and from any thread."""
        self._stop.set()

    def run(self, *, signals: bool = True) -> int:
        """Work until asked to stop, until the exams asked for are done, or until something fails; exit
        code.

        signals: the process is the daemon's own, so it heeds the process's signals and keeps its memory.
        Raises StethopiError for what keeps it from beginning.
        """
        self._own_process = signals
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._on_signal)
        try:
            self._begin()
            self._watch()
        finally:
            self._end()
        if self._failure is not None:
            if isinstance(self._failure, StethopiError):
                raise self._failure
            log.error("ended by an unexpected error in one of its threads (see above)")
            return 1
        if self._switch_off:
            switch_off()
        return 0

    def _on_signal(self, number: int, _frame: Any) -> None:
        # who asks a second time does not want to wait
        signal.signal(number, signal.SIG_DFL)
        self.request_stop()

    # ---- beginning and end

    def _begin(self) -> None:
        settings = self.settings
        broker = broker_of(settings)
        models = self._models or load_models(settings)
        self._panel.start()
        if settings.exam.subjects is not None:
            memory = settings.device.state_dir / "subjects.json"
            self._subjects = Subjects(SubjectList(settings.exam.subjects, memory))
        self._guide = Guide(self._lamp, _ExamControls(self), self._subjects, self._clock.monotonic)
        if settings.panel.keyboard != "none":
            self._keypad = Keypad(settings.panel.keyboard, self._typed)
            self._keypad.start()
        self.outbox = Outbox(
            settings.device.state_dir / "outbox",
            quota_bytes=settings.outbox.quota_mb * 1_000_000 or None,
            keep_delivered=settings.outbox.keep_delivered,
        )
        state = State(True, __version__, models.version, "running", self._clock.boot_id)
        if broker is None:
            log.info("no broker is set ([mqtt] host); exams wait in the outbox")
        else:
            self.uplink = Uplink(
                Address(settings.device.fleet, settings.device.id),
                self.outbox,
                broker,
                state=state,
                on_command=self._obey,
                clock=self._clock,
                pace=self._pace,
            )
            self.uplink.start()
        self._spawn("source", lambda: self._run_source(models))
        self._spawn("panel", self._run_panel)

    def _spawn(self, name: str, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except StethopiError as error:
                self._failure = error
                self._stop.set()
            except Exception as error:
                log.exception("the %s thread failed", name)
                self._failure = error
                self._stop.set()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _end(self) -> None:
        """Clean: the exam in progress ends as it is, what cannot be ended stays as a partial recording."""
        self._stop.set()
        self._notifier.say(STOPPING=1)
        if self._source is not None:
            self._source.stop()
        if self.examiner is not None:
            self.examiner.close()
            judging = any(t.name == "judge" and t.is_alive() for t in self._threads)
            if not judging or not self.examiner.wait_idle(END_S):
                self.examiner.abandon()
        self._judge_may_go.set()
        self._sound_over.set()
        if self._lead is not None:
            self._lead.stop()
        for thread in self._threads:
            thread.join(5.0)
        if self.uplink is not None:
            self.uplink.stop()
        if self._keypad is not None:
            self._keypad.stop()
        self._panel.stop()
        if self.outbox is not None:
            outbox = self.outbox
            self.delivered = {exam.id for exam in self.exams if outbox.state(exam.id) == "delivered"}
            outbox.close()
        self._notifier.close()

    # ---- the source's thread

    def _run_source(self, models: Models) -> None:
        source = self._open_source()
        if source is None:
            return
        self._source = source
        self._wire(source, models)
        wait_s = RETRY_S[0]
        while not self._stop.is_set():
            self._tried_s = time.monotonic()
            try:
                source.start()
                wait_s = RETRY_S[0]
                self._copy(source)
            except SourceGone as gone:
                self._say_gone(str(gone))
            except StethopiError as error:
                if not self._patient:
                    raise
                self._say_gone(str(error))
            else:
                if self._stop.is_set() or not self._restart_source:
                    break
                self._restart_source = False
            finally:
                source.stop()
            self._stop.wait(wait_s)
            wait_s = min(2 * wait_s, RETRY_S[1])
        self._put(_Ended())

    def _open_source(self) -> Source | None:
        if self._source is not None:
            return self._source
        chosen, wait_s = self.settings.source, RETRY_S[0]
        while not self._stop.is_set():
            self._tried_s = time.monotonic()
            try:
                return open_source(
                    chosen.spec, pace=chosen.pace, rate_hz=chosen.rate_hz, channel=chosen.channel
                )
            except StethopiError as error:
                # a file that cannot be read will not get better; a microphone may be plugged in
                if not self._patient or not is_live(chosen.spec):
                    raise
                self._say_gone(str(error))
            self._stop.wait(wait_s)
            wait_s = min(2 * wait_s, RETRY_S[1])
        return None

    def _copy(self, source: Source) -> None:
        """Copies, and nothing else."""
        self._reading_since_s = self._clock.monotonic()
        try:
            self._copy_all(source)
        finally:
            self._reading_since_s = None

    def _copy_all(self, source: Source) -> None:
        while not self._stop.is_set():
            block = source.read()
            if block is None:
                return
            self._last_sample_s = self._clock.monotonic()
            if self._gone_since is not None:
                self._say_back(source)
            self._state = "running"
            if isinstance(self._times, Timeline):
                end = block.index + len(block.samples)
                self._times.note(end, block.monotonic_s, broken=block.lost > 0)
            if self._listener is not None and not self._fast:
                self._listener.tap(block)  # raw sound for the ear takes no longer way than this
            self._put(block)

    def _put(self, item: Block | _Ended) -> None:
        if self._fast or isinstance(item, _Ended):
            while not self._sound_over.is_set():
                try:
                    self._queue.put(item, timeout=0.2)
                    return
                except queue.Full:
                    continue
            return
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            # the next block's index tells the intake, which marks the gap
            self.source_blocks_lost += 1

    def _say_gone(self, why: str) -> None:
        self._state = "gone"
        if self._gone_since is None:
            self._gone_since = time.monotonic()
            self._gone_ended = False
            self._lamp.over(Light.NO_SOUND, True)
            self._health_soon.set()
            log.warning("source went away: %s", why)
        else:
            log.debug("source still away: %s", why)

    def _say_back(self, source: Source) -> None:
        assert self._gone_since is not None
        log.info("source came back after %.1f s: %s", time.monotonic() - self._gone_since, source.name)
        self._gone_since = None
        self._lamp.over(Light.NO_SOUND, False)
        self._health_soon.set()

    # ---- wiring, once the source's rate is known

    def _wire(self, source: Source, models: Models) -> None:
        settings = self.settings
        assert self.outbox is not None
        ring = Ring(ring_seconds(settings.exam.max_s))
        intake = Intake(source.rate_hz, ring)
        delay = delay_of(intake.decimator.delay_s, models.denoiser.hop_s, models.denoiser.look_ahead_s)
        self._timers = {
            "decimate": StageTimer("decimate", HOP_S / 4),
            "listen": StageTimer("listen", HOP_S / 4),
        }
        examiner = Examiner(
            Identity(
                fleet=settings.device.fleet,
                device=settings.device.id,
                software=__version__,
                bundle=models.version,
                source=source.name[:200],
                source_rate_hz=source.rate_hz,
                delay=delay,
            ),
            ring,
            models.judge,
            models.meta,
            self.outbox,
            self._clock,
            timers=[
                self._timers["decimate"],
                models.denoiser.step_times,
                self._timers["listen"],
                *([models.lead.step_times] if models.lead is not None else []),
            ],
            dropped=self._dropped,
            live=self._live,
            put=self._on_put,
            contact=models.contact,
            fast=self._fast,
        )
        if settings.exam.autostart:
            examiner.autostart = plan_of(settings)
            examiner.autostart_left = settings.exam.exams or -1
        self._all_timers = [
            *self._timers.values(),
            models.denoiser.step_times,
            *([models.lead.step_times] if models.lead is not None else []),
            examiner.recording_times,
            examiner.judging_times,
        ]
        self.examiner = examiner
        for note in getattr(source, "notes", []):
            log.warning("%s", note)
        log.info(
            "listening to %s at %d Hz, bundle %s, %.1f ms from sample to clean sound",
            *(source.name, source.rate_hz, models.version, delay.total_ms),
        )
        self._show(Light.READY)
        listener = self._open_listener(source, models)
        self._open_lead(source, models, examiner, ring)
        self._spawn(
            "sound",
            lambda: self._run_sound(source, intake, AlignedStream(models.denoiser), listener, examiner),
        )
        self._spawn("judge", lambda: self._run_judge(examiner, models.judge))

    def _open_lead(self, source: Source, models: Models, examiner: Examiner, ring: Ring) -> None:
        """The ECG beside the sound, where one is asked for."""
        self._times = Nominal(source.rate_hz) if self._fast else Timeline(source.rate_hz)
        settings = self.settings
        found = open_ecg(settings.ecg, pace="fast" if self._fast else "real")
        if found is None:
            return
        self._lead = LeadRun(
            found,
            settings.ecg,
            self._times,
            ring,
            seconds=ring_seconds(settings.exam.max_s),
            cleaner=models.lead,
            exam=lambda: examiner.exam_id,
            tell=lambda message: self._live("ecg", message),
            shed=lambda: self._shedder.now,
        )
        examiner.lead = self._lead.track
        log.info("ECG from %s at %d Hz", found.name, found.rate_hz)
        self._spawn("ecg", self._lead.run)

    def _open_listener(self, source: Source, models: Models) -> Listener:
        with self._listen_lock:
            now = self._listening
            wanted = replace(
                self.settings.listen, monitor=now.monitor, preset=now.preset, gain_db=now.gain_db
            )
            models.denoiser.strength = now.strength
            self._cleaner = models.denoiser
            listener = open_listener(wanted, source.rate_hz)
            listener.start()
            self._listener = listener
        return listener

    def _dropped(self) -> dict[str, int]:
        return {
            "source blocks": self.source_blocks_lost,
            "waveform": self._live_skipped,
            "live messages": self.uplink.live_dropped if self.uplink else 0,
        }

    # ---- the sound's thread

    def _run_sound(
        self, source: Source, intake: Intake, twin: AlignedStream, listener: Listener, examiner: Examiner
    ) -> None:
        self._intake = intake
        display = Display()
        try:
            while True:
                try:
                    item = self._queue.get(timeout=0.2)
                except queue.Empty:
                    if self._sound_over.is_set():
                        return
                    self._notice_absence(examiner)
                    continue
                if isinstance(item, _Ended):
                    break
                shed = self._late(item, source.rate_hz)
                began = time.perf_counter()
                skipped = intake.skipped
                raw = intake.accept(item)
                self._timers["decimate"].add((time.perf_counter() - began) * HOP / max(len(raw), HOP))
                examiner.feed()
                if intake.skipped > skipped:
                    display.skip(intake.skipped - skipped)
                    listener.skip(intake.skipped - skipped)
                self._hear(*twin.process(raw, shed >= Shed.DENOISING), listener, display, shed)
            intake.finish()
            if self._stop.is_set():
                examiner.close()  # it did not end by itself
            else:
                examiner.source_ended()
            self._hear(*twin.flush(), listener, display, self._shedder.now)
            self._state = "ended"
            log.info("the sound has ended")
        finally:
            listener.stop()
            self._sound_over.set()

    def _hear(
        self, raw: np.ndarray, clean: np.ndarray, listener: Listener, display: Display, shed: Shed
    ) -> None:
        if not len(raw):
            return
        began = time.perf_counter()
        listener.hear(raw, clean)
        self._watch_for_feedback(raw, clean)
        exam = self.examiner.exam_id if self.examiner else None
        waves = display.process(raw, clean, exam)
        if exam is not None:
            for wave in waves:
                if shed >= Shed.WAVEFORM:
                    self._live_skipped += 1
                else:
                    self._live("wave", wave)
        self._timers["listen"].add((time.perf_counter() - began) * HOP / max(len(raw), HOP))

    def _watch_for_feedback(self, raw: np.ndarray, clean: np.ndarray) -> None:
        now = self._listening
        if now.output != "device":
            return
        watch, had = self._feedback, self._feedback.found
        if watch.process(raw, raw if now.monitor == "raw" else clean):
            gain_db = max(now.gain_db - FEEDBACK_DB, -40.0)
            log.warning(
                "feedback: the microphone hears the loudspeaker at %.0f Hz; gain lowered from %g to %g dB; "
                "use headphones, or keep the loudspeaker away from the chest piece",
                *(watch.found, now.gain_db, gain_db),
            )
            self._listen_to(Listen(gain_db=gain_db))
            self._lamp.over(Light.FEEDBACK, True)
        elif had is not None and watch.found is None:
            log.info("feedback has ended")
            self._lamp.over(Light.FEEDBACK, False)

    def _late(self, block: Block, rate_hz: int) -> Shed:
        """What to leave out, from how much sound waits behind this block."""
        if self._fast:
            return Shed.NOTHING
        waiting_s = self._queue.qsize() * len(block.samples) / rate_hz
        before = self._shedder.now
        now = self._shedder.update(waiting_s, time.monotonic())
        if now > before:
            log.warning("%.1f s late: %s left out", waiting_s, _SHEDDING[now])
        elif now < before and now is Shed.NOTHING:
            log.info("in time again")
        return now

    def _notice_absence(self, examiner: Examiner) -> None:
        since = self._gone_since
        if since is None or self._gone_ended or time.monotonic() - since < GONE_AFTER_S:
            return
        self._gone_ended = True
        examiner.source_gone()

    # ---- the judge's thread

    def _run_judge(self, examiner: Examiner, judge: WindowJudge) -> None:
        while not self._judge_may_go.is_set():
            self._judge_s = time.monotonic()
            judge.every = _SHED_EVERY if self._shedder.now >= Shed.CLASSIFICATION else 1
            examiner.judge()

    def _on_put(self, exam: Exam) -> None:
        self.exams.append(exam)
        self._lamp.show(Light.STORED, STORED_S)
        if self.uplink is not None:
            self.uplink.wake()
        if self._own_process:
            self._tidy()

    def _tidy(self) -> None:
        """Free what only a full collection finds, now that an exam is over and nobody waits for sound.

        Left to itself Python looks for it after hundreds of exams, and until then it takes new memory. What
        the first exam leaves (modules, models) is never looked through again, so that this takes a moment.
        """
        gc.collect()
        if not self._kept_for_good:
            gc.freeze()
            self._kept_for_good = True

    def _live(self, name: str, message: Any) -> None:
        if name == "quality" and message.quality is not None:
            self._show(Light.GOOD_CONTACT if message.quality >= quality.GOOD else Light.BAD_CONTACT)
        elif name == "exam":
            self._show_progress(message)
        if self.uplink is not None:
            self.uplink.live(name, message)

    def _show_progress(self, message: LiveExam) -> None:
        heard = self._lamp.base in (Light.GOOD_CONTACT, Light.BAD_CONTACT)
        if message.state == "site done":
            last = message.position + 1 >= message.sites
            self._show(Light.LISTENING if last else Light.NEXT_SITE)
        elif message.state in _LIGHTS and not (message.state == "recording" and heard and message.seconds):
            self._show(_LIGHTS[message.state])
        if message.state == "cancelled":
            self._subjects.cancelled(self._subject)

    def _show(self, light: Light) -> None:
        self._lamp.show(light)

    # ---- panel and commands

    def _run_panel(self) -> None:
        while not self._stop.is_set():
            press = self._panel.next_press(0.5)
            if press is None:
                continue
            try:
                self._guide.pressed(press)
            except StethopiError as error:
                log.error("%s", error)
                self._show(Light.ERROR)

    def _typed(self, word: str) -> None:
        try:
            self._guide.typed(word)
        except StethopiError as error:
            log.error("%s", error)
            self._show(Light.ERROR)

    def begin_exam(self, plan: Plan, subject: str | None = None, *, again: bool = False) -> None:
        """Begin an exam, of this subject or of the one whose turn it is. again: of the one before."""
        if self.examiner is None:
            raise StethopiError("no sound comes; check the microphone")
        if self.examiner.phase is not Phase.IDLE:
            raise StethopiError("an exam is under way; stop it first")
        if subject is not None:
            self._subjects.choose(subject)
        self._subject = self._subjects.take(again)
        try:
            self.examiner.start(plan, subject=self._subject)
        except StethopiError:
            self._subjects.cancelled(self._subject)
            raise

    def _obey(self, command: Command) -> Answer:
        try:
            ok, says = self._do(command)
        except StethopiError as error:
            ok, says = False, str(error)[:300]
        exam = self.examiner.exam_id if self.examiner else None
        listening = self._listening if command.name == "listen" else None
        return Answer(command.id, command.name, ok, says, exam, listening=listening)

    def _do(self, command: Command) -> tuple[bool, str]:
        """(whether it was done, what to say) of a command."""
        examiner = self.examiner
        if command.name == "status":
            return True, self._status()
        if command.name == "listen" and command.listen is not None:
            return True, self._listen_to(command.listen)
        if command.name == "subject":
            return self._next_subject(command.args.get("code", "").strip())
        if command.name not in ("start", "stop", "next"):
            return False, "unknown command"
        if examiner is None:
            return False, "no sound comes; check the microphone"
        if command.name == "start":
            plan = plan_for(command.args.get("sites") or command.args.get("site"), plan_of(self.settings))
            subject = command.args.get("subject") or None
            if subject is not None and not is_subject_code(subject):
                return False, "subject: letters, digits and '-', at most 32: a code, never a name"
            self.begin_exam(plan, subject)
            return True, f"recording {plan.name(0)}"
        if command.name == "stop":
            done = examiner.stop()
            return done, "stopping" if done else "no exam is under way"
        done = examiner.next_site()
        return done, "next site" if done else "there is no next site"

    def _next_subject(self, word: str) -> tuple[bool, str]:
        """Whose the next exam is, told from the host; by the keypad's rules, for a hand has typed it too."""
        if word:
            code = self._subjects.read(word)
            if code is None:
                return False, f"{word[:40]!r} is no subject code, or one of its characters is wrong"
            self._subjects.choose(code)
        else:
            self._subjects.forget()
        told = self._subjects.next
        log.info("the next exam is %s, the host says", told or "nobody's")
        self._lamp.flash(Light.CODE_TAKEN, FLASH_S)
        return True, f"the next exam is {told}" if told else "the next exam has no code"

    def _listen_to(self, wish: Listen) -> str:
        """Another sound for the ear, at once; what to say of it."""
        given = {name: value for name, value in vars(wish).items() if value is not None}
        with self._listen_lock:
            self._listening = now = replace(self._listening, **given)
            if self._cleaner is not None:
                self._cleaner.strength = now.strength
            if self._listener is not None:
                self._listener.change(monitor=wish.monitor, preset=wish.preset, gain_db=wish.gain_db)
        self._health_soon.set()
        preset = "" if now.preset == "none" else f", {now.preset}"
        says = f"{now.monitor}{preset}, strength {now.strength:g}, gain {now.gain_db:g} dB"
        return says if now.output != "none" else f"{says}; but nobody listens: [listen] output is none"

    def louder(self, steps: int) -> bool:
        """So many steps of gain up or down."""
        gain_db = self._listening.gain_db + steps * self.settings.listen.gain_step_db
        self._listen_to(Listen(gain_db=min(max(gain_db, -40.0), 40.0)))
        return True

    def shut_down(self) -> bool:
        """End all safely, and then do what `[panel] shutdown` says."""
        how = self.settings.panel.shutdown
        if how == "none":
            return False
        log.info("asked by the button to shut down")
        self._lamp.over(Light.SHUTTING_DOWN, True)
        self._switch_off = how == "poweroff"
        self.request_stop()
        return True

    def _status(self) -> str:
        examiner, outbox = self.examiner, self.outbox
        phase = examiner.phase.value if examiner else "starting"
        waiting = outbox.backlog().exams if outbox else 0
        more = f"; no exam can be kept: {self._trouble}" if self._trouble else ""
        if self._feedback.found is not None:
            more += "; feedback: the microphone hears the loudspeaker"
        return f"source {self._state}, exam {phase}, {waiting} waiting in the outbox{more}"

    # ---- the main thread

    def _watch(self) -> None:
        next_look_s = 0.0
        done_s: float | None = None
        self._notifier.say(READY=1)
        while not self._stop.wait(WATCH_S):
            now = time.monotonic()
            self._watchdog.look(self._signs())
            if now >= next_look_s:
                next_look_s = now + LOOK_EVERY_S
                self._look_after_the_disk()
                self._show_delivery()
                self._tell_systemd()
            if now >= self._next_health_s or self._health_soon.is_set():
                self._tell_health()
            self._watch_over_silence()
            self._lamp.look()
            if not self._all_done():
                continue
            done_s = now if done_s is None else done_s
            assert self.outbox is not None
            patience_s = DELIVER_S if self.uplink is not None and self.uplink.online else CONNECT_S
            waiting = self.outbox.backlog().exams
            if self.uplink is None or not waiting:
                return
            if now - done_s > patience_s:
                log.warning("%d not delivered yet; the outbox keeps what waits for the next start", waiting)
                return

    def _show_delivery(self) -> None:
        """While nothing else is to be said: whether exams are on their way."""
        assert self.outbox is not None
        if self._lamp.base not in (Light.READY, Light.DELIVERING) or self._trouble:
            return
        going = self.uplink is not None and self.uplink.online and self.outbox.backlog().exams > 0
        self._show(Light.DELIVERING if going else Light.READY)

    def _signs(self) -> Signs:
        return Signs(
            heard=self.examiner.heard if self.examiner else 0,
            ended=self._sound_over.is_set(),
            away_since_s=self._gone_since,
            tried_s=self._tried_s,
            judge_s=self._judge_s,
            uplink_s=self.uplink.loop_monotonic_s if self.uplink else None,
        )

    def _tell_systemd(self) -> None:
        said = self._status()
        if said != self._said:
            self._notifier.say(STATUS=said)
        self._said = said

    def _look_after_the_disk(self) -> None:
        """No room, or a disk that takes nothing: told once, by log, light and health; and once when it is
        over.
        """
        assert self.outbox is not None
        examiner, before = self.examiner, self._trouble
        stuck = examiner.stuck if examiner else None
        self._trouble = stuck or self.outbox.shortage(plan_of(self.settings).most_bytes)
        if self._trouble and not before:
            log.error("no exam can be kept: %s", self._trouble)
            self._show(Light.ERROR)
        elif before and not self._trouble:
            log.info("exams can be kept again")
            if examiner is None or not examiner.busy:
                self._show(Light.READY)
        if self._trouble != before:
            self._health_soon.set()

    def _all_done(self) -> bool:
        """The exams that were asked for are in the outbox, or no sound for another one will come."""
        examiner, wanted = self.examiner, self.settings.exam
        if examiner is None or not wanted.exams or examiner.busy:
            return False
        return examiner.finished >= wanted.exams or (self._sound_over.is_set() and wanted.autostart)

    def _watch_over_silence(self) -> None:
        """The silent stop: the source lives and gives nothing, be it from its start on."""
        began = self._reading_since_s
        if began is None or self._restart_source or self._source is None:
            return
        age = self._clock.monotonic() - max(self._last_sample_s or 0.0, began)
        if age > SILENT_AFTER_S and not self._queue.full():
            self._restart_source = True
            self._say_gone(f"no sound for {age:.0f} s, though it seems alive; it is started again")
            self._tell_health()  # before it may be back: who reads nothing else must hear of it too
            self._source.stop()

    def _tell_health(self) -> None:
        """Send the counters now; while there is no broker, they go out as soon as there is one."""
        if self.uplink is None or not self.uplink.online:
            return
        self._next_health_s = time.monotonic() + HEALTH_EVERY_S
        self._health_soon.clear()
        self.uplink.health(self._health())

    def _health(self) -> Health:
        outbox, examiner = self.outbox, self.examiner
        assert outbox is not None
        moment = Moment(**self._clock.stamp().to_json())
        last = self._last_sample_s
        intake: Intake | None = getattr(self, "_intake", None)
        timers: list[StageTimer] = getattr(self, "_all_timers", [])
        try:
            free: int | None = shutil.disk_usage(outbox.folder).free
        except OSError:
            free = None
        return Health(
            now=moment,
            uptime_s=max(moment.monotonic_s - self._started_s, 0.0),
            source=self._state,
            sample_age_s=None if last is None else max(moment.monotonic_s - last, 0.0),
            samples=examiner.heard if examiner else 0,
            lost_samples=intake.lost if intake else 0,
            exams=examiner.finished if examiner else 0,
            backlog=outbox.backlog(moment),
            partials=outbox.kept_partials(),
            disk_free_bytes=free,
            memory_bytes=resident_bytes(),
            temperature_c=temperature_c(),
            battery=None,
            shed=_SHEDDING[self._shedder.now],
            missed={timer.name: timer.missed for timer in timers},
            dropped={**self._dropped(), "windows": examiner.windows_dropped if examiner else 0},
            listening=self._listening,
            trouble=self._trouble[:300] if self._trouble else None,
        )
