"""What a person can do with exams, by button, keypad or host."""

from __future__ import annotations

from collections.abc import Callable

from device.errors import StethopiError
from device.exam.examiner import Examiner
from device.exam.plan import Phase, Plan
from device.exam.subjects import Subjects

__all__ = ["ExamControls"]


class ExamControls:
    """Exams in the hands of a person.

    plan: of an exam for which no other is given. subjects: whose turn it is. louder, shut_down: what is not
    an exam's.
    """

    def __init__(
        self,
        plan: Plan,
        subjects: Subjects,
        louder: Callable[[int], None] = lambda steps: None,
        shut_down: Callable[[], bool] = lambda: False,
    ) -> None:
        self.plan = plan
        self.subjects = subjects
        self.examiner: Examiner | None = None
        """None until sound has come."""
        self._louder = louder
        self._shut_down = shut_down
        self._subject: str | None = None

    @property
    def phase(self) -> Phase:
        return self.examiner.phase if self.examiner else Phase.IDLE

    def start(self, plan: Plan, subject: str | None = None, *, again: bool = False) -> None:
        """Begin an exam, of this subject or of the one whose turn it is. again: of the one before.
        StethopiError when none can begin."""
        if self.examiner is None:
            raise StethopiError("no sound comes; check the microphone")
        if self.examiner.phase is not Phase.IDLE:
            raise StethopiError("an exam is under way; stop it first")
        if subject is not None:
            self.subjects.choose(subject)
        self._subject = self.subjects.take(again)
        try:
            self.examiner.start(plan, subject=self._subject)
        except StethopiError:
            self.give_back()
            raise

    def give_back(self) -> None:
        """The exam was cancelled: it is its subject's turn again."""
        self.subjects.cancelled(self._subject)

    def begin(self, same_subject: bool = False) -> bool:
        self.start(self.plan, again=same_subject)
        return True

    def stop(self) -> bool:
        return self.examiner is not None and self.examiner.stop()

    def next_site(self) -> bool:
        return self.examiner is not None and self.examiner.next_site()

    def repeat_site(self) -> bool:
        return self.examiner is not None and self.examiner.repeat_site()

    def cancel(self) -> bool:
        return self.examiner is not None and self.examiner.cancel()

    def shut_down(self) -> bool:
        return self._shut_down()

    def louder(self, steps: int) -> bool:
        self._louder(steps)
        return True
