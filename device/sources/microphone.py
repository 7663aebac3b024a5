"""The microphone: a PyAudio callback that copies, a bounded queue that counts, and a clock that finds what is
missing.

Nothing is lost in silence. Samples that the queue had no room for are counted; what the card or its driver
lost is found by comparing the count of samples with the monotonic clock. Both are told in `Block.lost`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np

from device.errors import SourceGone, StethopiError
from device.sources.base import Block
from device.sources.portaudio import close_portaudio, find_device, open_portaudio, quiet

__all__ = ["RATES_HZ", "Microphone", "SampleClock"]

RATES_HZ = (48000, 44100, 16000, 96000, 8000)
"""Tried in this order: what most cards do by themselves comes first."""

PERIOD_S = 0.01
"""Sound in one callback: the capture period."""

_QUEUE_S = 2.0
_SILENT_S = 2.0
"""A card that gives nothing for so long is gone, whatever its driver says."""
_FIRST_S = 6.0
"""A sound server may take its time over the first sample."""


class SampleClock:
    """Finds lost samples by comparing their count with the monotonic clock.

    A callback can come late but never early, so the least lateness of each second is compared with that of
    the seconds before: it creeps with the card's crystal (at most some 0.1 ms in 10 s) and jumps when samples
    are missing.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._least: deque[float] = deque(maxlen=10)  # of the seconds before
        self._now = inf  # of this second
        self._second_ends = -inf
        self.lateness_s = 0.0
        """Of the last callback, beyond the least of the last seconds."""

    def note(self, end: int, monotonic_s: float, overflowed: bool = False) -> int:
        """At `monotonic_s` the samples before `end` were there. How many must have been lost before them.

        `overflowed`: the driver says that it lost some, so even a small jump is believed, and at once.
        """
        late = monotonic_s - end / self._rate_hz
        usual = min(self._least, default=self._now)
        self.lateness_s = max(late - usual, 0.0) if usual < inf else 0.0
        if overflowed and usual < inf and late - usual > PERIOD_S / 2:
            return self._lost(late - usual)
        self._now = min(self._now, late)
        if monotonic_s < self._second_ends:
            return 0
        first = self._second_ends == -inf
        self._second_ends = monotonic_s + 1.0
        if first:
            return 0
        jump = self._now - min(self._least, default=self._now)
        if jump > 0.05:
            return self._lost(jump)
        self._least.append(self._now)
        self._now = inf
        return 0

    def _lost(self, seconds: float) -> int:
        # from now on the index is ahead by what was lost, and lateness is as before
        self._now = inf
        return round(seconds * self._rate_hz)


