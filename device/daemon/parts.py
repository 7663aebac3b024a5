"""What a daemon consists of."""

from __future__ import annotations

from dataclasses import dataclass, field

from device.clock import Clock
from device.daemon.judge_thread import JudgeThread
from device.daemon.source_thread import SourceThread
from device.delivery.uplink import Uplink
from device.ecg.run import LeadRun
from device.exam.examiner import Examiner
from device.listening.control import ListeningControl
from device.listening.feedback_guard import FeedbackGuard
from device.panel.exam_controls import ExamControls
from device.panel.lamp import Lamp
from device.storage.outbox import Outbox
from device.stream.chain import SoundChain
from device.stream.shedding import Shedder
from device.timing import StageTimer

__all__ = ["Parts"]


@dataclass
class Parts:
    """The parts of a daemon; None where one is not there, or not yet."""

    clock: Clock
    lamp: Lamp
    source: SourceThread
    listening: ListeningControl
    feedback: FeedbackGuard
    controls: ExamControls
    shedder: Shedder = field(default_factory=Shedder)
    outbox: Outbox | None = None
    uplink: Uplink | None = None
    chain: SoundChain | None = None
    examiner: Examiner | None = None
    judge: JudgeThread | None = None
    lead: LeadRun | None = None
    timers: list[StageTimer] = field(default_factory=list)
    """All stages', in the order of the path."""

    @property
    def dropped(self) -> dict[str, int]:
        """What was left out so far, by name."""
        return {
            "source blocks": self.source.blocks_lost,
            "waveform": self.chain.waves_left_out if self.chain else 0,
            "live messages": self.uplink.live_dropped if self.uplink else 0,
        }
