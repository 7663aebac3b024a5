"""The lead's sources: real protocols against fake chips, pace by the monotonic clock, recordings, a seed."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.ecg.adc import AdcSource, converter
from device.ecg.base import EcgBlock, EcgSource
from device.ecg.replay import EcgReplay, SyntheticEcg
from device.ecg.sources import open_ecg
from device.errors import BadInput, SourceGone, StethopiError
from device.settings.sections import EcgSettings
from device.settings.specs import SyntheticLead, parse_bus
from tests.device.converters import FakeTime, gpio, smbus2, spidev
from tests.device.leads import beating, write_record

PINLESS = {"lo_plus_pin": -1, "lo_minus_pin": -1}


def taken(source: AdcSource, time: FakeTime) -> list[EcgBlock]:
    """Everything that the source takes until the fake time is over."""
    blocks: list[EcgBlock] = []
    time.end = source._stopped.set
    source.start()
    thread = source._thread
    assert thread is not None
    thread.join(30)
    while not source._queue.empty():
        block = source._queue.get_nowait()
        if block is not None:
            blocks.append(block)
    source.stop()
    return blocks


def wave(time: FakeTime, gain: float) -> Any:
    """1 mV at 2 Hz around half of 3.3 V, amplified, on channel 2; nothing on the others."""

    def volts(channel: int) -> float:
        mv = np.sin(2 * np.pi * 2 * (time.now - 50.0)) if channel == 2 else 0.0
        return 1.65 + mv * gain / 1000

    return volts


def joined(blocks: list[EcgBlock]) -> np.ndarray:
    """By index; what was missed is not a number."""
    whole = np.full(blocks[-1].index + len(blocks[-1].samples), np.nan)
    for block in blocks:
        whole[block.index : block.index + len(block.samples)] = block.samples
    return whole


@pytest.mark.parametrize("kind", ["mcp3008", "ads1115"])
@pytest.mark.parametrize("rate_hz", [360, 500])
@pytest.mark.parametrize("gain", [100.0, 1100.0])
def test_a_converter_gives_millivolts_at_its_rate(kind: str, rate_hz: int, gain: float) -> None:
    time = FakeTime(4.0)
    settings = EcgSettings(spec=kind, rate_hz=rate_hz, channel=2, gain=gain, **PINLESS)
    chips = spidev(wave(time, gain)) if kind == "mcp3008" else smbus2(wave(time, gain), time)
    chip = converter(kind, "", settings, chips)
    source = AdcSource(chip, settings, monotonic=time.monotonic, sleep=time.sleep)
    x = joined(taken(source, time))
    assert abs(len(x) - 4 * rate_hz) <= 12 and source.missed == 0
    # a reading of the ADS1115 is one period old
    first_s = 1 / rate_hz - (1 / rate_hz if kind == "ads1115" else 0.0)
    t = first_s + np.arange(len(x)) / rate_hz
    step_mv = (3.3 / 1024 if kind == "mcp3008" else 4.096 / 32768) / gain * 1000
    np.testing.assert_allclose(x[2:], np.sin(2 * np.pi * 2 * t)[2:], atol=1.01 * step_mv + 1e-6)
    half_mv = 1.65 / gain * 1000
    assert source.rails_mv == pytest.approx((-half_mv, half_mv), rel=0.01)


def test_what_could_not_be_taken_in_time_is_missed_and_marked() -> None:
    time = FakeTime(4.0, late=lambda n: 0.020 if n == 400 else 0.0001)
    settings = EcgSettings(spec="mcp3008", rate_hz=500, channel=2, gain=100, **PINLESS)
    source = AdcSource(
        converter("mcp3008", "", settings, spidev(wave(time, 100))),
        settings,
        monotonic=time.monotonic,
        sleep=time.sleep,
    )
    blocks = taken(source, time)
    assert source.missed == 10 == sum(block.lost for block in blocks)
    x = joined(blocks)
    assert np.isnan(x).sum() == 10 and np.isnan(x[400:420]).sum() == 10
    # the others stand where they were taken: nothing slides
    t = (1 + np.arange(len(x))) / 500 + 0.0001
    good = ~np.isnan(x)
    good[390:420] = False
    np.testing.assert_allclose(x[good], np.sin(2 * np.pi * 2 * t)[good], atol=0.035)


def test_blocks_tell_when_their_last_sample_was_taken() -> None:
    time = FakeTime(3.0, late=lambda n: 0.0005 * (n % 3))
    settings = EcgSettings(spec="mcp3008", rate_hz=360, **PINLESS)
    source = AdcSource(
        converter("mcp3008", "", settings, spidev(wave(time, 100))),
        settings,
        monotonic=time.monotonic,
        sleep=time.sleep,
    )
    blocks = taken(source, time)
    told = [b.monotonic_s - (b.index + len(b.samples) - 1) / 360 for b in blocks]
    assert max(told) - min(told) < 0.0011 and min(told) == pytest.approx(50.0 + 1 / 360, abs=0.0011)


def test_the_amplifier_says_that_an_electrode_is_off() -> None:
    time = FakeTime(2.0)
    settings = EcgSettings(spec="mcp3008", rate_hz=360, lo_plus_pin=5, lo_minus_pin=6)
    source = AdcSource(
        converter("mcp3008", "", settings, spidev(wave(time, 100))),
        settings,
        gpio=gpio(lambda pin: pin == 6 and 50.5 < time.now < 51.0),
        monotonic=time.monotonic,
        sleep=time.sleep,
    )
    blocks = taken(source, time)
    off = np.concatenate([b.off for b in blocks if b.off is not None])
    assert abs(off.sum() - 180) <= 2 and not off[:170].any() and off[185:350].all() and not off[370:].any()


@pytest.mark.parametrize("kind", ["mcp3008", "ads1115"])
def test_a_converter_that_falls_silent_is_gone_and_comes_back(kind: str) -> None:
    time = FakeTime(20.0)
    silent = {"from": 51.0, "to": 53.0}

    def fails() -> bool:
        return silent["from"] < time.now < silent["to"]

    settings = EcgSettings(spec=kind, rate_hz=360, **PINLESS)
    chips = spidev(wave(time, 100), fails) if kind == "mcp3008" else smbus2(wave(time, 100), time, fails)
    source = AdcSource(
        converter(kind, "", settings, chips), settings, monotonic=time.monotonic, sleep=time.sleep
    )
    source.start()
    read: list[EcgBlock] = []
    with pytest.raises(SourceGone, match="does not answer .*; check its wires"):
        while True:
            block = source.read()
            assert block is not None
            read.append(block)
    source.stop()
    last = read[-1]
    assert np.isnan(last.samples).all(), "what failed is not a number"
    time.now = 54.0
    source.start()
    block = source.read()
    source.stop()
    assert block is not None
    assert block.index == pytest.approx((54.0 - 50.0) * 360 - 1, abs=2), "it goes on counting by the clock"


@pytest.mark.parametrize(
    ("module", "kind", "remedy"),
    [("spidev", "mcp3008", "ECG: spidev is missing"), ("smbus2", "ads1115", "ECG: smbus2 is missing")],
)
def test_a_missing_library_is_said_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, module: str, kind: str, remedy: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    source = open_ecg(EcgSettings(spec=kind, **PINLESS))
    assert source is not None
    with pytest.raises(StethopiError, match=f"{remedy}.*pip install 'stethopi\\[pi\\]'"):
        source.start()


def test_a_bus_that_is_not_there_is_said_with_the_remedy() -> None:
    settings = EcgSettings(spec="mcp3008:5.0", **PINLESS)
    source = AdcSource(converter("mcp3008", "5.0", settings, spidev(lambda c: 0.0)), settings)
    with pytest.raises(StethopiError, match="cannot be opened .*; switch SPI on"):
        source.start()
    settings = EcgSettings(spec="ads1115:1.0x49", **PINLESS)
    source = AdcSource(
        converter("ads1115", "1.0x49", settings, smbus2(lambda c: 0.0, FakeTime(1.0))), settings
    )
    with pytest.raises(StethopiError, match="does not answer .*check its wires, and switch I2C on"):
        source.start()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("mcp3008:0.7", "not BUS.DEVICE, device 0 or 1"),
        ("ads1115:1.0x20", "not BUS.ADDRESS, address 0x48 to 0x4b"),
        ("mcp3009", 'no such kind of lead. Did you mean "mcp3008"'),
        ("file:", "names no file"),
        ("synthetic:rat=70", 'no such key. Did you mean "rate"'),
        ("synthetic:rate=5", "not from 30 to 220"),
    ],
)
def test_a_wrong_name_is_refused(spec: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        open_ecg(EcgSettings(spec=spec))


def test_what_a_name_means() -> None:
    assert parse_bus("mcp3008", "") == (0, 0) and parse_bus("mcp3008", "1.1") == (1, 1)
    assert parse_bus("ads1115", "") == (1, 0x48) and parse_bus("ads1115", "0.0x4a") == (0, 0x4A)
    assert open_ecg(EcgSettings()) is None
    with pytest.raises(BadInput, match="channels 0 to 3"):
        open_ecg(EcgSettings(spec="ads1115", channel=5))
    with pytest.raises(BadInput, match="in real time only"):
        open_ecg(EcgSettings(spec="mcp3008"), pace="fast")


# ---- recordings and a heart that is not there


def everything(source: EcgSource, most: int = 10**9) -> tuple[np.ndarray, list[EcgBlock]]:
    source.start()
    blocks = list(itertools.islice(iter(source.read, None), most))
    return np.concatenate([block.samples for block in blocks]), blocks


def test_a_recording_is_a_lead(tmp_path: Path) -> None:
    x, _ = beating(3.0)
    write_record(tmp_path, "r", [x, -x])
    source = open_ecg(EcgSettings(spec=f"file:{tmp_path / 'r'}"), pace="fast")
    assert source is not None and source.played and source.name == "r.hea, lead lead 1"
    y, blocks = everything(source)
    np.testing.assert_allclose(y, x, atol=0.0026)
    assert [b.index for b in blocks] == list(range(0, 1080, 9)) and source.read() is None


def test_in_real_time_a_recording_begins_with_the_sound() -> None:
    now = [100.0]
    x, _ = beating(2.0)
    ecg = read_like(x)
    source = EcgReplay(ecg, pace="real", monotonic=lambda: now[0])
    source.begin_at(99.5)  # the sound began half a second ago
    source.start()
    blocks = [source.read() for _ in range(20)]
    assert all(b is not None for b in blocks), "what is due already comes at once"
    assert blocks[-1] is not None and blocks[-1].index + 9 == 180


def read_like(x: np.ndarray) -> Any:
    from device.ecg.files import Ecg, Lead

    return Ecg([Lead("I", x)], 360, "CSV")


def test_the_synthetic_lead_beats_with_the_synthetic_heart() -> None:
    from device.settings.specs import HeartSettings
    from device.sources.synthetic import Heart

    lead = SyntheticEcg(SyntheticLead(rate=66, seed=7, seconds=20, off_after_s=15, off_for_s=2), pace="fast")
    y, blocks = everything(lead)
    assert len(y) == 20 * 360
    s1 = [a for a, _, state in Heart(HeartSettings(rate=66, seed=7)).states(0.0, 14.0) if state == "S1"]
    peaks = lead.r_peaks_s(0.0, 14.0)
    assert len(peaks) >= 14 and all(0.02 < b - a < 0.08 for a, b in zip(peaks, s1, strict=False))
    assert all(y[round(at * 360)] > 0.6 for at in peaks)
    off = np.concatenate([b.off for b in blocks if b.off is not None])
    assert off.sum() == 720 and off[15 * 360 : 17 * 360].all() and (y[15 * 360 : 17 * 360] == 5.0).all()


# ---- what the doctor says of it


@pytest.mark.parametrize(
    ("spec", "status", "said"),
    [
        ("none", None, ""),
        ("synthetic", "ok", "synthetic lead, 70/min at 360 Hz, 0 samples missed"),
        ("synthetic:off_after_s=0", "note", "lead off"),
        ("mcp3008", "bad", "spidev is missing"),
    ],
)
def test_the_doctor_looks_at_the_lead(
    monkeypatch: pytest.MonkeyPatch, spec: str, status: str | None, said: str
) -> None:
    from device.checks import doctor
    from device.settings.settings import Settings

    monkeypatch.setitem(sys.modules, "spidev", None)
    settings = Settings.parse({"ecg": {"spec": spec, **PINLESS}})
    try:
        found = list(doctor._ecg(settings))
    except StethopiError as error:
        found = [doctor._bad("ecg", error)]
    assert [check.state for check in found] == ([] if status is None else [status])
    assert all(said in check.says for check in found)
