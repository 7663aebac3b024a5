"""The ECG's thread: opens the lead, takes what comes, keeps trying when it is away. The sound never waits.

A converter that cannot be opened, one that vanishes, a program error here: each is told once, the exam goes
on without, and its gaps say so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from device.contract.live import LiveEcg
from device.ecg.base import EcgBlock, EcgSource
from device.ecg.trace import Trace
from device.ecg.track import Track
from device.errors import StethopiError
from device.settings.sections import EcgSettings
from device.stream.aligned import Cleaner
from device.stream.ring import Ring
from device.stream.shedding import Shed
from device.stream.timeline import Nominal, Timeline

__all__ = ["LeadRun"]

log = logging.getLogger("ecg")

_RETRY_S = (0.5, 5.0)
_TELL_S = 1.0
_AHEAD_S = 0.5
"""So far a file that is read as fast as it goes may run ahead of the sound."""


class LeadRun:
    """One lead from its opening to the end of the program.

    times: when the sound's samples were there. sound: the sound's ring, which a file that is read as fast
    as it goes keeps pace with. exam: id of the exam that is under way. tell: takes live messages.
    """

    def __init__(
        self,
        source: EcgSource,
        settings: EcgSettings,
        times: Timeline | Nominal,
        sound: Ring,
        *,
        seconds: float,
        cleaner: Cleaner | None = None,
        exam: Callable[[], str | None] = lambda: None,
        tell: Callable[[LiveEcg], None] = lambda message: None,
        shed: Callable[[], Shed] = lambda: Shed.NOTHING,
    ) -> None:
        self.source = source
        delay_s = 0.0 if source.played else settings.delay_ms / 1e3
        self.track = Track(source, times, seconds, delay_s)
        self._trace = Trace(self.track, cleaner, self._tell)
        self._times, self._sound = times, sound
        self._exam, self._say, self._shed = exam, tell, shed
        self._stopped = threading.Event()
        self._told_s = 0.0
        self._gone_since: float | None = None
        self._word = ""

    def stop(self) -> None:
        """End soon. Safe to call twice."""
        self._stopped.set()
        self.source.stop()

    def run(self) -> None:
        """To be the work of a thread."""
        wait_s = _RETRY_S[0]
        while not self._stopped.is_set():
            try:
                self._begin()
                self.source.start()
                if self._copy():
                    wait_s = _RETRY_S[0]
                break
            except StethopiError as error:
                self._gone(str(error))
            except Exception as error:
                log.exception("the ECG stumbled; the sound goes on")
                self._gone(str(error))
            finally:
                self.source.stop()
            until = time.monotonic() + wait_s
            while time.monotonic() < until and not self._stopped.wait(0.2):
                self._tell_word()
            wait_s = min(2 * wait_s, _RETRY_S[1])
        rest = self.track.finish()
        self._trace.process(rest, self._exam())

    def _begin(self) -> None:
        """A recording begins with the sound: wait until that has begun."""
        begin_at: Any = getattr(self.source, "begin_at", None)
        if begin_at is None:
            return
        while (zero_s := self._times.at(0)) is None and not self._stopped.wait(0.02):
            pass
        if zero_s is not None:
            begin_at(zero_s)

    def _copy(self) -> bool:
        """Until the lead ends; whether anything came."""
        came = False
        while not self._stopped.is_set():
            if isinstance(self._times, Nominal) and not self._keep_pace():
                return came
            block = self.source.read()
            if block is None:
                return came
            came = True
            if self._gone_since is not None:
                log.info(
                    "ECG came back after %.1f s: %s", time.monotonic() - self._gone_since, self.source.name
                )
                self._gone_since = None
            self._take(block)
        return came

    def _keep_pace(self) -> bool:
        """Wait until the sound has come near. False when it has ended and the ECG has come to its end too."""
        sound = self._sound
        while not self._stopped.is_set():
            ahead_s = self.track.ring.end / self.track.ring.rate_hz - sound.end / sound.rate_hz
            if ahead_s < _AHEAD_S:
                return True
            if sound.closed:
                return False
            sound.wait(sound.end + 1, 0.1)
        return False

    def _take(self, block: EcgBlock) -> None:
        made = self.track.accept(block)
        if self.track.state != self._word and self.track.state not in ("on", "unknown") and self._exam():
            log.warning("ECG: %s", self.track.state)
        self._word = self.track.state
        shed = self._shed()
        self._trace.process(made, self._exam(), shed=shed >= Shed.DENOISING, silent=shed >= Shed.WAVEFORM)

    def _gone(self, why: str) -> None:
        self.track.gone()
        if self._gone_since is None:
            self._gone_since = time.monotonic()
            log.warning("ECG went away: %s; the sound goes on without", why)
        else:
            log.debug("ECG still away: %s", why)
        self._tell_word()

    def _tell_word(self) -> None:
        exam, now = self._exam(), time.monotonic()
        if exam is not None and now - self._told_s >= _TELL_S:
            self._tell(self._trace.word(exam))

    def _tell(self, message: LiveEcg) -> None:
        self._told_s = time.monotonic()
        self._say(message)
