"""How late is what one hears: both ways from the microphone to the ear, by design and measured.

    raw      capture block → output block, at the capture rate, no filter between
    clean    decimator, hop, look-ahead, waiting sound, interpolation

What the capture block, the output block and the driver or sound server add comes on top of either and is told
beside it. `python -I -m device.checks.figures.listen` prints it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np

from device.arrays import Floats, Samples
from device.dsp.iir import group_delay_s
from device.dsp.resample import Decimator, decimate
from device.errors import StethopiError
from device.listening.outputs import DeviceListener
from device.listening.playback_queue import BLOCK_BUDGET_S
from device.listening.presets import BANDS_HZ, sections
from device.listening.shaper import Shaper
from device.rates import HOP_S, WORKING_RATE_HZ
from device.settings.sections import ListenSettings
from device.sources.base import Block, Source
from device.sources.capture import PERIOD_S
from device.sources.files import read_sound
from device.sources.microphone import Microphone

__all__ = ["LIMIT_S", "Measured", "lag_s", "measure", "of_recording"]

LIMIT_S = BLOCK_BUDGET_S

_SETTLE_S = 1.0


@dataclass(frozen=True)
class Measured:
    """The raw way, measured. Seconds; None where it was not measured."""

    rate_hz: int
    block_p50_s: float | None
    """From a capture block being complete to the output block that holds its first sample."""
    block_p99_s: float | None
    blocks: int
    capture_period_s: float
    driver_s: float | None
    """What the output's driver says that it adds."""
    whole_s: float | None
    """From a sample being captured to its being heard again by a microphone of the same kind."""
    underruns: int
    dropped: int

    @property
    def server_s(self) -> float | None:
        """What is left of the whole for driver, sound server and card."""
        if self.whole_s is None or self.block_p50_s is None:
            return None
        return self.whole_s - self.block_p50_s - self.capture_period_s

    @property
    def told(self) -> str:
        """The figures in lines for a person."""

        def ms(value: float | None) -> str:
            return "unknown" if value is None else f"{1e3 * value:.1f} ms"

        lines = [
            f"raw, at {self.rate_hz} Hz, {self.blocks} blocks",
            f"capture block to output block: p50 {ms(self.block_p50_s)} (limit {ms(LIMIT_S)}), "
            f"p99 {ms(self.block_p99_s)}",
            f"besides it: capture block {ms(self.capture_period_s)}; the output's driver says "
            f"{ms(self.driver_s)}",
        ]
        if self.whole_s is not None:
            lines.append(
                f"from capture to being heard again {ms(self.whole_s)}: driver, sound server and card add "
                f"{ms(self.server_s)}"
            )
        lines.append(f"underruns {self.underruns}   dropped {self.dropped}")
        return "\n".join(lines)


class _Track(threading.Thread):
    """What a source gives, kept: sound, and when its samples were there at the earliest."""

    def __init__(self, source: Source, listener: DeviceListener | None = None) -> None:
        super().__init__(name=f"track {source.name}", daemon=True)
        self.source = source
        self.blocks: list[Block] = []
        self.problem: StethopiError | None = None
        self._listener = listener

    def run(self) -> None:
        try:
            while (block := self.source.read()) is not None:
                if self._listener is not None:
                    self._listener.tap(block)
                self.blocks.append(Block(block.samples.copy(), block.index, block.monotonic_s, block.lost))
        except StethopiError as error:
            self.problem = error

    @property
    def sound(self) -> Samples:
        """From the first sample on, what was lost as zeros."""
        if not self.blocks:
            return np.zeros(0, np.float32)
        last = self.blocks[-1]
        whole = np.zeros(last.index + len(last.samples), np.float32)
        for block in self.blocks:
            whole[block.index : block.index + len(block.samples)] = block.samples
        return whole

    @property
    def began_s(self) -> float:
        """When sample 0 was there: callbacks come late but never early."""
        rate_hz = self.source.rate_hz
        return min(b.monotonic_s - (b.index + len(b.samples)) / rate_hz for b in self.blocks)


def lag_s(x: Floats, y: Floats, rate_hz: int, most_s: float = 2.0) -> float | None:
    """By how much `y` follows `x`, from -most_s to most_s; None when they have nothing in common."""
    n = max(len(x), len(y))
    size = 1 << (2 * n - 1).bit_length()
    # of white spectra the product is a single peak, whatever the sound is
    product = np.conj(np.fft.rfft(x, size)) * np.fft.rfft(y, size)
    found = np.fft.irfft(product / np.maximum(np.abs(product), 1e-12 + 1e-3 * np.abs(product).max()), size)
    most = min(int(most_s * rate_hz), n - 1)
    near = np.concatenate([found[size - most :], found[: most + 1]])
    best = int(np.argmax(np.abs(near)))
    if np.abs(near[best]) < 8 * np.sqrt(np.mean(near**2)):
        return None
    return (best - most) / rate_hz


