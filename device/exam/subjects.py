"""Pseudonymous codes for those who are examined: a letter or two, a number, a check character. Never a name.

A printed list is worked off from the top: each exam takes the next code, and whoever keeps the list writes
beside it whom it stands for. The check character (ISO/IEC 7064, MOD 37,36) finds every single wrong character
and nearly every swap of two neighbours in a code that is typed or read aloud.

    stethopi subjects --count 200 --prefix V3 --list codes.txt --sheet codes.html
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

from device.contract.vocabulary import is_subject_code
from device.durable import write_durably
from device.errors import BadInput, StethopiError
from device.text import read_text

__all__ = ["ALPHABET", "SubjectList", "check_character", "code", "codes", "is_whole", "Subjects"]

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SHAPE = r"[A-Za-z0-9-]{1,32}"
"""As the wire has it (device.contract)."""


def check_character(text: str) -> str:
    """The check character of letters and digits, capitals; other characters do not count.

    Source: ISO/IEC 7064:2003, hybrid system MOD 37,36.
    """
    product = 36
    for character in text.upper():
        if character not in ALPHABET:
            continue
        total = (product + ALPHABET.index(character)) % 36 or 36
        product = 2 * total % 37
    return ALPHABET[(37 - product) % 36]


def code(prefix: str, number: int) -> str:
    """`V3`, 42 → `V3-0042-` and its check character."""
    text = f"{prefix}-{number:04d}" if prefix else f"{number:04d}"
    return f"{text}-{check_character(text)}"


def codes(prefix: str, first: int, count: int) -> list[str]:
    """So many codes in order. BadInput for a prefix that cannot stand in one."""
    if not re.fullmatch(r"[A-Z0-9]{0,8}", prefix):
        raise BadInput(f"prefix {prefix}: must be up to 8 capitals and digits; use for instance V3")
    if not 1 <= count <= 10_000 or not 0 <= first <= 999_999:
        raise BadInput(f"{count} codes from {first} on: give 1 to 10000 codes, the first from 0 to 999999")
    return [code(prefix, number) for number in range(first, first + count)]


def is_whole(text: str) -> bool:
    """Whether the last character of a code is its check character."""
    bare = text.replace("-", "").upper()
    return len(bare) > 1 and check_character(bare[:-1]) == bare[-1]


class SubjectList:
    """A list of codes, one a line, with a place in it that is kept through power cuts.

    A code is used up before its exam begins: a cut at a bad moment skips one, and never gives two people the
    same. memory: the file that keeps the place.
    """

    def __init__(self, path: Path, memory: Path) -> None:
        self.path = path
        self._memory = memory
        try:
            lines = read_text(path).splitlines()
        except OSError as error:
            raise BadInput(
                f"{path}: the list of subject codes cannot be read ({error.strerror}); make one with: "
                f"stethopi subjects, or correct [exam] subjects"
            ) from None
        self.codes: list[str] = []
        for number, line in enumerate(lines, 1):
            text = line.split("#")[0].strip()
            if not text:
                continue
            if not re.fullmatch(_SHAPE, text):
                raise BadInput(
                    f"{path}: line {number}: {text!r} is no subject code; use letters, digits and '-', "
                    f"at most 32: a code, never a name"
                )
            if text in self.codes:
                raise BadInput(f"{path}: line {number}: {text} stands there twice; remove one")
            self.codes.append(text)
        self._next = self._remembered()

    def _remembered(self) -> int:
        try:
            last = json.loads(self._memory.read_text("utf-8"))["last"]
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError):
            # which codes are used up is not known: none of them is given to a second person
            return len(self.codes)
        return self.codes.index(last) + 1 if last in self.codes else 0

    @property
    def next(self) -> str | None:
        """The code that the next exam takes; None when they are used up."""
        return self.codes[self._next] if self._next < len(self.codes) else None

    @property
    def left(self) -> int:
        """How many are left."""
        return len(self.codes) - self._next

    def line(self, number: int) -> str | None:
        """The code with that number in the list, from 1; None where there is none."""
        return self.codes[number - 1] if 1 <= number <= len(self.codes) else None

    def take(self) -> str | None:
        """Use up the next code and give it; None when there is none. StethopiError when the place cannot be
        kept."""
        taken = self.next
        if taken is not None:
            self._keep(taken)
            self._next += 1
        return taken

    def use(self, text: str) -> None:
        """A code was given by hand: the list goes on after it."""
        if text in self.codes:
            self._keep(text)
            self._next = self.codes.index(text) + 1

    def give_back(self, text: str) -> None:
        """The exam was cancelled: if it was the last code taken, it is the next one again."""
        if self._next and self.codes[self._next - 1] == text:
            self._next -= 1
            self._keep(self.codes[self._next - 1] if self._next else "")

    def _keep(self, last: str) -> None:
        try:
            write_durably(self._memory, json.dumps({"last": last}).encode())
        except OSError as error:
            raise StethopiError(
                f"{self._memory}: the place in the list of subject codes cannot be kept ({error.strerror}); "
                f"free space on the disk"
            ) from None


log = logging.getLogger("guide")


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
