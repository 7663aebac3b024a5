"""The judge's thread."""

from __future__ import annotations

import threading
import time

from device.exam.examiner import Examiner
from device.exam.identity import WindowJudge
from device.stream.shedding import Shed, Shedder

__all__ = ["JudgeThread"]

_SHED_EVERY = 3
"""When the machine is late, only every third window is judged."""


class JudgeThread:
    """Has the examiner judge what was recorded."""

    def __init__(self, examiner: Examiner, judge: WindowJudge, shedder: Shedder) -> None:
        self.looped_s: float | None = None
        """When its loop last went round, by `time.monotonic`; None before it has begun."""
        self._examiner = examiner
        self._judge = judge
        self._shedder = shedder
        self._may_go = threading.Event()

    def run(self) -> None:
        while not self._may_go.is_set():
            self.looped_s = time.monotonic()
            self._judge.every = _SHED_EVERY if self._shedder.now >= Shed.CLASSIFICATION else 1
            self._examiner.judge()

    def stop(self) -> None:
        """End soon. Safe before it has begun."""
        self._may_go.set()