class Microphone:
    """A microphone as a source of sound. Started again after SourceGone it goes on counting: the time between
    is lost.

    `name`: part of the card's name; empty: the default. `rate_hz` 0: the first of RATES_HZ that opens.
    """

    def __init__(
        self,
        name: str = "",
        *,
        rate_hz: int = 0,
        monotonic: Callable[[], float] = time.monotonic,
        audio: Any = None,
    ) -> None:
        self.name = f"microphone {name}".rstrip()
        self.period_s = PERIOD_S
        self.dropped = 0
        """Samples that came while the queue was full."""
        self.overflows = 0
        """How often the driver said that it had lost samples."""
        self.stuck = 0
        """How often the driver did not let go of a card that was gone."""
        self.notes: list[str] = []
        self._wanted = name
        self._rates = (rate_hz,) if rate_hz else RATES_HZ
        self._monotonic = monotonic
        self._given_audio = audio
        self._audio: Any = None
        self._stream: Any = None
        self._channels = 1
        self._queue: deque[tuple[bytes, float, bool, int]] = deque()
        self._queued = 0
        self._dropped_now = 0
        self._heard = threading.Condition()
        self._stopped = False
        self._index = 0
        self._last_s: float | None = None
        self._started_s = 0.0
        # a source knows its rate before it is started: the stage behind it is made from it
        self.rate_hz = 0
        self._open()
        self._close()

    def _open(self) -> None:
        """Find the card and open it, stopped. Raises StethopiError with the remedy."""
        self._audio = self._given_audio or open_portaudio("microphone")
        try:
            card = find_device(self._audio, self._wanted, "input")
            reasons = []
            for rate_hz in (self.rate_hz,) if self.rate_hz else self._rates:
                # some I2S cards have two channels or nothing
                for channels in (1, 2):
                    if channels > int(card["maxInputChannels"]):
                        continue
                    try:
                        self._stream = self._opened(card, rate_hz, channels)
                    except (OSError, ValueError) as error:
                        reasons.append(str(error.args[-1] if error.args else error))
                        continue
                    self.rate_hz, self._channels = rate_hz, channels
                    self.name = f"microphone {card['name']}"
                    return
            tried = ", ".join(map(str, self._rates))
            raise StethopiError(
                f'microphone "{card["name"]}" opens at none of {tried} Hz '
                f"({reasons[-1] if reasons else 'no channel'}); "
                f"end what else records from it, or set another rate_hz"
            )
        except BaseException:
            self._close()
            raise

    def _opened(self, card: dict[str, Any], rate_hz: int, channels: int) -> Any:
        import pyaudio

        with quiet():
            return self._audio.open(
                rate=rate_hz,
                channels=channels,
                format=pyaudio.paFloat32,  # PortAudio scales whatever the card gives to ±1
                input=True,
                input_device_index=int(card["index"]),
                frames_per_buffer=round(rate_hz * PERIOD_S),
                start=False,
                stream_callback=self._callback,
            )

    def start(self) -> None:
        again = self._last_s is not None
        try:
            self._open()
            with quiet():
                self._stream.start_stream()
        except StethopiError as error:
            if again:
                raise SourceGone(str(error)) from None
            raise
        except OSError as error:
            self._close()
            raise SourceGone(
                f"{self.name}: does not start ({error}); unplug it and plug it in again"
            ) from None
        self._clock = SampleClock(self.rate_hz)
        self._started_s = self._monotonic()
        self._stopped = False

    def _callback(self, data: bytes, frames: int, _times: Any, status: int) -> tuple[None, int]:
        """PortAudio's thread: copy and go."""
        import pyaudio

        with self._heard:
            if self._queued + frames > _QUEUE_S * self.rate_hz:
                self._dropped_now += frames
            else:
                overflowed = bool(status & pyaudio.paInputOverflow)
                self._queue.append((data, self._monotonic(), overflowed, self._dropped_now))
                self._queued += frames
                self._dropped_now = 0
                self._heard.notify()
        return None, pyaudio.paContinue

    def read(self) -> Block | None:
        with self._heard:
            while not self._queue:
                if self._stopped or self._stream is None:
                    return None
                if not self._alive():
                    break
                self._heard.wait(0.1)
            item = self._queue.popleft() if self._queue else None
            if item:
                self._queued -= len(item[0]) // 4 // self._channels
            elif self._stopped:
                return None
        if item is None:
            gone = f"{self.name}: gives no sound any more; plug it in again"
            self._close()
            raise SourceGone(gone)
        return self._block(*item)

    def _alive(self) -> bool:
        """Whether sound can still be expected."""
        heard = self._last_s is not None and self._last_s >= self._started_s
        since, patience = (self._last_s, _SILENT_S) if heard else (self._started_s, _FIRST_S)
        if self._monotonic() - (since or 0.0) > patience:
            return False
        try:
            return bool(self._stream.is_active())
        except (OSError, AttributeError):  # another thread has just closed it
            return False

    def _block(self, data: bytes, monotonic_s: float, overflowed: bool, dropped: int) -> Block:
        samples = np.frombuffer(data, np.float32)
        if self._channels > 1:
            samples = samples[:: self._channels].copy()
        n = len(samples)
        lost = dropped
        if self._last_s is not None and self._last_s < self._started_s:  # it was away
            lost += max(round((monotonic_s - self._last_s) * self.rate_hz) - n, 0)
        lost += self._clock.note(self._index + lost + n, monotonic_s, overflowed)
        self.dropped += dropped
        self.overflows += overflowed
        self._index += lost
        block = Block(samples, self._index, monotonic_s, lost)
        self._index += n
        self._last_s = monotonic_s
        return block

    def stop(self) -> None:
        with self._heard:
            self._stopped = True
            self._heard.notify_all()
        self._close()

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        audio, self._audio = self._audio, None
        if (stream or audio) and not close_portaudio(
            stream, audio if audio is not self._given_audio else None
        ):
            self.stuck += 1
        with self._heard:
            self._queue.clear()
            self._queued = 0
