"""What one button, one light and perhaps a keypad mean: the exam of somebody without a screen.

    short     begin an exam; in a site: end the exam; between sites: begin the next one
    long      in a site: that is enough of it; between sites: begin the next one
    double    hear this site again (between sites: the one before); before an exam: the same subject again
    held 5 s  in an exam: the light asks whether to throw it away; a short press within 8 s says yes
    held 10 s end all safely, and switch the machine off

docs/panel.md is the same in a user's words. The guide decides; the daemon does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from device.exam.plan import Phase
from device.exam.subjects import Subjects
from device.panel.button import Press
from device.panel.lamp import Lamp
from device.panel.light import Light

__all__ = ["ASK_S", "FLASH_S", "Actions", "Guide"]

log = logging.getLogger("guide")

ASK_S = 8.0
"""So long after the button was held, a short press throws the exam away."""
FLASH_S = 1.5
"""So long the light says what became of a code."""


class Actions(Protocol):
    """What can be done; `device.panel.exam_controls` does it. Each says whether it was done, or raises
    StethopiError.
    """

    @property
    def phase(self) -> Phase:
        """Of the exam that is under way."""

    def begin(self, same_subject: bool = False) -> bool: ...

    def stop(self) -> bool: ...

    def next_site(self) -> bool: ...

    def repeat_site(self) -> bool: ...

    def cancel(self) -> bool: ...

    def shut_down(self) -> bool: ...

    def louder(self, steps: int) -> bool: ...


class Guide:
    """What a press or a typed word means now."""

    def __init__(
        self,
        lamp: Lamp,
        actions: Actions,
        subjects: Subjects,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lamp = lamp
        self._do = actions
        self._subjects = subjects
        self._monotonic = monotonic
        self._asked_s: float | None = None

    @property
    def asking(self) -> bool:
        """The light asks whether to throw the exam away."""
        return self._asked_s is not None and self._monotonic() - self._asked_s < ASK_S

    def pressed(self, press: Press) -> None:
        """What a press means now. Raises StethopiError when it cannot be done."""
        asked, self._asked_s = self.asking, None
        if asked:
            self._lamp.flash(None)
        phase = self._do.phase
        busy = phase in (Phase.RECORDING, Phase.SETTLING, Phase.BETWEEN)
        if press is Press.SHUTDOWN:
            self._do.shut_down()
        elif press is Press.HELD:
            if busy:
                self._asked_s = self._monotonic()
                self._lamp.flash(Light.ASK_CANCEL, ASK_S)
        elif press is Press.SHORT and asked:
            self._do.cancel()
        elif press is Press.DOUBLE:
            if busy:
                self._do.repeat_site()
            else:
                self._do.begin(same_subject=True)
        elif press is Press.LONG or phase is Phase.BETWEEN:
            self._do.next_site()
        elif busy:
            self._do.stop()
        else:
            self._do.begin()

    def typed(self, word: str) -> None:
        """A word of the keypad."""
        if word in ("+", "-"):
            self._do.louder(1 if word == "+" else -1)
            return
        code = self._subjects.read(word)
        if code is None:
            log.warning("keypad: %r is no subject code, or one of its characters is wrong", word)
            self._lamp.flash(Light.CODE_WRONG, FLASH_S)
            return
        self._subjects.choose(code)
        log.info("the next exam is %s", code)
        self._lamp.flash(Light.CODE_TAKEN, FLASH_S)
