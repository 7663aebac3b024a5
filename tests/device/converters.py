"""spidev, smbus2 and RPi.GPIO as they are spoken to, with a heart behind them and a clock that only the test
moves."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

__all__ = ["FakeTime", "gpio", "smbus2", "spidev"]


class FakeTime:
    """Moved by `sleep` alone; wakes late by what `late` says of the n-th sleep, and ends the source after
    `seconds`."""

    def __init__(self, seconds: float, late: Callable[[int], float] = lambda n: 0.0) -> None:
        self.now = 50.0
        self.sleeps = 0
        self.end: Callable[[], None] = lambda: None
        self._ends_s = 50.0 + seconds
        self._late = late

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds + self._late(self.sleeps)
        self.sleeps += 1
        if self.now >= self._ends_s:
            self.end()


def spidev(volts: Callable[[int], float], fails: Callable[[], bool] = lambda: False) -> Any:
    """A module with an MCP3008 at every SPI device; volts(channel) against a reference of 3.3 V."""
    made: list[Any] = []

    class SpiDev:
        max_speed_hz = 500_000
        mode = 3

        def __init__(self) -> None:
            self.place: tuple[int, int] | None = None
            made.append(self)

        def open(self, bus: int, device: int) -> None:
            if bus > 1:
                raise FileNotFoundError(2, "No such file or directory")
            self.place = (bus, device)

        def xfer2(self, frame: list[int]) -> list[int]:
            assert self.place is not None and self.mode == 0 and self.max_speed_hz <= 1_350_000
            assert len(frame) == 3 and frame[0] == 1, "start bit, then two bytes more"
            assert frame[1] & 0x80, "single-ended"
            if fails():
                raise OSError(5, "Input/output error")
            code = min(max(int(volts(frame[1] >> 4 & 7) / 3.3 * 1024), 0), 1023)
            # what comes before the answer's null bit is noise
            return [0xFF, 0xF8 | code >> 8, code & 0xFF]

        def close(self) -> None:
            self.place = None

    return SimpleNamespace(SpiDev=SpiDev, made=made)


def smbus2(volts: Callable[[int], float], time: FakeTime, fails: Callable[[], bool] = lambda: False) -> Any:
    """A module with an ADS1115 at address 0x48 of bus 1; volts(channel)."""
    made: list[Any] = []

    class SMBus:
        def __init__(self, bus: int) -> None:
            if bus != 1:
                raise FileNotFoundError(2, "No such file or directory")
            self.ready_s = float("inf")
            self.result = 0
            self.pending = 0
            made.append(self)

        def _answer(self, address: int) -> None:
            if address != 0x48 or fails():
                raise OSError(121, "Remote I/O error")

        def write_i2c_block_data(self, address: int, register: int, data: list[int]) -> None:
            self._answer(address)
            assert register == 1 and len(data) == 2
            config = data[0] << 8 | data[1]
            assert config >> 15 == 1 and config >> 8 & 1 == 1, "start a single conversion"
            assert config >> 12 & 4, "against ground"
            full_v = {0: 6.144, 1: 4.096, 2: 2.048, 3: 1.024, 4: 0.512, 5: 0.256}[config >> 9 & 7]
            rate = (8, 16, 32, 64, 128, 250, 475, 860)[config >> 5 & 7]
            code = round(volts(config >> 12 & 3) / full_v * 32768)
            self.pending = min(max(code, -32768), 32767)
            self.ready_s = time.now + 1 / rate

        def read_i2c_block_data(self, address: int, register: int, length: int) -> list[int]:
            self._answer(address)
            assert register == 0 and length == 2
            if time.now >= self.ready_s:
                self.result = self.pending
            return [self.result >> 8 & 0xFF, self.result & 0xFF]

        def close(self) -> None:
            pass

    return SimpleNamespace(SMBus=SMBus, made=made)


def gpio(high: Callable[[int], bool]) -> Any:
    """RPi.GPIO with inputs that are high when `high(pin)`."""
    asked: set[int] = set()

    def setup(pin: int, mode: str) -> None:
        assert mode == "in"
        asked.add(pin)

    def read(pin: int) -> int:
        assert pin in asked, "set up before it is read"
        return int(high(pin))

    return SimpleNamespace(BCM="bcm", IN="in", setmode=lambda mode: None, setup=setup, input=read)
