"""What is done about feedback: the gain goes down, and the light says why."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from device.contract.control import Listen
from device.listening.control import SOFTEST_DB, ListeningControl
from device.listening.feedback import FeedbackWatch

__all__ = ["FeedbackGuard"]

log = logging.getLogger("daemon")

_STEP_DB = 6.0
"""By how much the gain goes down when the microphone hears the loudspeaker."""


class FeedbackGuard:
    """Turns a loudspeaker down that the microphone hears."""

    def __init__(self, listening: ListeningControl, show: Callable[[bool], None]) -> None:
        """show: told when feedback begins and when it has ended."""
        self._listening = listening
        self._show = show
        self._watch = FeedbackWatch()

    @property
    def found_hz(self) -> float | None:
        """The tone that comes back; None while none does."""
        return self._watch.found

    def hear(self, raw: np.ndarray, clean: np.ndarray) -> None:
        """What was heard, float32 (n,), and what is played of it where not the raw sound is."""
        watch, had, now = self._watch, self._watch.found, self._listening.now
        if watch.process(raw, raw if now.monitor == "raw" else clean):
            gain_db = max(now.gain_db - _STEP_DB, SOFTEST_DB)
            log.warning(
                "feedback: the microphone hears the loudspeaker at %.0f Hz; gain lowered from %g to %g dB; "
                "use headphones, or keep the loudspeaker away from the chest piece",
                *(watch.found, now.gain_db, gain_db),
            )
            self._listening.change(Listen(gain_db=gain_db))
            self._show(True)
        elif had is not None and watch.found is None:
            log.info("feedback has ended")
            self._show(False)

    def skip(self, n: int) -> None:
        """A hole is silence: it neither begins feedback nor ends it."""
