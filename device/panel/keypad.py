"""A QR reader or a keypad: what is typed without a screen, from Linux's input events or from lines of text.

A QR reader on USB is a keyboard that types what it reads, and Enter. `Decoder` turns the kernel's events
(struct input_event, linux/input.h) into words and signs; `Keypad` reads a device, and again when it was
unplugged.

    evdev            the first keyboard under /dev/input/by-id
    evdev:PATH       this one
    text:PATH        lines of text: a serial reader, a pipe
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import struct
import threading
from collections.abc import Callable
from pathlib import Path

__all__ = ["EVENT", "Decoder", "Keypad"]

log = logging.getLogger("keypad")

EVENT = struct.Struct("llHHi")
"""Seconds, microseconds, type, code, value: 24 bytes on a machine of 64 bits, 16 on one of 32."""

_EV_KEY = 1
_GRAB = 0x40044590
"""EVIOCGRAB: what is typed goes nowhere else."""
_ENTER, _ERASE, _ESCAPE = (28, 96), 14, 1
_SHIFT = (42, 54)
_KEYS = {
    **dict(zip(range(2, 12), "1234567890", strict=True)),
    **dict(zip(range(16, 26), "QWERTYUIOP", strict=True)),
    **dict(zip(range(30, 39), "ASDFGHJKL", strict=True)),
    **dict(zip(range(44, 51), "ZXCVBNM", strict=True)),
    **dict(zip((71, 72, 73, 75, 76, 77, 79, 80, 81, 82), "7894561230", strict=True)),
    12: "-",
}
_SIGNS = {78: "+", 74: "-", 115: "+", 114: "-"}
"""Plus and minus of a keypad, louder and softer of a keyboard."""
_MOST = 64
_RETRY_S = 2.0
_BY_ID = Path("/dev/input/by-id")


class Decoder:
    """Bytes of input events, in pieces of any length → words, at Enter, and the signs + and -.

    A minus of the keypad is a sign while nothing has been typed, and belongs to the code after that.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._typed = ""

    def feed(self, data: bytes) -> list[str]:
        """What became whole."""
        data = self._rest + data
        whole = len(data) // EVENT.size * EVENT.size
        self._rest = data[whole:]
        found = []
        for _, _, kind, key, value in EVENT.iter_unpack(data[:whole]):
            if kind == _EV_KEY and value == 1 and (word := self._key(key)):
                found.append(word)
        return found

    def _key(self, key: int) -> str:
        if key in _ENTER:
            typed, self._typed = self._typed, ""
            return typed
        if key in _SIGNS and not (self._typed and _SIGNS[key] == "-"):
            return _SIGNS[key]
        if key == _ERASE:
            self._typed = self._typed[:-1]
        elif key == _ESCAPE:
            self._typed = ""
        else:
            self._typed = (self._typed + (_KEYS.get(key) or _SIGNS.get(key, "")))[-_MOST:]
        return ""


class _Lines:
    """The same for lines of text."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        *lines, rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        self._rest = rest[-_MOST:]
        return [word for line in lines if (word := line.decode("utf-8", "replace").strip()[:_MOST])]


class Keypad:
    """Hands on each word that a device types, by a thread of its own. spec: as in `[panel] keyboard`."""

    def __init__(self, spec: str, on_word: Callable[[str], None], *, by_id: Path = _BY_ID) -> None:
        self._kind, _, self._path = spec.partition(":")
        self._on_word = on_word
        self._by_id = by_id
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._away = False
        self._wake = os.pipe()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="keypad", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Safe to call twice."""
        if self._ended.is_set():
            return
        self._ended.set()
        os.write(self._wake[1], b"x")
        if self._thread is not None:
            self._thread.join()
        for end in self._wake:
            os.close(end)

    def _run(self) -> None:
        while not self._ended.is_set():
            path = self._found()
            why = "no keyboard under /dev/input/by-id"
            if path is not None:
                try:
                    self._read(path)
                    why = f"{path} has ended"
                except OSError as error:
                    why = f"{path}: {error.strerror}"
            if not self._away and not self._ended.is_set():
                self._away = True
                log.warning("keypad went away: %s; plug it in, or set [panel] keyboard", why)
            self._ended.wait(_RETRY_S)

    def _found(self) -> Path | None:
        if self._path:
            return Path(self._path)
        return next(iter(sorted(self._by_id.glob("*-event-kbd"))), None)

    def _read(self, path: Path) -> None:
        decoder = _Lines() if self._kind == "text" else Decoder()
        # a pipe that nobody writes to yet must not keep this thread from ending
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if self._kind == "evdev":
                with contextlib.suppress(OSError):
                    fcntl.ioctl(number, _GRAB, 1)
            while not self._ended.is_set():
                ready, _, _ = select.select([number, self._wake[0]], [], [])
                if number not in ready:
                    continue
                data = os.read(number, 4096)
                if not data:
                    return
                if self._away:
                    self._away = False
                    log.info("keypad came back: %s", path)
                for word in decoder.feed(data):
                    self._on_word(word)
        finally:
            os.close(number)