def measure(microphone: str, output: str, seconds: float, back: str | None = None) -> Measured:
    """Play a microphone to an output for so long and measure. `back`: a microphone that hears the output.

    Raises StethopiError when one of them is not there, or the output does not run at the capture rate.
    """
    source = Microphone(microphone)
    listener = DeviceListener(
        output, ListenSettings(monitor="raw", limit=1.0, loudest_db=0.0), capture_rate_hz=source.rate_hz
    )
    hears = Microphone(back, rate_hz=source.rate_hz) if back is not None else None
    listener.start()
    tracks = [_Track(source, listener)] + ([_Track(hears)] if hears is not None else [])
    try:
        lane = listener.direct
        if lane is None:
            raise StethopiError(
                f"{listener.name}: does not run at the microphone's {source.rate_hz} Hz; raw sound takes the "
                f"way of the working rate there"
            )
        for track in tracks:
            track.source.start()
            track.start()
        time.sleep(_SETTLE_S)
        before = lane.waited.copy()
        time.sleep(max(seconds, 1.0))
        waited = lane.waited.copy().since(before)
        driver_s = listener.card_s
    finally:
        for track in tracks:
            track.source.stop()
        for track in tracks:
            if track.ident is not None:
                track.join(5.0)
        listener.stop()
    for track in tracks:
        if track.problem is not None:
            raise track.problem
    whole_s = None
    if hears is not None and all(track.blocks for track in tracks):
        taken, heard = tracks
        lag = lag_s(taken.sound, heard.sound, source.rate_hz)
        if lag is not None:
            whole_s = heard.began_s + lag - taken.began_s
    return Measured(
        rate_hz=listener.rate_hz,
        block_p50_s=waited.p50,
        block_p99_s=waited.p99,
        blocks=waited.count,
        capture_period_s=source.period_s,
        driver_s=driver_s,
        whole_s=whole_s,
        underruns=lane.underruns,
        dropped=lane.dropped,
    )


def of_recording(path: str) -> str:
    """What listening does to a recording, and how late each way is by design; a few lines."""
    sound = read_sound(path)
    rate_hz = sound.rate_hz
    x = decimate(sound.samples, rate_hz)
    random = np.random.default_rng(1)
    lines = [f"{path}: {rate_hz} Hz, {len(x) / WORKING_RATE_HZ:.3f} s"]
    for name, (low_hz, high_hz) in BANDS_HZ.items():
        began = time.perf_counter()
        whole = Shaper(preset=name).process(x)
        took_s = time.perf_counter() - began
        shaper, pieces, at = Shaper(preset=name), [], 0
        while at < len(x):
            n = int(random.integers(0, 100))
            pieces.append(shaper.process(x[at : at + n]))
            at += n
        apart = float(np.max(np.abs(np.concatenate([*pieces, x[:0]]) - whole), initial=0.0))
        middle = np.array([np.sqrt(low_hz * high_hz)])
        delay_s = float(group_delay_s(sections(name), middle, WORKING_RATE_HZ)[0])
        share = float(np.sum(whole.astype(np.float64) ** 2) / max(np.sum(x.astype(np.float64) ** 2), 1e-30))
        lines.append(
            f"{name:<10} chopped vs whole: max difference {apart:g} (limit 0)   "
            f"keeps {10 * np.log10(max(share, 1e-12)):+.1f} dB   group delay {1e3 * delay_s:.1f} ms at "
            f"{middle[0]:.0f} Hz   {len(x) / WORKING_RATE_HZ / max(took_s, 1e-9):.0f} times real time"
        )
    output = DeviceListener("", ListenSettings(monitor="clean"))
    output._make_lanes(rate_hz if rate_hz >= 8000 else 48000)
    clean = {"decimator": Decimator(rate_hz).delay_s, "hop": HOP_S, "look-ahead": 2 * HOP_S, **output.parts}
    for name, parts in (("raw", {"waiting, at most": PERIOD_S, "output block": PERIOD_S}), ("clean", clean)):
        each = ", ".join(f"{part} {1e3 * value:.2f}" for part, value in parts.items())
        lines.append(f"{name} to the ear {1e3 * sum(parts.values()):.1f} ms: {each}")
    lines.append(
        f"besides either: capture block {1e3 * PERIOD_S:.0f} ms, and what driver and card add; measure it: "
        f"python -I -m device.checks.figures.listen --microphone NAME --output NAME"
    )
    return "\n".join(lines)
