"""What the host asks for, and what is answered."""

from __future__ import annotations

import logging
from collections.abc import Callable

from device.contract.control import Answer, Command
from device.contract.vocabulary import is_subject_code
from device.errors import StethopiError
from device.exam.examiner import plan_for
from device.listening.control import ListeningControl
from device.panel.button_actions import FLASH_S
from device.panel.exam_controls import ExamControls
from device.panel.lamp import Lamp
from device.panel.light import Light

__all__ = ["Commands"]

log = logging.getLogger("daemon")


class Commands:
    """Obeys the host."""

    def __init__(
        self, controls: ExamControls, listening: ListeningControl, lamp: Lamp, status: Callable[[], str]
    ) -> None:
        """status: how the daemon is, in words."""
        self._controls = controls
        self._listening = listening
        self._lamp = lamp
        self._status = status

    def obey(self, command: Command) -> Answer:
        """Do it; what became of it. Never raises StethopiError."""
        try:
            ok, says = self._do(command)
        except StethopiError as error:
            ok, says = False, str(error)[:300]
        examiner = self._controls.examiner
        exam = examiner.exam_id if examiner else None
        listening = self._listening.now if command.name == "listen" else None
        return Answer(command.id, command.name, ok, says, exam, listening=listening)

    def _do(self, command: Command) -> tuple[bool, str]:
        """(whether it was done, what to say) of a command."""
        controls = self._controls
        if command.name == "status":
            return True, self._status()
        if command.name == "listen" and command.listen is not None:
            return True, self._listening.change(command.listen)
        if command.name == "subject":
            return self._next_subject(command.args.get("code", "").strip())
        if command.name not in ("start", "stop", "next"):
            return False, "unknown command"
        if controls.examiner is None:
            return False, "no sound comes; check the microphone"
        if command.name == "start":
            return self._start(command)
        if command.name == "stop":
            done = controls.stop()
            return done, "stopping" if done else "no exam is under way"
        done = controls.next_site()
        return done, "next site" if done else "there is no next site"

    def _start(self, command: Command) -> tuple[bool, str]:
        plan = plan_for(command.args.get("sites") or command.args.get("site"), self._controls.plan)
        subject = command.args.get("subject") or None
        if subject is not None and not is_subject_code(subject):
            return False, "subject: letters, digits and '-', at most 32: a code, never a name"
        self._controls.start(plan, subject)
        return True, f"recording {plan.name(0)}"

    def _next_subject(self, word: str) -> tuple[bool, str]:
        """Whose the next exam is, told from the host; by the keypad's rules, for a hand has typed it too."""
        subjects = self._controls.subjects
        if word:
            code = subjects.read(word)
            if code is None:
                return False, f"{word[:40]!r} is no subject code, or one of its characters is wrong"
            subjects.choose(code)
        else:
            subjects.forget()
        told = subjects.next
        log.info("the next exam is %s, the host says", told or "nobody's")
        self._lamp.flash(Light.CODE_TAKEN, FLASH_S)
        return True, f"the next exam is {told}" if told else "the next exam has no code"
