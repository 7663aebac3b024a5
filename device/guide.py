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

from device.exam import Phase
from device.messages import is_subject_code
from device.panel import Lamp, Light, Press
from device.subjects import SubjectList, is_whole

__all__ = ["ASK_S", "FLASH_S", "Actions", "Guide", "Subjects"]

log = logging.getLogger("guide")

ASK_S = 8.0
"""So long after the button was held, a short press throws the exam away."""
FLASH_S = 1.5
"""So long the light says what became of a code."""


class Actions(Protocol):
    """What can be done; `device.daemon` does it. Each says whether it was done, or raises StethopiError."""

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


class Subjects:
    """Whose exam the next one is: a code that was typed, or the next of the list, or nobody's."""

    def __init__(self, listed: SubjectList | None = None) -> None:
        self.listed = listed
        self._typed: str | None = None
        self._last: str | None = None
        self._told_empty = False

    def read(self, word: str) -> str | None:
        """A word of the keypad as a code; None when it is none.

        Digits alone are a line of the list. A code of the list is right as it stands, any other must end with
        its check character.
        """
        listed = self.listed
        if listed is not None:
            if word.isdigit() and (code := listed.line(int(word))) is not None:
                return code
            for code in listed.codes:
                if code.upper() == word.upper():
                    return code
        return word if is_subject_code(word) and is_whole(word) else None

    def choose(self, code: str) -> None:
        """The next exam is this one's."""
        self._typed = code

    def forget(self) -> None:
        """Take back what was chosen."""
        self._typed = None

    @property
    def next(self) -> str | None:
        """Whose exam the next one is, as it stands now."""
        return self._typed or (self.listed.next if self.listed is not None else None)

    def take(self, again: bool = False) -> str | None:
        """The code of the exam that begins now. again: that of the exam before."""
        if again and self._last is not None:
            return self._last
        code, self._typed = self._typed, None
        if code is None and self.listed is not None:
            code = self.listed.take()
            if code is None and not self._told_empty:
                log.warning("%s: all subject codes are used up; exams go on without", self.listed.path)
            self._told_empty = code is None
        elif code is not None and self.listed is not None:
            self.listed.use(code)
        self._last = code
        return code

    def cancelled(self, code: str | None) -> None:
        """The exam with this code came to nothing."""
        if code is not None and self.listed is not None:
            self.listed.give_back(code)


class Guide:
    """From presses and words to actions and lights."""

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
