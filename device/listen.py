"""What goes to the ear: raw or clean sound, with gain and a soft limiter, to a loudspeaker or into a WAV
file.

The sound thread calls `hear` and is never kept waiting: what the output cannot take in time is dropped and
counted. Wherever sound begins, ends or is torn, it fades within 10 ms, so that nothing pops in the ear.

    output "none"          nobody listens
    output "device[:NAME]" a sound card through PyAudio, by part of its name
    output "file:PATH"     WAV, 24 bit, 2 kHz; it gets its name when listening ends
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from device.errors import StethopiError
from device.rates import HOP, WORKING_RATE_HZ
from device.resample import Interpolator
from device.settings import ListenSettings
from device.sources.files import wav_header
from device.sources.portaudio import close_portaudio, find_device, open_portaudio, quiet

__all__ = ["DeviceListener", "FileListener", "Listener", "NoListener", "Shaper", "open_listener"]

FADE = WORKING_RATE_HZ // 100
"""Samples of a fade: 10 ms."""

PREFILL_S = 0.04
"""Sound that waits before a device begins to play, against the unevenness of both sides."""

_OUTPUT_RATES_HZ = (48000, 44100, 16000, 8000, 96000)
_PERIOD_S = 0.01
_DEVICE_QUEUE = WORKING_RATE_HZ // 4
_FILE_QUEUE = 120 * WORKING_RATE_HZ


class Listener(Protocol):
    """Somewhere to send sound to. `hear` returns at once, whatever happens."""

    dropped: int
    """Samples at the working rate that the output could not take in time."""
    underruns: int
    """How often the output had nothing to play."""

    @property
    def delay_s(self) -> float:
        """From `hear` to the ear: waiting sound and filter; 0 where no ear waits."""

    def start(self) -> None:
        """Begin. Raises StethopiError with the remedy."""

    def hear(self, raw: np.ndarray, clean: np.ndarray) -> None:
        """The next working-rate sound, float32 (n,), both aligned with each other."""

    def stop(self) -> None:
        """Fade out and end. Safe to call twice."""


def open_listener(settings: ListenSettings) -> Listener:
    """The listener that `[listen]` asks for, not yet started."""
    kind, _, rest = settings.output.partition(":")
    if kind == "file":
        return FileListener(Path(rest), settings)
    if kind == "device":
        return DeviceListener(rest, settings)
    return NoListener()


class NoListener:
    """Nobody listens."""

    dropped = 0
    underruns = 0
    delay_s = 0.0

    def start(self) -> None:
        pass

    def hear(self, raw: np.ndarray, clean: np.ndarray) -> None:
        pass

    def stop(self) -> None:
        pass


class Shaper:
    """Gain, soft limiter, fades; working rate, sample by sample, so that any chopping gives the same sound.

    Up to 70 % of `limit` the sound is only amplified; above it bends, and never passes `limit`.
    """

    def __init__(self, gain_db: float = 0.0, limit: float = 1.0) -> None:
        self._gain = 10.0 ** (gain_db / 20.0)
        self._target = self._gain
        self._limit = limit
        self._faded = 0  # samples of the fade-in that are behind us
        self._last = 0.0

    def set_gain_db(self, gain_db: float) -> None:
        """A new gain, reached within the next sound that comes."""
        self._target = 10.0 ** (gain_db / 20.0)

    def process(self, x: np.ndarray) -> np.ndarray:
        """float32 (n,) → float32 (n,), within ±limit."""
        x = np.asarray(x, dtype=np.float32)
        if not len(x):
            return x
        gain: Any = np.float32(self._gain)
        if self._target != self._gain:
            gain = np.linspace(self._gain, self._target, len(x), dtype=np.float32)
            self._gain = self._target
        y = x * gain
        knee = np.float32(0.7 * self._limit)
        room = np.float32(self._limit) - knee
        over = np.maximum(np.abs(y) - knee, 0.0)
        y = np.where(over > 0, np.copysign(knee + room * np.tanh(over / room), y), y)
        if self._faded < FADE:
            at = np.minimum(np.arange(self._faded + 1, self._faded + 1 + len(y)), FADE)
            y = y * (0.5 - 0.5 * np.cos(np.pi * at / FADE))
            self._faded = min(self._faded + len(y), FADE)
        y = y.astype(np.float32)
        self._last = float(y[-1])
        return y

    def tail(self) -> np.ndarray:
        """What follows the last sample when sound stops here: it fades to nothing, float32 (20,); then a new
        start."""
        fade = 0.5 + 0.5 * np.cos(np.pi * np.arange(1, FADE + 1) / FADE)
        tail = (self._last * fade).astype(np.float32)
        self._faded, self._last = 0, 0.0
        return tail


class FileListener:
    """Writes what would be heard into a WAV file. Its header is right at every moment, its name comes at the
    end."""

    def __init__(self, path: Path, settings: ListenSettings) -> None:
        self.dropped = 0
        self.underruns = 0
        self.delay_s = 0.0
        self.problem: str | None = None
        """Why writing ended early; None while all is well."""
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._raw = settings.monitor == "raw"
        self._shaper = Shaper(settings.gain_db, settings.limit)
        self._queue: deque[tuple[int, np.ndarray]] = deque()  # (samples dropped before, sound)
        self._queued = 0
        self._dropped_now = 0
        self._more = threading.Condition()
        self._ending = False
        self._frames = 0
        self._file: Any = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb")
            self._file.write(wav_header(0, WORKING_RATE_HZ, 24))
        except OSError as error:
            raise StethopiError(
                f"{self._path}: cannot be written ({error.strerror}); choose another file in [listen] output"
            ) from None
        self._thread = threading.Thread(target=self._write_all, name="listen", daemon=True)
        self._thread.start()

    def hear(self, raw: np.ndarray, clean: np.ndarray) -> None:
        x = raw if self._raw else clean
        with self._more:
            if self._queued + len(x) > _FILE_QUEUE or self.problem:
                self.dropped += len(x)
                self._dropped_now += len(x)
                return
            self._queue.append((self._dropped_now, np.array(x, dtype=np.float32)))
            self._queued += len(x)
            self._dropped_now = 0
            self._more.notify()

    def _write_all(self) -> None:
        ended = False
        while not ended:
            with self._more:
                # half a second at a time is enough: this file is not for the ear of the moment
                self._more.wait_for(lambda: self._ending or self._queued >= WORKING_RATE_HZ // 2)
                items, self._queued, ended = list(self._queue), 0, self._ending
                self._queue.clear()
            pieces = []
            for dropped, x in items:
                if dropped:  # silence in place of what is missing: the rest stays where it was
                    tail = self._shaper.tail()
                    pieces.append(np.concatenate([tail, np.zeros(dropped, np.float32)])[:dropped])
                pieces.append(self._shaper.process(x))
            if ended:
                pieces.append(self._shaper.tail())
            try:
                if pieces:
                    self._write(np.concatenate(pieces))
            except OSError as error:
                with self._more:
                    self.problem = (
                        f"{self._path}: cannot be written ({error.strerror}); free space on the card"
                    )
                return

    def _write(self, y: np.ndarray) -> None:
        steps = np.clip(np.rint(y.astype(np.float64) * 2**23), -(2**23), 2**23 - 1).astype("<i4")
        self._file.write(np.ascontiguousarray(steps.view(np.uint8).reshape(-1, 4)[:, :3]).tobytes())
        self._frames += len(y)
        self._file.seek(0)
        self._file.write(wav_header(self._frames, WORKING_RATE_HZ, 24))
        self._file.seek(0, os.SEEK_END)
        self._file.flush()

    def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with self._more:
            self._ending = True
            self._more.notify()
        thread.join()
        try:
            if self._frames % 2:
                self._file.write(b"\0")  # chunks of a WAV file are even
            self._file.close()
            os.replace(self._temporary, self._path)
        except OSError as error:
            self.problem = f"{self._path}: cannot be written ({error.strerror}); free space on the card"
            with contextlib.suppress(OSError):
                self._temporary.unlink()


class DeviceListener:
    """Plays on a sound card. PortAudio asks for sound in a thread of its own; what is not there in time is
    silence."""

    def __init__(self, name: str, settings: ListenSettings, *, audio: Any = None) -> None:
        self.name = f"output {name}".rstrip()
        self.dropped = 0
        self.underruns = 0
        self.rate_hz = 0
        self._wanted = name
        self._raw = settings.monitor == "raw"
        self._shaper = Shaper(settings.gain_db, settings.limit)
        self._given_audio = audio
        self._audio: Any = None
        self._stream: Any = None
        self._lock = threading.Lock()
        self._queue: deque[np.ndarray] = deque()
        self._queued = 0
        self._waiting = True  # for the first sound, or for enough of it after it ran out
        self._ending = False
        self._faded_out = False
        self._ended = threading.Event()
        self._ready = np.zeros(0, np.float32)  # at the card's rate
        self._interpolator: Interpolator | None = None

    @property
    def delay_s(self) -> float:
        """Sound that waits at the start, the filter, and one period of the card."""
        filter_s = self._interpolator.delay_s if self._interpolator else 0.0
        return PREFILL_S + filter_s + HOP / WORKING_RATE_HZ + _PERIOD_S

    def start(self) -> None:
        self._audio = self._given_audio or open_portaudio("sound output")
        try:
            card = find_device(self._audio, self._wanted, "output")
            reason = "no channel"
            for rate_hz in _OUTPUT_RATES_HZ:
                for channels in (1, 2):
                    try:
                        self._stream = self._opened(card, rate_hz, channels)
                        self._stream.start_stream()
                        self.name = f"output {card['name']}"
                        return
                    except (OSError, ValueError) as error:
                        reason = str(error.args[-1] if error.args else error)
            rates = ", ".join(map(str, _OUTPUT_RATES_HZ))
            raise StethopiError(
                f'output "{card["name"]}" opens at none of {rates} Hz ({reason}); '
                f'end what else plays, or set [listen] output = "none"'
            )
        except BaseException:
            self._close()
            raise

    def _opened(self, card: dict[str, Any], rate_hz: int, channels: int) -> Any:
        import pyaudio

        self.rate_hz = rate_hz
        self._channels = channels
        self._interpolator = Interpolator(rate_hz, sharp=False)
        with quiet():
            return self._audio.open(
                rate=rate_hz,
                channels=channels,
                format=pyaudio.paFloat32,
                output=True,
                output_device_index=int(card["index"]),
                frames_per_buffer=round(rate_hz * _PERIOD_S),
                start=False,
                stream_callback=self._callback,
            )

    def hear(self, raw: np.ndarray, clean: np.ndarray) -> None:
        x = raw if self._raw else clean
        with self._lock:
            if self._queued + len(x) > _DEVICE_QUEUE or self._stream is None:
                self.dropped += len(x)
                return
            self._queue.append(np.array(x, dtype=np.float32))
            self._queued += len(x)

    def set_gain_db(self, gain_db: float) -> None:
        """A new gain, without a pop."""
        self._shaper.set_gain_db(gain_db)

    def _callback(self, _data: Any, frames: int, _times: Any, _status: int) -> tuple[bytes, int]:
        """PortAudio's thread: the next `frames` for the card."""
        import pyaudio

        y = self._next(frames)
        if self._channels > 1:
            y = np.repeat(y, self._channels)
        return y.tobytes(), pyaudio.paContinue

    def _next(self, frames: int) -> np.ndarray:
        """Exactly `frames` samples at the card's rate, float32."""
        assert self._interpolator is not None
        while len(self._ready) < frames:
            with self._lock:
                enough = self._queued >= PREFILL_S * WORKING_RATE_HZ or self._ending
                if self._waiting and enough:
                    self._waiting = False
                x = None if self._waiting or not self._queue else self._queue.popleft()
                self._queued -= 0 if x is None else len(x)
            if x is not None:
                y = self._shaper.process(x)
            elif self._ending and not self._faded_out:
                y = np.concatenate([self._shaper.tail(), np.zeros(4 * HOP, np.float32)])
                self._faded_out = True
            elif self._waiting or self._ending:
                y = np.zeros(HOP, np.float32)
                if self._faded_out:  # the fade has left, and what the filter held of it
                    self._ended.set()
            else:
                self.underruns += 1
                self._waiting = True
                y = self._shaper.tail()
            self._ready = np.concatenate([self._ready, self._interpolator.process(y)])
        now, self._ready = self._ready[:frames], self._ready[frames:]
        return now

    def stop(self) -> None:
        stream = self._stream
        if stream is None:
            return
        with self._lock:
            self._ending = True
        # what waits is played, and the fade after it; a card that is gone keeps nobody waiting
        self._ended.wait(_DEVICE_QUEUE / WORKING_RATE_HZ + 0.25)
        self._close()

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        audio, self._audio = self._audio, None
        if stream or audio:
            close_portaudio(stream, audio if audio is not self._given_audio else None, drain=True)
