"""From an exam that is over to the outbox."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from device.contract.exam import Exam
from device.errors import StethopiError
from device.exam.identity import LiveSink
from device.exam.result import finished_of
from device.exam.underway import Underway
from device.storage.outbox import Outbox

__all__ = ["Handover"]

log = logging.getLogger("exam")

_RETRY_S = 5.0


class Handover:
    """Exams that are over, until the outbox has them."""

    def __init__(self, now: Underway, outbox: Outbox, live: LiveSink, put: Callable[[Exam], None]) -> None:
        """put: is told of each exam that the outbox has taken."""
        self.waiting: list[tuple[Exam, dict[str, Path]]] = []
        self.finished = 0
        """Exams that are in the outbox since the start."""
        self.last: Exam | None = None
        self.stuck: str | None = None
        """Why the first one that waits is not there yet; it is tried again and again."""
        self._now = now
        self._outbox = outbox
        self._live = live
        self._put = put
        self._retry_at_s = 0.0

    def add(self, exam: Exam, files: dict[str, Path]) -> None:
        """This one is over. Under the lock."""
        self.waiting.append((exam, files))
        self._retry_at_s = 0.0

    def try_to_put(self) -> None:
        """Put the first one that waits into the outbox, unless it was refused just now."""
        with self._now.changed:
            if not self.waiting or time.monotonic() < self._retry_at_s:
                return
            exam, files = self.waiting[0]
        try:
            self._outbox.put(exam, files)
        except StethopiError as error:
            if not self._retry_at_s:
                log.error("%s; trying again every %.0f s", error, _RETRY_S)
            self._retry_at_s = time.monotonic() + _RETRY_S
            self.stuck = str(error)
            return
        probability = exam.verdict.probability
        log.info(
            "exam %s is in the outbox: %s, probability %s",
            *(exam.id, exam.verdict.label, "unknown" if probability is None else f"{probability:.2f}"),
        )
        with self._now.changed:
            self.waiting.pop(0)
            self._retry_at_s = 0.0
            self.stuck = None
            self.finished += 1
            self.last = exam
            self._now.changed.notify_all()
        self._put(exam)
        self._live("exam", finished_of(exam))
