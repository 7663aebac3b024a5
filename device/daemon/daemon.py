"""The daemon: wires the rooms, and starts the threads. What each room and each thread does is its own.

    source ──queue──▶ sound ──ring──▶ judge ──outbox──▶ uplink
    (copies)          the chain:        classifier, FLAC,     MQTT
                      ring, recording,  verdict, put
                      denoise, listen,
                      waveform
    panel, main: button and lights; health, watch over silence, signals

The queue from source to sound is bounded; what does not fit in real time is a marked gap. The sound thread
never waits for the judge, except for a file that is read as fast as it goes. When late it leaves out, in
this order, waveform, classification rate, denoising; never the recording.
"""

from __future__ import annotations

import gc
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from device import __version__
from device.clock import Clock, SystemClock
from device.contract.control import State
from device.contract.exam import Exam
from device.contract.topics import Address
from device.daemon.commands import Commands
from device.daemon.from_settings import broker_of, plan_of
from device.daemon.health import DiskWatch, HealthReport, HealthSender, ServiceSigns, SilenceWatch
from device.daemon.machine import switch_off
from device.daemon.models import Models, load_models
from device.daemon.panel_thread import PanelThread
from device.daemon.parts import Parts
from device.daemon.source_thread import Blocks, SourceThread
from device.daemon.wiring import SoundWiring
from device.delivery.uplink import Pace, Uplink
from device.errors import StethopiError
from device.exam.examiner import Examiner
from device.exam.subjects import SubjectList, Subjects
from device.listening.control import ListeningControl
from device.listening.feedback_guard import FeedbackGuard
from device.panel.button_actions import Guide
from device.panel.exam_controls import ExamControls
from device.panel.exam_light import ExamLight
from device.panel.lamp import Lamp
from device.panel.light import Light
from device.panel.panels import Panel, open_panel
from device.settings.specs import is_live
from device.sources import open_source
from device.sources.base import Source
from device.storage.outbox import Outbox

if TYPE_CHECKING:
    from device.settings.settings import Settings

__all__ = ["Daemon"]

log = logging.getLogger("daemon")

WATCH_S = 0.1
"""How often the main thread looks after the others."""
LOOK_EVERY_S = 2.0
"""How often room on the disk is looked after, and systemd told what is going on."""
END_S = 20.0
"""How long a clean end may take before what is left of an exam becomes a partial."""
DELIVER_S = 30.0
"""How long the last exam of `exams = N` may take to be delivered before the daemon ends all the same."""
CONNECT_S = 15.0
"""The same while there is no broker. A card that is cold, or a busy network, needs some of it."""
_QUEUE_S = 10.0


