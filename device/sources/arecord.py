"""The microphone through ALSA's `arecord`: a process whose output is raw frames.

It needs no PortAudio, finds a card that was plugged in a moment ago, and says what the card was really set
to. A card is named by part of its name or by its id, never by its number; an ALSA name (`plughw:CARD=Device`,
or one of `arecord -L`) is taken as it is.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from device.arrays import AnyArray
from device.errors import StethopiError
from device.sources import alsa
from device.sources.capture import PERIOD_S, Capture

__all__ = ["FORMATS", "Arecord", "decoded"]

FORMATS = {"S32_LE": 4, "S24_3LE": 3, "S16_LE": 2}
"""Bytes a sample, in the order in which they are tried: an I2S microphone gives sound in the first alone."""

_PLUGINS = {"null", "lavrate", "samplerate", "speexrate", "jack", "oss", "speex", "upmix", "vdownmix"}
"""ALSA's own names that record from no card."""

_TRY_S = 5.0
_END_S = 1.0


def decoded(data: bytes, form: str, channels: int) -> AnyArray:
    """Raw interleaved frames → float32 (n, channels), ±1; what is less than a frame is left out."""
    size = FORMATS[form] * channels
    data = data[: len(data) // size * size]
    if form == "S16_LE":
        x = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(2**15)
    elif form == "S32_LE":
        x = (np.frombuffer(data, "<i4") / 2.0**31).astype(np.float32)
    else:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        x = (wide.reshape(-1).view("<i4") / 2.0**31).astype(np.float32)
    return x.reshape(-1, channels)


class Arecord(Capture):
    """A microphone that `arecord` reads.

    `name`: part of the card's name, or an ALSA name; empty: ALSA's default. command: what is run; tests give
    another. root: where ALSA shows its cards.
    """

    kind = "arecord"

    def __init__(
        self,
        name: str = "",
        *,
        rate_hz: int = 0,
        channel: str = "left",
        monotonic: Callable[[], float] = time.monotonic,
        command: str = "arecord",
        root: Path = alsa.ASOUND,
    ) -> None:
        super().__init__(name, rate_hz=rate_hz, channel=channel, monotonic=monotonic)
        self.setup: alsa.HwParams | None = None
        """What the card was set to, as ALSA reads it back."""
        self._command = command
        self._root = root
        self._run: _Run | None = None
        try:
            self._open()
        finally:
            self._close()

    def _open(self) -> None:
        pcm, card = self._pcm()
        reasons: list[str] = []
        rates = (self.rate_hz,) if self.rate_hz else self._rates
        for rate_hz in rates:
            for form in FORMATS:
                for channels in (2, 1):
                    run = self._tried(pcm, form, channels, rate_hz, reasons)
                    if run is None:
                        continue
                    self._run, self.setup = run, run.setup
                    self.rate_hz, self.channels = rate_hz, channels
                    self.name = f"arecord {card or pcm}"
                    return
        self._close()
        raise StethopiError(
            f'arecord "{pcm}" records at none of {", ".join(map(str, rates))} Hz '
            f"({reasons[-1] if reasons else 'no answer'}); "
            f"end what else records from it, or set another rate_hz"
        )

    def _tried(self, pcm: str, form: str, channels: int, rate_hz: int, reasons: list[str]) -> _Run | None:
        run = _Run(self._command, pcm, form, channels, rate_hz)
        if not run.wait_for_setup(_TRY_S):
            reasons.append(run.end() or "no answer")
            return None
        setup = run.setup
        # arecord takes the nearest that there is, and only warns
        if setup and (setup.format, setup.channels, setup.rate_hz) != (form, channels, rate_hz):
            run.end()
            reasons.append(f"asked for {form}, {channels} channels, {rate_hz} Hz, got {setup}")
            return None
        return run

    def _pcm(self) -> tuple[str, str]:
        """(ALSA's name, the card's) of what is wanted."""
        wanted = self._wanted
        if not wanted or ":" in wanted:
            return wanted or "default", ""
        there = alsa.cards(self._root)
        for card in there:
            if card.matches(wanted):
                return f"hw:CARD={card.id}", card.name
        known = self._known()
        if wanted in known:
            return wanted, ""
        others = [name for name in known if name not in _PLUGINS]
        names = ", ".join(f'"{name}"' for name in [*(card.name for card in there), *others])
        raise StethopiError(
            f'no microphone whose name contains "{wanted}" for arecord; there are: {names or "none"}; '
            f"plug it in, or look with: arecord -l"
        )

    def _known(self) -> list[str]:
        """ALSA's own names, as `arecord -L` lists them."""
        try:
            run = subprocess.run(
                [self._command, "-L"], capture_output=True, text=True, timeout=_TRY_S, env=_environment()
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _no_arecord(error) from None
        return [line.strip() for line in run.stdout.splitlines() if line and not line[0].isspace()]

    def _begin(self) -> None:
        assert self._run is not None
        self._run.begin(self._take)

    def _runs(self) -> bool:
        return self._run is not None and self._run.alive

    def _why_gone(self) -> str:
        run = self._run
        why = ""
        if run is not None and not run.alive:
            run.hear_out()
            why = f" ({run.said})" if run.said else ""
        return f"{self.name}: gives no sound any more{why}; plug it in again"

    def _let_go(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.end()


class _Run:
    """One run of arecord."""

    def __init__(self, command: str, pcm: str, form: str, channels: int, rate_hz: int) -> None:
        self.setup: alsa.HwParams | None = None
        self.said = ""
        """Its last line, but for what it was set to."""
        self._form, self._channels = form, channels
        self._period = round(rate_hz * PERIOD_S) * FORMATS[form] * channels
        self._told = threading.Condition()
        self._over = False
        self._overrun = False
        self._reader: threading.Thread | None = None
        arguments = [command, "-q", "-v", "-D", pcm, "-t", "raw", "-f", form, "-c", str(channels)]
        arguments += ["-r", str(rate_hz), f"--period-time={round(PERIOD_S * 1e6)}", "--buffer-time=500000"]
        try:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the daemon to hear
            )
        except OSError as error:
            raise _no_arecord(error) from None
        self._listener = threading.Thread(target=self._listen, name="arecord says", daemon=True)
        self._listener.start()

    @property
    def alive(self) -> bool:
        with self._told:
            return not self._over

    def wait_for_setup(self, timeout_s: float) -> bool:
        """Wait until it says what the card was set to; False when it ended, or said nothing."""
        with self._told:
            self._told.wait_for(lambda: self.setup is not None or self._over, timeout_s)
            return self.setup is not None

    def begin(self, take: Callable[[AnyArray, bool], None]) -> None:
        self._reader = threading.Thread(target=self._read, args=(take,), name="arecord", daemon=True)
        self._reader.start()

    def _read(self, take: Callable[[AnyArray, bool], None]) -> None:
        sound: IO[bytes] = self._process.stdout  # type: ignore[assignment]
        with contextlib.suppress(OSError, ValueError):
            while data := sound.read(self._period):
                overrun, self._overrun = self._overrun, False
                take(decoded(data, self._form, self._channels), overrun)
        with self._told:
            self._over = True

    def _listen(self) -> None:
        """What it says on stderr: its set-up, overruns, why it ended."""
        lines: list[str] = []
        said: IO[bytes] = self._process.stderr  # type: ignore[assignment]
        with contextlib.suppress(OSError, ValueError):
            for raw in said:
                line = raw.decode("utf-8", "replace").strip()
                if line.startswith("overrun"):
                    self._overrun = True
                elif self.setup is None and ":" in line:
                    lines.append(line)
                    if setup := alsa.parse_setup("\n".join(lines)):
                        # msbits stands behind the rate; it is not worth waiting for a line that may not come
                        with self._told:
                            self.setup = setup
                            self._told.notify_all()
                if line.startswith("arecord:") or (line.startswith("ALSA lib") and not self.said):
                    self.said = line
        with self._told:
            self._over = True
            self._told.notify_all()

    def hear_out(self) -> None:
        """It has ended: wait for its last words."""
        self._listener.join(_END_S)

    def end(self) -> str:
        """End it; what it said last. Nothing of it is left behind."""
        process = self._process
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for thread in (self._listener, self._reader):
            if thread is not None and thread is not threading.current_thread():
                thread.join(_END_S)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        return self.said


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _no_arecord(error: Exception) -> StethopiError:
    reason = getattr(error, "strerror", None) or "no answer"
    return StethopiError(
        f"arecord cannot be run ({reason}); type: apt-get install -y alsa-utils, "
        f'or set [source] spec = "microphone"'
    )
