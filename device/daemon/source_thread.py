"""The source's thread: it opens the source, copies its blocks, and stays with it through its losses."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from device.clock import Clock
from device.errors import SourceGone, StethopiError
from device.sources.base import Block, Source
from device.stream.timeline import Nominal, Timeline

__all__ = ["RETRY_S", "Blocks", "SourceThread"]

log = logging.getLogger("daemon")

RETRY_S = (0.25, 1.0)
"""How long after losing the source it is tried again, first and at most."""

Blocks = queue.Queue[Block | None]
"""From this thread to the sound's; None: the sound has ended."""


class SourceThread:
    """Copies what a source gives into a queue, whatever becomes of the source."""

    def __init__(
        self,
        open_source: Callable[[], Source],
        blocks: Blocks,
        *,
        begin: Callable[[Source], None],
        stop: threading.Event,
        sound_over: threading.Event,
        clock: Clock,
        gone: Callable[[bool], None],
        wait_for_it: bool,
        patient: bool,
        fast: bool,
    ) -> None:
        """begin: called once, when the source is open and its rate is known. sound_over: nobody takes blocks
        any more. gone: told when the source went away and when it came back. wait_for_it: a source that
        cannot be opened is tried again; patient: one that cannot be started is. fast: blocks wait for their
        turn, instead of being left out.
        """
        self.state = "starting"
        """As the health message says it: starting, running, gone or ended."""
        self.blocks_lost = 0
        """That the queue could not take."""
        self.last_sample_s: float | None = None
        self.gone_since_s: float | None = None
        """Since when it is known to be away, by `time.monotonic`."""
        self.tried_s = time.monotonic()
        """When it was last tried, likewise."""
        self.times: Timeline | Nominal | None = None
        """Is told when the samples were there."""
        self.tap: Callable[[Block], None] = lambda block: None
        """Raw sound for the ear takes no longer way than this."""
        self._open_source = open_source
        self._blocks = blocks
        self._begin = begin
        self._stop = stop
        self._sound_over = sound_over
        self._clock = clock
        self._tell_gone = gone
        self._wait_for_it, self._patient, self._fast = wait_for_it, patient, fast
        self._source: Source | None = None
        self._reading_since_s: float | None = None
        self._starts_again = False

    # ---- any thread

    def stop(self) -> None:
        """Let go of the source; a `read` that waits returns."""
        if self._source is not None:
            self._source.stop()

    @property
    def silent_s(self) -> float | None:
        """How long it has given nothing although it is read, be it from its start on; None while that says
        nothing of the source."""
        began_s = self._reading_since_s
        if began_s is None or self._starts_again or self._blocks.full():
            return None
        return self._clock.monotonic() - max(self.last_sample_s or 0.0, began_s)

    def give_up(self, why: str) -> None:
        """It gives nothing more: as if it had gone. `stop` has it started again."""
        self._starts_again = True
        self._say_gone(why)

    def ended(self) -> None:
        """All its sound has been heard."""
        self.state = "ended"

    # ---- its thread

    def run(self) -> None:
        source = self._open()
        if source is None:
            return
        self._source = source
        self._begin(source)
        wait_s = RETRY_S[0]
        while not self._stop.is_set():
            self.tried_s = time.monotonic()
            try:
                source.start()
                wait_s = RETRY_S[0]
                self._read(source)
            except SourceGone as gone:
                self._say_gone(str(gone))
            except StethopiError as error:
                if not self._patient:
                    raise
                self._say_gone(str(error))
            else:
                if self._stop.is_set() or not self._starts_again:
                    break
                self._starts_again = False
            finally:
                source.stop()
            self._stop.wait(wait_s)
            wait_s = min(2 * wait_s, RETRY_S[1])
        self._put(None)

    def _open(self) -> Source | None:
        wait_s = RETRY_S[0]
        while not self._stop.is_set():
            self.tried_s = time.monotonic()
            try:
                return self._open_source()
            except StethopiError as error:
                if not self._wait_for_it:
                    raise
                self._say_gone(str(error))
            self._stop.wait(wait_s)
            wait_s = min(2 * wait_s, RETRY_S[1])
        return None

    def _read(self, source: Source) -> None:
        self._reading_since_s = self._clock.monotonic()
        try:
            while not self._stop.is_set():
                block = source.read()
                if block is None:
                    return
                self._copy(source, block)
        finally:
            self._reading_since_s = None

    def _copy(self, source: Source, block: Block) -> None:
        """Copies, and nothing else."""
        self.last_sample_s = self._clock.monotonic()
        if self.gone_since_s is not None:
            self._say_back(source)
        self.state = "running"
        if isinstance(self.times, Timeline):
            end = block.index + len(block.samples)
            self.times.note(end, block.monotonic_s, broken=block.lost > 0)
        self.tap(block)
        self._put(block)

    def _put(self, item: Block | None) -> None:
        if self._fast or item is None:
            while not self._sound_over.is_set():
                try:
                    self._blocks.put(item, timeout=0.2)
                    return
                except queue.Full:
                    continue
            return
        try:
            self._blocks.put_nowait(item)
        except queue.Full:
            # the next block's index tells the intake, which marks the gap
            self.blocks_lost += 1

    def _say_gone(self, why: str) -> None:
        self.state = "gone"
        if self.gone_since_s is None:
            self.gone_since_s = time.monotonic()
            self._tell_gone(True)
            log.warning("source went away: %s", why)
        else:
            log.debug("source still away: %s", why)

    def _say_back(self, source: Source) -> None:
        assert self.gone_since_s is not None
        log.info("source came back after %.1f s: %s", time.monotonic() - self.gone_since_s, source.name)
        self.gone_since_s = None
        self._tell_gone(False)
