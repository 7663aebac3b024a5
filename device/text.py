"""Text as people's programs write it: the one decoder for tables, settings, lists of codes and passwords."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import TextIO

__all__ = ["decoded", "one_line", "printable", "read_text"]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LOOKED_AT = 4096


def decoded(raw: bytes) -> str:
    """UTF-8 or UTF-16, each with or without a byte order mark, which is taken off; else Latin-1 (Windows-1252
    where it is that). Every file has a text; line ends stay as they are.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return raw[len(mark) :].decode(encoding, "replace")
    unmarked = _utf16(raw[:_LOOKED_AT])
    if unmarked:
        return raw.decode(unmarked, "replace")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        # a character cut in two at the end is a cut file, and no other encoding
        if error.reason == "unexpected end of data" and error.end == len(raw):
            return raw[: error.start].decode("utf-8")
    try:
        return raw.decode("cp1252")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _utf16(start: bytes) -> str | None:
    """UTF-16 without a mark shows by its zeros: every second byte of what is mostly ASCII."""
    even, odd = start[0::2].count(0), start[1::2].count(0)
    half = len(start) // 2
    if half < 2:
        return None
    if odd > 0.4 * half and even < 0.05 * half:
        return "utf-16-le"
    if even > 0.4 * half and odd < 0.05 * half:
        return "utf-16-be"
    return None


def read_text(path: Path) -> str:
    """A file's text, every line end as a newline. OSError as reading gives it."""
    return decoded(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n")


_PLAIN = {
    "–": "-",
    "—": "-",
    "…": "...",
    "µ": "u",
    "μ": "u",
    "±": "+/-",
    "→": "->",
    "·": "*",
    "×": "x",
    "²": "^2",
}


def printable(text: str, stream: TextIO) -> str:
    """The text as far as a stream can show it: a plain likeness of a sign (3-7 s), else an escape. Bytes of a
    file name that are no text are escapes on every stream.
    """
    try:
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
        return text
    except (UnicodeEncodeError, LookupError):
        plain = "".join(_PLAIN.get(sign, sign) for sign in text)
        return plain.encode("ascii", "backslashreplace").decode("ascii")


def one_line(text: str) -> str:
    """The text with line ends, and whatever else steers a terminal, as escapes."""
    return "".join(sign if sign >= " " and sign != "\x7f" else repr(sign)[1:-1] for sign in text)
