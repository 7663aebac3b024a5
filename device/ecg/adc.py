"""An AD8232 behind a converter: MCP3008 by SPI, or ADS1115 by I2C.

The AD8232 (Analog Devices, data sheet rev. D) puts the ECG around its reference, which is half the supply
where the REFIN divider is as in the data sheet, and amplifies by 100; with the second stage of the usual
boards (eleven times) by 1,100. So mV = (volts - supply / 2) / gain × 1000. Its outputs LO+ and LO- go high
when that electrode is off.

MCP3008 (Microchip DS21295): 10 bits, 0 to VREF; frame of three bytes: start bit; single-ended and channel
in the upper nibble; the answer in the last ten bits. At 2.7 V it wants at most 1.35 MHz.

ADS1115 (Texas Instruments SBAS444): 16 bits, signed, big endian; register 1 configures and starts a single
conversion, register 0 holds the result. At ±4.096 V a step is 125 µV; at 860 samples a second a conversion
takes 1.2 ms. Each reading fetches the conversion begun one period before, so its age is always the same.

The reading thread is paced by the monotonic clock: sample n is taken at the start plus n / rate. One that
could not be taken in its time is missed and marked, never taken twice.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from device.ecg.base import EcgBlock
from device.errors import BadInput, SourceGone, StethopiError
from device.settings.specs import parse_bus

if TYPE_CHECKING:
    from device.settings.sections import EcgSettings

__all__ = ["AdcSource", "Ads1115", "Converter", "Mcp3008", "converter"]

_BLOCK_S = 0.025
_FAILING_S = 0.5
"""A converter that does not answer for so long is gone."""
_MOST_BLOCKS = 400
_SPI_HZ = 1_000_000


class Converter(Protocol):
    """One channel of an analogue-to-digital converter."""

    name: str
    age_s: float
    """How old a reading is."""
    range_v: tuple[float, float]
    """What it can tell."""

    def open(self) -> None:
        """Begin. Raises StethopiError with the remedy."""

    def read(self) -> float:
        """Volts. Raises OSError when it does not answer."""

    def close(self) -> None:
        """Safe to call twice."""


class Mcp3008:
    """MCP3008 by spidev; the reference is the supply, 3.3 V."""

    age_s = 0.0

    def __init__(self, bus: int, device: int, channel: int, reference_v: float, module: Any = None) -> None:
        self.name = f"AD8232 through MCP3008, SPI {bus}.{device}, channel {channel}"
        self.range_v = (0.0, reference_v * 1023 / 1024)
        self._bus, self._device, self._module = bus, device, module
        self._frame = [1, (8 + channel) << 4, 0]
        self._step_v = reference_v / 1024
        self._spi: Any = None

    def open(self) -> None:
        """Take the bus. StethopiError with the remedy when it is not there."""
        if self._module is None:
            try:
                import spidev
            except ImportError as error:
                raise StethopiError(f"ECG: spidev is missing ({error}); pip install 'stethopi[pi]'") from None
            self._module = spidev
        spi = self._module.SpiDev()
        try:
            spi.open(self._bus, self._device)
            spi.max_speed_hz = _SPI_HZ
            spi.mode = 0
        except (OSError, ValueError) as error:
            raise StethopiError(
                f"{self.name}: cannot be opened ({error}); switch SPI on: raspi-config nonint do_spi 0"
            ) from None
        self._spi = spi

    def read(self) -> float:
        """Volts at the input, now."""
        answer = self._spi.xfer2(list(self._frame))
        return float(((answer[1] & 3) << 8 | answer[2]) * self._step_v)

    def close(self) -> None:
        """Give the bus back. Safe to call twice."""
        spi, self._spi = self._spi, None
        if spi is not None:
            spi.close()


class Ads1115:
    """ADS1115 by smbus2, single conversions at 860 a second, ±4.096 V."""

    _CONVERSION, _CONFIG = 0x00, 0x01

    def __init__(self, bus: int, address: int, channel: int, period_s: float, module: Any = None) -> None:
        self.name = f"AD8232 through ADS1115, I2C {bus}, address {address:#x}, channel {channel}"
        self.range_v = (0.0, 3.3)
        # begun one period ago, and as old as half its conversion less
        self.age_s = period_s - 0.5 / 860
        self._bus, self._address, self._module = bus, address, module
        start, single, fastest, no_alert = 1 << 15, 1 << 8, 7 << 5, 3
        config = start | (4 + channel) << 12 | 1 << 9 | single | fastest | no_alert
        self._config = [config >> 8, config & 0xFF]
        self._smbus: Any = None

    def open(self) -> None:
        """Take the bus. StethopiError with the remedy when nothing answers."""
        if self._module is None:
            try:
                import smbus2
            except ImportError as error:
                raise StethopiError(f"ECG: smbus2 is missing ({error}); pip install 'stethopi[pi]'") from None
            self._module = smbus2
        try:
            self._smbus = self._module.SMBus(self._bus)
            self._begin()
        except OSError as error:
            self.close()
            raise StethopiError(
                f"{self.name}: does not answer ({error}); check its wires, and switch I2C on: "
                f"raspi-config nonint do_i2c 0"
            ) from None

    def _begin(self) -> None:
        self._smbus.write_i2c_block_data(self._address, self._CONFIG, self._config)

    def read(self) -> float:
        """Volts at the input, of the conversion before; begins the next."""
        high, low = self._smbus.read_i2c_block_data(self._address, self._CONVERSION, 2)
        self._begin()
        code = high << 8 | low
        return float((code - 65536 if code & 0x8000 else code) * 4.096 / 32768)

    def close(self) -> None:
        """Give the bus back. Safe to call twice."""
        smbus, self._smbus = self._smbus, None
        if smbus is not None:
            smbus.close()


def converter(kind: str, text: str, settings: EcgSettings, module: Any = None) -> Converter:
    """The converter that a spec names; BadInput where it has no such channel."""
    bus, device = parse_bus(kind, text)
    if kind == "mcp3008":
        return Mcp3008(bus, device, settings.channel, settings.supply_v, module)
    if settings.channel > 3:
        raise BadInput(f"[ecg] channel = {settings.channel}: an ADS1115 has channels 0 to 3")
    return Ads1115(bus, device, settings.channel, 1.0 / settings.rate_hz, module)


class AdcSource:
    """The lead as it is read by a thread of its own."""

    played = False

    def __init__(
        self,
        channel: Converter,
        settings: EcgSettings,
        *,
        gpio: Any = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate_hz = settings.rate_hz
        self.name = channel.name
        self.missed = 0
        """Samples that could not be taken in their time."""
        middle_v, self._mv_of_v = settings.supply_v / 2, 1000.0 / settings.gain
        low_v, high_v = channel.range_v
        self.rails_mv: tuple[float, float] | None = (
            (low_v - middle_v) * self._mv_of_v,
            (min(high_v, settings.supply_v) - middle_v) * self._mv_of_v,
        )
        self._middle_v = middle_v
        self._channel = channel
        self._pins = [pin for pin in (settings.lo_plus_pin, settings.lo_minus_pin) if pin >= 0]
        self._gpio = gpio
        self._monotonic, self._sleep = monotonic, sleep
        self._queue: queue.Queue[EcgBlock | None] = queue.Queue(_MOST_BLOCKS)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._zero_s: float | None = None
        self._next = 0
        self._problem = ""

    def start(self) -> None:
        """Begin to sample. StethopiError when the converter or a pin is not there."""
        self._open_pins()
        self._channel.open()
        self._stopped.clear()
        self._problem = ""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._thread = threading.Thread(target=self._run, name="ecg converter", daemon=True)
        self._thread.start()

    def _open_pins(self) -> None:
        if not self._pins:
            return
        if self._gpio is None:
            from device.gpio import import_gpio

            self._gpio = import_gpio("lead-off detection", "[ecg] lo_plus_pin = -1 and lo_minus_pin = -1")
        try:
            self._gpio.setmode(self._gpio.BCM)
            for pin in self._pins:
                self._gpio.setup(pin, self._gpio.IN)
        except Exception as error:  # each stand-in for RPi.GPIO has exceptions of its own
            raise StethopiError(
                f"the ECG cannot use pins {self._pins} ({error}); check [ecg] lo_plus_pin and lo_minus_pin"
            ) from error

    def read(self) -> EcgBlock | None:
        """The next block; None when stopped. SourceGone when the converter vanished."""
        while not self._stopped.is_set():
            try:
                block = self._queue.get(timeout=0.2)
            except queue.Empty:
                if self._thread is None or not self._thread.is_alive():
                    break
                continue
            if block is None:
                break
            return block
        if self._problem and not self._stopped.is_set():
            raise SourceGone(f"{self.name}: {self._problem}; check its wires")
        return None

    def stop(self) -> None:
        """End. Safe to call twice."""
        self._stopped.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(2.0)
        self._channel.close()

    def _run(self) -> None:
        try:
            self._take()
        except Exception as error:  # a driver's own exception must not end in silence
            self._problem = str(error) or type(error).__name__
        self._put(None)

    def _take(self) -> None:
        period_s = 1.0 / self.rate_hz
        size = max(round(_BLOCK_S * self.rate_hz), 1)
        if self._zero_s is None:
            self._zero_s = self._monotonic() + period_s
        # what went by while nobody read is missed
        samples: list[float] = []
        off: list[bool] = []
        first = self._next
        lost = 0
        last_s = failing_since = 0.0
        while not self._stopped.is_set():
            due_s = self._zero_s + self._next * period_s
            now_s = self._monotonic()
            if now_s < due_s:
                self._sleep(due_s - now_s)
                now_s = self._monotonic()
            gone_by = int((now_s - due_s) / period_s)
            if gone_by > 0:  # too late for these: nothing is taken in their place
                self._hand_on(samples, off, first, last_s, lost)
                samples, off = [], []
                self._next += gone_by
                self.missed += gone_by
                first, lost = self._next, gone_by
                now_s = self._monotonic()
            try:
                volts = self._channel.read()
                failing_since = 0.0
            except OSError as error:
                volts = float("nan")
                failing_since = failing_since or now_s
                if now_s - failing_since > _FAILING_S:
                    raise OSError(f"does not answer ({error})") from None
            off.append(any(self._gpio.input(pin) for pin in self._pins))
            samples.append((volts - self._middle_v) * self._mv_of_v)
            last_s = now_s - self._channel.age_s
            self._next += 1
            if len(samples) >= size:
                self._hand_on(samples, off, first, last_s, lost)
                samples, off = [], []
                first, lost = self._next, 0

    def _hand_on(self, samples: list[float], off: list[bool], first: int, last_s: float, lost: int) -> None:
        if not samples:
            return
        pins = np.array(off) if self._pins else None
        self._put(EcgBlock(np.array(samples, np.float32), first, last_s, lost, off=pins))

    def _put(self, block: EcgBlock | None) -> None:
        try:
            self._queue.put_nowait(block)
        except queue.Full:  # nobody reads: the next block's index tells of the hole
            pass
