"""The sound's thread: from the queue into the chain, and what is left out of it when it is late."""

from __future__ import annotations

import logging
import queue
import threading
import time

from device.daemon.source_thread import Blocks, SourceThread
from device.exam.examiner import Examiner
from device.listening.outputs import Listener
from device.sources.base import Block
from device.stream.chain import SoundChain
from device.stream.shedding import Shed, Shedder

__all__ = ["GONE_AFTER_S", "SHED_WORDS", "SoundThread"]

log = logging.getLogger("daemon")

GONE_AFTER_S = 10.0
"""A source that is away for so long ends the exam with what there is."""

SHED_WORDS = {
    Shed.NOTHING: "nothing",
    Shed.WAVEFORM: "waveform",
    Shed.CLASSIFICATION: "classification",
    Shed.DENOISING: "denoising",
}


class SoundThread:
    """Takes blocks through the chain until the sound ends."""

    def __init__(
        self,
        blocks: Blocks,
        chain: SoundChain,
        examiner: Examiner,
        listener: Listener,
        *,
        rate_hz: int,
        shedder: Shedder,
        source: SourceThread,
        stop: threading.Event,
        over: threading.Event,
        fast: bool,
    ) -> None:
        """stop: the daemon was asked to end, so the sound did not by itself. over: set when no more sound is
        taken. fast: a source that is read as fast as it goes is never late.
        """
        self._blocks = blocks
        self._chain = chain
        self._examiner = examiner
        self._listener = listener
        self._rate_hz = rate_hz
        self._shedder = shedder
        self._source = source
        self._stop = stop
        self._over = over
        self._fast = fast
        self._ended_for_s: float | None = None

    def run(self) -> None:
        try:
            while True:
                try:
                    block = self._blocks.get(timeout=0.2)
                except queue.Empty:
                    if self._over.is_set():
                        return
                    self._notice_absence()
                    continue
                if block is None:
                    break
                shed = self._shedder.now
                # nothing waits and nothing is left out, as nearly always: there is nothing to decide
                if not self._fast and (shed or not self._blocks.empty()):
                    shed = self._late(block)
                self._chain.process(block, shed)
            self._finish()
        finally:
            self._listener.stop()
            self._over.set()

    def _finish(self) -> None:
        self._chain.finish()
        if self._stop.is_set():
            self._examiner.close()
        else:
            self._examiner.source_ended()
        self._chain.flush(self._shedder.now)
        self._source.ended()
        log.info("the sound has ended")

    def _late(self, block: Block) -> Shed:
        """What to leave out, from how much sound waits behind this block."""
        waiting_s = self._blocks.qsize() * len(block.samples) / self._rate_hz
        before = self._shedder.now
        now = self._shedder.update(waiting_s, time.monotonic())
        if now > before:
            log.warning("%.1f s late: %s left out", waiting_s, SHED_WORDS[now])
        elif now < before and now is Shed.NOTHING:
            log.info("in time again")
        return now

    def _notice_absence(self) -> None:
        since_s = self._source.gone_since_s
        if since_s is None or since_s == self._ended_for_s or time.monotonic() - since_s < GONE_AFTER_S:
            return
        self._ended_for_s = since_s
        self._examiner.source_gone()
