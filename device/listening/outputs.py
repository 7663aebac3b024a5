"""What goes to the ear: raw or clean sound, a preset, gain and a soft limiter, to a loudspeaker or into a WAV
file.

The sound thread calls `hear`, the source's thread `tap`, and neither is ever kept waiting: what the output
cannot take in time is dropped and counted. Wherever sound begins, ends or is torn, it fades within 10 ms, so
that nothing pops in the ear; a change of what is heard fades too.

    output "none"          nobody listens
    output "device[:NAME]" a sound card through PyAudio, by part of its name
    output "file:PATH"     WAV, 24 bit, 2 kHz; it gets its name when listening ends

Raw sound on a card that runs at the capture rate goes round everything: from the capture block straight into
the output block, at most 15 ms after the block was complete. Clean sound, and raw sound where the rates
differ, comes from the working rate.

    python -I -m device.checks.figures.listen FILE   presets, and both ways' delay in its parts
    python -I -m device.checks.figures.listen --microphone NAME --output NAME  the raw way, measured
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from device.durable import put_in_place, temporary_name
from device.errors import StethopiError
from device.listening.playback_queue import PlaybackQueue
from device.listening.shaper import FADE, Blend, Shaper
from device.rates import HOP, WORKING_RATE_HZ
from device.settings.sections import ListenSettings
from device.sources.base import Block
from device.sources.files import wav_header
from device.sources.portaudio import close_portaudio, find_device, hold, open_portaudio, quiet

__all__ = ["FADE", "DeviceListener", "FileListener", "Listener", "NoListener", "Shaper", "open_listener"]

log = logging.getLogger("listen")

PREFILL_S = 0.04
"""Working-rate sound that waits before a device begins to play, against the unevenness of both sides."""

_OUTPUT_RATES_HZ = (48000, 44100, 16000, 8000, 96000)
_LOWEST_DIRECT_HZ = 8000
_PERIOD_S = 0.01
_DEVICE_QUEUE = WORKING_RATE_HZ // 4
_DIRECT_QUEUE_S = 0.1
_FILE_QUEUE = 120 * WORKING_RATE_HZ


class Listener(Protocol):
    """Somewhere to send sound to. `hear` returns at once, whatever happens."""

    @property
    def dropped(self) -> int:
        """Samples at the working rate that the output could not take in time."""

    @property
    def underruns(self) -> int:
        """How often the output had nothing to play."""

    @property
    def delay_s(self) -> float:
        """From `hear`, or from `tap`, to the ear: the sum of `parts`; 0 where no ear waits."""

    @property
    def parts(self) -> dict[str, float]:
        """What the delay is made of, in seconds."""

    def start(self) -> None:
        """Begin. Raises StethopiError with the remedy."""

    def tap(self, block: Block) -> None:
        """The next block as it was captured, for those who hear raw sound directly."""

    def change(
        self, *, monitor: str | None = None, preset: str | None = None, gain_db: float | None = None
    ) -> None:
        """Something else to hear, without a click; None: as it is. May be called by any thread."""

    def hear(self, raw: np.ndarray, clean: np.ndarray) -> None:
        """The next working-rate sound, float32 (n,), both aligned with each other."""

    def skip(self, n: int) -> None:
        """A hole of `n` working-rate samples, too long to be played, lies before what comes next."""

    def stop(self) -> None:
        """Fade out and end. Safe to call twice."""


def open_listener(settings: ListenSettings, capture_rate_hz: int = 0) -> Listener:
    """The listener that `[listen]` asks for, not yet started. capture_rate_hz: of the blocks that are tapped;
    0: none are."""
    kind, _, rest = settings.output.partition(":")
    if kind == "file":
        return FileListener(Path(rest), settings)
    if kind == "device":
        return DeviceListener(rest, settings, capture_rate_hz=capture_rate_hz)
    return NoListener()


class NoListener:
    """Nobody listens."""

    dropped = 0
    underruns = 0
    delay_s = 0.0
    parts: dict[str, float] = {}

    def start(self) -> None:
        pass

    def tap(self, block: Block) -> None:
        pass

    def change(
        self, *, monitor: str | None = None, preset: str | None = None, gain_db: float | None = None
    ) -> None:
        pass

    def hear(self, raw: np.ndarray, clean: np.ndarray) -> None:
        pass

    def skip(self, n: int) -> None:
        pass

    def stop(self) -> None:
        pass


class FileListener:
    """Writes what would be heard into a WAV file. Its header is right at every moment, its name comes at the
    end."""

    def __init__(self, path: Path, settings: ListenSettings) -> None:
        self.dropped = 0
        self.underruns = 0
        self.delay_s = 0.0
        self.parts: dict[str, float] = {}
        self.problem: str | None = None
        """Why writing ended early; None while all is well."""
        self.left_out = 0
        """Samples of holes that are not in the file."""
        self._path = path
        self._temporary = temporary_name(path)
        self._blend = Blend(settings.monitor == "raw")
        self._shaper = Shaper(
            settings.gain_db, settings.limit, settings.preset, loudest_db=settings.loudest_db
        )
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

    def tap(self, block: Block) -> None:
        pass

    def change(
        self, *, monitor: str | None = None, preset: str | None = None, gain_db: float | None = None
    ) -> None:
        if monitor is not None:
            self._blend.choose(monitor == "raw")
        _shape([self._shaper], preset, gain_db)

    def hear(self, raw: np.ndarray, clean: np.ndarray) -> None:
        x = self._blend.process(raw, clean)
        with self._more:
            if self._queued + len(x) > _FILE_QUEUE or self.problem:
                self.dropped += len(x)
                self._dropped_now += len(x)
                return
            self._queue.append((self._dropped_now, np.array(x, dtype=np.float32)))
            self._queued += len(x)
            self._dropped_now = 0
            self._more.notify()

    def skip(self, n: int) -> None:
        self.left_out += n
        log.warning(
            "%s: %.0f s without sound are left out; what follows stands so much too early in the file",
            *(self._path, n / WORKING_RATE_HZ),
        )

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
            put_in_place(self._temporary, self._path, durable=False)
        except OSError as error:
            self.problem = f"{self._path}: cannot be written ({error.strerror}); free space on the card"
            with contextlib.suppress(OSError):
                self._temporary.unlink()


def _shape(shapers: list[Shaper], preset: str | None, gain_db: float | None) -> None:
    for shaper in shapers:
        if preset is not None:
            shaper.set_preset(preset)
        if gain_db is not None:
            shaper.set_gain_db(gain_db)


class DeviceListener:
    """Plays on a sound card. PortAudio asks for sound in a thread of its own; what is not there in time is
    silence.

    capture_rate_hz: of the blocks that `tap` gets. The card is opened at this rate where it can be, and then
    raw sound is played from them.
    """

    def __init__(
        self, name: str, settings: ListenSettings, *, capture_rate_hz: int = 0, audio: Any = None
    ) -> None:
        self.name = f"output {name}".rstrip()
        self.rate_hz = 0
        self._wanted = name
        self._settings = settings
        self._capture_rate_hz = capture_rate_hz
        self._raw = settings.monitor == "raw"
        self._preset, self._gain_db = settings.preset, settings.gain_db
        self._blend = Blend(self._raw)
        self._given_audio = audio
        self._audio: Any = None
        self._stream: Any = None
        self._channels = 1
        self._working: PlaybackQueue | None = None
        self._direct: PlaybackQueue | None = None
        self._missed = 0  # samples that came while there was no card
        self._ending = False
        self._ended = threading.Event()
        self._changing = threading.Lock()
        self._mender: threading.Thread | None = None
        self._away = False
        self._wanted_once = False
        self._since_look = 0

    @property
    def direct(self) -> PlaybackQueue | None:
        """The way of the capture blocks; None where the card does not run at their rate."""
        return self._direct

    @property
    def _lanes(self) -> list[PlaybackQueue]:
        return [lane for lane in (self._working, self._direct) if lane is not None]

    @property
    def dropped(self) -> int:
        return self._missed + sum(
            lane.dropped * WORKING_RATE_HZ // lane.shaper.rate_hz for lane in self._lanes
        )

    @property
    def underruns(self) -> int:
        return sum(lane.underruns for lane in self._lanes)

    @property
    def parts(self) -> dict[str, float]:
        if self._raw and self._direct is not None:
            waited = self._direct.waited.p50
            return {"waiting": _PERIOD_S if waited is None else waited, "output block": _PERIOD_S}
        filter_s = self._working.filter_s if self._working else 0.0
        return {
            "waiting": PREFILL_S,
            "interpolation": filter_s + HOP / WORKING_RATE_HZ,
            "output block": _PERIOD_S,
        }

    @property
    def delay_s(self) -> float:
        return sum(self.parts.values())

    @property
    def card_s(self) -> float | None:
        """What the card's driver says that it adds; None where it does not say."""
        try:
            return float(self._stream.get_output_latency())
        except (AttributeError, OSError):
            return None

    def start(self) -> None:
        self._play()
        self._wanted_once = True
        hold(self)

    def _play(self) -> None:
        self._audio = self._given_audio or open_portaudio("sound output")
        try:
            card = find_device(self._audio, self._wanted, "output")
            reason = "no channel"
            for rate_hz in self._rates():
                for channels in (1, 2):
                    try:
                        self._stream = self._opened(card, rate_hz, channels)
                        self._stream.start_stream()
                        self.name = f"output {card['name']}"
                        return
                    except (OSError, ValueError) as error:
                        reason = str(error.args[-1] if error.args else error)
            rates = ", ".join(map(str, self._rates()))
            raise StethopiError(
                f'output "{card["name"]}" opens at none of {rates} Hz ({reason}); '
                f'end what else plays, or set [listen] output = "none"'
            )
        except BaseException:
            self._close()
            raise

    def _rates(self) -> list[int]:
        first = [self._capture_rate_hz] if self._capture_rate_hz >= _LOWEST_DIRECT_HZ else []
        return first + [rate for rate in _OUTPUT_RATES_HZ if rate not in first]

    def _opened(self, card: dict[str, Any], rate_hz: int, channels: int) -> Any:
        import pyaudio

        self.rate_hz = rate_hz
        self._channels = channels
        self._make_lanes(rate_hz)
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

    def _make_lanes(self, rate_hz: int) -> None:
        def shaper(rate: int) -> Shaper:
            return Shaper(self._gain_db, self._settings.limit, self._preset, rate, self._settings.loudest_db)

        prefill = round(PREFILL_S * WORKING_RATE_HZ)
        self._working = PlaybackQueue(shaper(WORKING_RATE_HZ), rate_hz, prefill, _DEVICE_QUEUE)
        self._direct = None
        if rate_hz == self._capture_rate_hz:
            period = round(rate_hz * _PERIOD_S)
            most = round(rate_hz * _DIRECT_QUEUE_S)
            self._direct = PlaybackQueue(shaper(rate_hz), rate_hz, period, most, lean=True)
        self._chosen().open()
        # the raw sound of the working rate is heard only where there is no shorter way
        self._blend = Blend(self._raw and self._direct is None)

    def _chosen(self) -> PlaybackQueue:
        """The lane that is to be heard."""
        lane = self._direct if self._raw and self._direct is not None else self._working
        assert lane is not None
        return lane

    def tap(self, block: Block) -> None:
        lane = self._direct
        if lane is not None and len(block.samples):
            lane.put(block.samples, block.monotonic_s, torn=bool(block.lost))

    def hear(self, raw: np.ndarray, clean: np.ndarray) -> None:
        if self._working is None or self._stream is None:
            self._missed += len(raw)
            self._since_look += len(raw)
            if self._since_look >= 2 * WORKING_RATE_HZ and self._wanted_once:
                self._since_look = 0
                self._look()
            return
        self._working.put(self._blend.process(raw, clean))
        self._since_look += len(raw)
        if self._since_look >= WORKING_RATE_HZ:
            self._since_look = 0
            self._look()

    def skip(self, n: int) -> None:
        pass

    def _look(self) -> None:
        """An output that is gone is told once and opened again by a thread of its own."""
        try:
            alive = bool(self._stream.is_active())
        except (AttributeError, OSError):
            alive = False
        if alive or self._ending or (self._mender is not None and self._mender.is_alive()):
            return
        if not self._away:
            self._away = True
            log.warning("%s went away; it is opened again as soon as it is there", self.name)
        self._mender = threading.Thread(target=self._mend, name="mend output", daemon=True)
        self._mender.start()

    def _mend(self) -> None:
        with self._changing:
            if not self._ending:
                self._close()
                self._come_back()

    def step_aside(self) -> None:
        """PortAudio is to look for cards anew: let go of it."""
        with self._changing:
            self._close()

    def come_back(self) -> None:
        """Play on, if the output is there."""
        with self._changing:
            if not self._ending:
                self._come_back()

    def _come_back(self) -> None:
        try:
            self._play()
        except StethopiError as error:
            log.debug("%s: still away: %s", self.name, error)
            return
        if self._away:
            self._away = False
            log.info("%s came back", self.name)

    def change(
        self, *, monitor: str | None = None, preset: str | None = None, gain_db: float | None = None
    ) -> None:
        if monitor is not None:
            self._raw = monitor == "raw"
            self._blend.choose(self._raw and self._direct is None)
        self._preset = self._preset if preset is None else preset
        self._gain_db = self._gain_db if gain_db is None else gain_db
        _shape([lane.shaper for lane in self._lanes], preset, gain_db)

    def _callback(self, _data: Any, frames: int, _times: Any, _status: int) -> tuple[bytes, int]:
        """PortAudio's thread: the next `frames` for the card."""
        import pyaudio

        y = self._next(frames)
        if self._channels > 1:
            y = np.repeat(y, self._channels)
        return y.tobytes(), pyaudio.paContinue

    def _next(self, frames: int) -> np.ndarray:
        """Exactly `frames` samples at the card's rate, float32."""
        chosen = self._chosen()
        others = [lane for lane in self._lanes if lane is not chosen]
        if chosen.parked and not self._ending:
            chosen.open()
        y = chosen.next(frames)
        for lane in others:
            # the one before goes on until the new one has something to say
            first = frames
            if not lane.parked and (chosen.playing or self._ending):
                first = min(max(frames + chosen.lead, 0), frames)
            y = y + np.concatenate([lane.next(first), self._cut(lane, frames - first)])
        if self._ending and all(lane.parked for lane in self._lanes):
            self._ended.set()
        limit = self._settings.limit
        return np.clip(y, -limit, limit) if others else y

    @staticmethod
    def _cut(lane: PlaybackQueue, frames: int) -> np.ndarray:
        if frames:
            lane.cut()
        return lane.next(frames)

    def stop(self) -> None:
        hold(self, False)
        self._ending = True
        if self._mender is not None:
            self._mender.join(2.0)
        if self._stream is None:
            return
        for lane in self._lanes:
            lane.end()
        # what waits is played, and the fade after it; a card that is gone keeps nobody waiting
        self._ended.wait(_DEVICE_QUEUE / WORKING_RATE_HZ + 0.25)
        self._close()

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        audio, self._audio = self._audio, None
        if stream or audio:
            close_portaudio(stream, audio if audio is not self._given_audio else None, drain=True)
