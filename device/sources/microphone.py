"""The microphone through PyAudio: a callback that copies, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np

from device.errors import SourceGone, StethopiError
from device.sources.capture import PERIOD_S, RATES_HZ, Capture, SampleClock
from device.sources.portaudio import alone, close_portaudio, find_device, open_portaudio, quiet

__all__ = ["PERIOD_S", "RATES_HZ", "Microphone", "SampleClock"]


class Microphone(Capture):
    """A microphone that PortAudio knows.

    `name`: part of the card's name; empty: the default. `rate_hz` 0: the first of RATES_HZ that opens.
    """

    def __init__(
        self,
        name: str = "",
        *,
        rate_hz: int = 0,
        channel: str = "left",
        monotonic: Callable[[], float] = time.monotonic,
        audio: Any = None,
    ) -> None:
        super().__init__(name, rate_hz=rate_hz, channel=channel, monotonic=monotonic)
        self.stuck = 0
        """How often the driver did not let go of a card that was gone."""
        self._given_audio = audio
        self._audio: Any = None
        self._stream: Any = None
        # a source knows its rate before it is started: the stage behind it is made from it
        self._open()
        self._close()

    def _start(self) -> None:
        # PortAudio looks for cards only when nobody holds it: listeners step aside for this moment
        with alone() if self._again and self._given_audio is None else nullcontext():
            super()._start()

    def _open(self) -> None:
        self._audio = self._given_audio or open_portaudio("microphone")
        try:
            card = find_device(self._audio, self._wanted, "input")
            reasons = []
            for rate_hz in (self.rate_hz,) if self.rate_hz else self._rates:
                # both where there are two, for the one that is wanted; some I2S cards have two or nothing
                for channels in (2, 1):
                    if channels > int(card["maxInputChannels"]):
                        continue
                    try:
                        self._stream = self._opened(card, rate_hz, channels)
                    except (OSError, ValueError) as error:
                        reasons.append(str(error.args[-1] if error.args else error))
                        continue
                    self.rate_hz, self.channels = rate_hz, channels
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

    def _begin(self) -> None:
        try:
            with quiet():
                self._stream.start_stream()
        except OSError as error:
            self._close()
            raise SourceGone(
                f"{self.name}: does not start ({error}); unplug it and plug it in again"
            ) from None

    def _callback(self, data: bytes, frames: int, _times: Any, status: int) -> tuple[None, int]:
        """PortAudio's thread: copy and go."""
        import pyaudio

        sound = np.frombuffer(data, np.float32).reshape(frames, -1)
        self._take(sound, bool(status & pyaudio.paInputOverflow))
        return None, pyaudio.paContinue

    def _runs(self) -> bool:
        try:
            return bool(self._stream.is_active())
        except (OSError, AttributeError):  # another thread has just closed it
            return False

    def _let_go(self) -> None:
        stream, self._stream = self._stream, None
        audio, self._audio = self._audio, None
        if (stream or audio) and not close_portaudio(
            stream, audio if audio is not self._given_audio else None
        ):
            self.stuck += 1
