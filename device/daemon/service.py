"""The daemon as a service of systemd: ready, alive, and why not.

`Notifier` speaks the notify protocol (sd_notify(3)) over a datagram socket; without systemd it says nothing.
`Watchdog` decides whether the daemon may say that it is alive. Not a living process, but these feed it:

    samples     sound that has passed the whole sound thread; while the source is known to be away, each try
                to get it back
    judge       the classifier's loop
    uplink      the uplink's loop, whether the broker is there or not

When one of them stands still, that is said once and the watchdog is fed no more; systemd then starts the
service again. So it does for a source that has been away for an hour: a fresh process may find it.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO

__all__ = ["Notifier", "Signs", "Watchdog", "start_logging"]

log = logging.getLogger("service")

SAMPLES_S = 30.0
"""No sample for so long: the sound stands still. The daemon itself tries to mend it after 10 s."""
TRIED_S = 60.0
"""So long one try to open a lost source may take."""
AWAY_S = 3600.0
"""After so long without its source, a fresh process tries."""
JUDGE_S = 120.0
"""One window takes milliseconds; writing an exam to a worn card may take long."""
UPLINK_S = 120.0
"""Looking up a name without a network may take long."""


class Notifier:
    """Says to systemd what the service does. Never fails: who does not listen is not told."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self.watchdog_s: float | None = None
        """systemd waits so long for a sign of life; None: it does not."""
        meant = environment.get("WATCHDOG_PID", "")
        if self._address and meant in ("", str(os.getpid())):
            try:
                self.watchdog_s = int(environment["WATCHDOG_USEC"]) / 1e6 or None
            except (KeyError, ValueError):
                pass
        self._socket: socket.socket | None = None

    def say(self, **fields: object) -> None:
        """Tell, as in `say(READY=1, STATUS="listening")`."""
        if not self._address:
            return
        text = "\n".join(f"{key}={' '.join(str(value).split())}" for key, value in fields.items())
        # a leading @ stands for the zero byte of an abstract address
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
            self._socket.sendto(text.encode(), address)
        except OSError as error:
            log.debug("systemd does not listen: %s", error)

    def close(self) -> None:
        """Safe twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@dataclass(frozen=True)
class Signs:
    """What the daemon's threads have done so far. Times are monotonic seconds."""

    heard: int
    """Working-rate samples that have passed the sound thread."""
    ended: bool
    """The sound has ended as it should: a file."""
    away_since_s: float | None
    """Since when the source is known to be away."""
    tried_s: float
    """When it was last tried."""
    judge_s: float | None
    """When the judge's loop last went round; None before it has begun."""
    uplink_s: float | None
    """The same of the uplink's; None where there is none."""


class Watchdog:
    """Feeds systemd's watchdog while everything goes on."""

    def __init__(self, notifier: Notifier, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._notifier = notifier
        self._monotonic = monotonic
        self._heard = 0
        self._heard_s = monotonic()
        self._fed_s = float("-inf")
        self.starves: str | None = None
        """What stands still."""

    def look(self, signs: Signs) -> None:
        """To be called a few times a second, by the main thread."""
        now = self._monotonic()
        if signs.heard != self._heard or signs.ended:
            self._heard, self._heard_s = signs.heard, now
        stopped = self._stopped(signs, now)
        if stopped and not self.starves:
            log.error("%s; the watchdog is not fed any more", stopped)
        elif self.starves and not stopped:
            log.info("all goes on; the watchdog is fed again")
        self.starves = stopped
        every_s = (self._notifier.watchdog_s or 0.0) / 4
        if every_s and not stopped and now - self._fed_s >= every_s:
            self._fed_s = now
            self._notifier.say(WATCHDOG=1)

    def _stopped(self, signs: Signs, now: float) -> str | None:
        if signs.away_since_s is not None:
            self._heard_s = now  # when it is back, it has its time again
            if now - signs.tried_s > TRIED_S:
                return f"the source is away and was not tried for {now - signs.tried_s:.0f} s"
            if now - signs.away_since_s > AWAY_S:
                return f"the source has been away for {(now - signs.away_since_s) / 60:.0f} minutes"
        elif now - self._heard_s > SAMPLES_S:
            return f"no sample for {now - self._heard_s:.0f} s"
        if signs.judge_s is not None and now - signs.judge_s > JUDGE_S:
            return f"the classifier's loop has stood still for {now - signs.judge_s:.0f} s"
        if signs.uplink_s is not None and now - signs.uplink_s > UPLINK_S:
            return f"the uplink's loop has stood still for {now - signs.uplink_s:.0f} s"
        return None


class _Journal(logging.Formatter):
    """The priority in front of each line, as journald reads it (sd-daemon(3)); it has the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        level = next(mark for least, mark in _PRIORITIES if record.levelno >= least)
        # every line of a traceback is a line of the journal
        return "\n".join(f"<{level}>{line}" for line in super().format(record).splitlines())


_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))


def _is_journal(stream: IO[str], environment: Mapping[str, str]) -> bool:
    """Whether the stream goes to journald: systemd says which device and inode that is."""
    try:
        about = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{about.st_dev}:{about.st_ino}"


def start_logging(stream: IO[str] | None = None, environment: Mapping[str, str] = os.environ) -> None:
    """One line an event on stderr; with a priority for journald where it listens."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    journal = _is_journal(stream, environment)
    form = "%(name)s: %(message)s" if journal else "%(levelname)-7s %(name)s: %(message)s"
    handler.setFormatter((_Journal if journal else logging.Formatter)(form))
    level = logging.DEBUG if environment.get("DEBUG") else logging.INFO
    logging.basicConfig(level=level, handlers=[handler])