class Daemon:
    """Everything of one stethoscope, from `run` to its return."""

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
        """models, source, panel, clock and pace are given by tests; otherwise they are what the settings say.
        patient: keep trying when the source cannot be opened or started; else that is an error of `run`.
        """
        self.settings = settings
        self.exams: deque[Exam] = deque(maxlen=16)
        """The last ones put in the outbox since the start."""
        self.delivered: set[str] = set()
        """Ids of those that the host had stored when `run` returned."""
        self._models = models
        self._pace = pace
        self._fast = settings.source.pace == "fast" and not is_live(settings.source.spec)
        self._stop = threading.Event()
        self._sound_over = threading.Event()
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._switch_off = False
        self._own_process = False
        self._tidied = False
        clock = clock or SystemClock()
        self._panel: Panel = panel or open_panel(settings.panel)
        lamp = Lamp(self._panel, clock.monotonic)
        self._light = ExamLight(lamp)
        self._blocks: Blocks = Blocks(round(_QUEUE_S * 100))
        listening = ListeningControl(settings.listen, settings.denoise.strength, lambda: self.health.hurry())
        self.parts = Parts(
            clock=clock,
            lamp=lamp,
            source=self._source_thread(source, patient, clock),
            listening=listening,
            feedback=FeedbackGuard(listening, lambda on: lamp.over(Light.FEEDBACK, on)),
            controls=ExamControls(plan_of(settings), Subjects(), listening.louder, self._shut_down),
        )
        self._disk = DiskWatch(self.parts, lambda: self.health.hurry())
        self.report = HealthReport(self.parts, self._disk)
        self.health = HealthSender(self.parts, self.report)
        self.commands = Commands(self.parts.controls, listening, lamp, self.report.words)
        self._systemd = ServiceSigns(self.parts, self.report.words, self._sound_over)

    def _source_thread(self, given: Source | None, patient: bool, clock: Clock) -> SourceThread:
        chosen = self.settings.source
        return SourceThread(
            lambda: (
                given
                or open_source(chosen.spec, pace=chosen.pace, rate_hz=chosen.rate_hz, channel=chosen.channel)
            ),
            self._blocks,
            begin=self._wire,
            stop=self._stop,
            sound_over=self._sound_over,
            clock=clock,
            gone=self._source_gone,
            # a file that cannot be read will not get better; a microphone may be plugged in
            wait_for_it=patient and is_live(chosen.spec),
            patient=patient,
            fast=self._fast,
        )

    # ---- from outside

    @property
    def outbox(self) -> Outbox | None:
        return self.parts.outbox

    @property
    def uplink(self) -> Uplink | None:
        return self.parts.uplink

    @property
    def examiner(self) -> Examiner | None:
        """None until sound has come."""
        return self.parts.examiner

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

    def _shut_down(self) -> bool:
        """End all safely, and then do what `[panel] shutdown` says."""
        how = self.settings.panel.shutdown
        if how == "none":
            return False
        log.info("asked by the button to shut down")
        self.parts.lamp.over(Light.SHUTTING_DOWN, True)
        self._switch_off = how == "poweroff"
        self.request_stop()
        return True

    # ---- beginning and end

    def _begin(self) -> None:
        settings, parts = self.settings, self.parts
        broker = broker_of(settings)
        models = self._models = self._models or load_models(settings)
        self._panel.start()
        if settings.exam.subjects is not None:
            memory = settings.device.state_dir / "subjects.json"
            parts.controls.subjects = Subjects(SubjectList(settings.exam.subjects, memory))
        guide = Guide(parts.lamp, parts.controls, parts.controls.subjects, parts.clock.monotonic)
        self._hand = PanelThread(self._panel, guide, parts.lamp, settings.panel.keyboard, self._stop)
        parts.outbox = Outbox(
            settings.device.state_dir / "outbox",
            quota_bytes=settings.outbox.quota_mb * 1_000_000 or None,
            keep_delivered=settings.outbox.keep_delivered,
        )
        if broker is None:
            log.info("no broker is set ([mqtt] host); exams wait in the outbox")
        else:
            parts.uplink = Uplink(
                Address(settings.device.fleet, settings.device.id),
                parts.outbox,
                broker,
                state=State(True, __version__, models.version, "running", parts.clock.boot_id),
                on_command=self.commands.obey,
                clock=parts.clock,
                pace=self._pace,
            )
            parts.uplink.start()
        self._spawn("source", parts.source.run)
        self._spawn("panel", self._hand.run)

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
        parts = self.parts
        self._stop.set()
        self._systemd.stopping()
        parts.source.stop()
        if parts.examiner is not None:
            parts.examiner.close()
            judging = any(t.name == "judge" and t.is_alive() for t in self._threads)
            if not judging or not parts.examiner.wait_idle(END_S):
                parts.examiner.abandon()
        if parts.judge is not None:
            parts.judge.stop()
        self._sound_over.set()
        if parts.lead is not None:
            parts.lead.stop()
        for thread in self._threads:
            thread.join(5.0)
        if parts.uplink is not None:
            parts.uplink.stop()
        self._panel.stop()
        if parts.outbox is not None:
            outbox = parts.outbox
            self.delivered = {exam.id for exam in self.exams if outbox.state(exam.id) == "delivered"}
            outbox.close()
        self._systemd.close()

    def _wire(self, source: Source) -> None:
        assert self._models is not None
        SoundWiring(
            *(self.settings, self._models, self.parts, self._blocks),
            fast=self._fast,
            stop=self._stop,
            over=self._sound_over,
            spawn=self._spawn,
            live=self._live,
            put=self._on_put,
        ).connect(source)

    # ---- what the parts tell

    def _source_gone(self, gone: bool) -> None:
        self.parts.lamp.over(Light.NO_SOUND, gone)
        self.health.hurry()

    def _live(self, name: str, message: Any) -> None:
        self._light.tell(name, message)
        if name == "exam" and message.state == "cancelled":
            self.parts.controls.give_back()
        if self.uplink is not None:
            self.uplink.live(name, message)

    def _on_put(self, exam: Exam) -> None:
        self.exams.append(exam)
        self._light.stored()
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
        if not self._tidied:
            gc.freeze()
            self._tidied = True

    # ---- the main thread

    def _watch(self) -> None:
        silence = SilenceWatch(self.parts.source, self.health.send)
        next_look_s = 0.0
        done_s: float | None = None
        self._systemd.ready()
        while not self._stop.wait(WATCH_S):
            now = time.monotonic()
            self._systemd.alive()
            if now >= next_look_s:
                next_look_s = now + LOOK_EVERY_S
                self._disk.look()
                self._show_delivery()
                self._systemd.status()
            self.health.look()
            silence.look()
            self.parts.lamp.look()
            if self._all_done():
                done_s = now if done_s is None else done_s
                if self._all_delivered(now - done_s):
                    return

    def _show_delivery(self) -> None:
        uplink, outbox = self.uplink, self.outbox
        assert outbox is not None
        if not self._disk.trouble:
            self._light.delivery(uplink is not None and uplink.online and outbox.backlog().exams > 0)

    def _all_done(self) -> bool:
        """The exams that were asked for are in the outbox, or no sound for another one will come."""
        examiner, wanted = self.examiner, self.settings.exam
        if examiner is None or not wanted.exams or examiner.busy:
            return False
        return examiner.finished >= wanted.exams or (self._sound_over.is_set() and wanted.autostart)

    def _all_delivered(self, waited_s: float) -> bool:
        """What was asked for has reached the host, or is not waited for any longer."""
        assert self.outbox is not None
        patience_s = DELIVER_S if self.uplink is not None and self.uplink.online else CONNECT_S
        waiting = self.outbox.backlog().exams
        if self.uplink is None or not waiting:
            return True
        if waited_s <= patience_s:
            return False
        log.warning("%d not delivered yet; the outbox keeps what waits for the next start", waiting)
        return True
