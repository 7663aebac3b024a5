"""What is wrong with a microphone: each fault put into a synthetic one is named, and a healthy one is not
blamed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device.checks import soundcheck
from device.checks.soundcheck import HARDWARE, Fault, examine, hardware_of
from device.settings.specs import HeartSettings
from device.sources.files import read_sound, write_sound
from device.sources.synthetic import synthesise

RATE = 16000
SECONDS = 4


def heart(seed: int = 1, level: float = 0.05, **more: object) -> np.ndarray:
    settings = HeartSettings(rate_hz=RATE, seed=seed, level=level, noise_db=25, **more)  # type: ignore[arg-type]
    return synthesise(settings, SECONDS).samples


def noise(db: float, seed: int = 1) -> np.ndarray:
    return (10 ** (db / 20) * np.random.default_rng(seed).standard_normal(SECONDS * RATE)).astype(np.float32)


def words(x: np.ndarray, bits: int) -> np.ndarray:
    """As a converter of so many bits gives it."""
    return (np.rint(np.clip(x, -1, 1 - 2.0**-20) * 2.0 ** (bits - 1)) / 2.0 ** (bits - 1)).astype(np.float32)


def tone(hz: float, db: float) -> np.ndarray:
    t = np.arange(SECONDS * RATE) / RATE
    return (10 ** (db / 20) * np.sqrt(2) * np.sin(2 * np.pi * hz * t + hz)).astype(np.float32)


def faults(x: np.ndarray, **more: object) -> list[Fault]:
    found = examine(x, RATE, hardware=HARDWARE["inmp441"], words="S32_LE", **more)  # type: ignore[arg-type]
    for finding in found:
        assert finding.says and finding.remedy and "\n" not in finding.says + finding.remedy
    return [finding.fault for finding in found]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rate", [45, 72, 150])
def test_a_healthy_microphone_is_not_blamed(seed: int, rate: int) -> None:
    x = words(heart(seed, rate=rate, murmur="systolic") + noise(-75, seed), 24)
    assert faults(x) == []
    assert faults(words(heart(seed, rate=rate, noise="breath"), 24)) == []


def test_real_hearts_are_no_hum(normal_recording: Path, murmur_recording: Path) -> None:
    for path in (normal_recording, murmur_recording):
        sound = read_sound(path)
        found = [f.fault for f in examine(sound.samples, sound.rate_hz)]
        assert Fault.HUM not in found and Fault.SUPPLY not in found


def test_nothing_connected_is_dead_whatever_the_constant() -> None:
    for value in (0.0, -1.0, 0.25):
        assert faults(np.full(SECONDS * RATE, value, np.float32)) == [Fault.DEAD]


def test_the_other_channel_is_offered() -> None:
    both = np.stack([words(noise(-110), 24), words(heart(), 24)], axis=1)
    (found,) = examine(both, RATE, channel=0, hardware=HARDWARE["sph0645"])
    assert found.fault is Fault.WRONG_CHANNEL
    assert found.says.startswith("the left channel is silent, the right one has sound")
    assert found.remedy == (
        'set [source] channel = "right", or change its pin SEL: to ground left, to 3.3 V right'
    )
    assert faults(both, channel=1) == []
    (found,) = examine(both[:, ::-1], RATE, channel=1)
    assert 'set [source] channel = "left"' in found.remedy
    both[:, 1] = 0
    both[:, 0] = 0
    assert faults(both) == [Fault.DEAD]


def test_sixteen_bits_in_words_of_32_are_told_and_on_a_card_of_16_bits_are_right() -> None:
    x = words(heart(), 16)
    assert faults(x) == [Fault.SIXTEEN_BITS]
    assert examine(x, RATE, hardware=HARDWARE["usb"], words="S16_LE") == []
    assert examine(x, RATE, hardware=HARDWARE["usb"]) == []
    (found,) = examine(x, RATE, hardware=HARDWARE["inmp441"])
    assert "dtparam=i2s=on and dtoverlay=googlevoicehat-soundcard" in found.remedy


def test_words_at_the_wrong_end_are_told() -> None:
    """A sound of 16 bits in the lower half of each word: its steps are finer than a converter's."""
    assert faults((words(heart(level=0.5), 16) / 2.0**16).astype(np.float32)) == [Fault.WRONG_END]
    assert faults(words(heart(level=0.5) / 2.0**16, 24)) == [Fault.TOO_LOW]


def test_levels() -> None:
    assert faults(words(heart(level=2e-4), 24)) == [Fault.TOO_LOW]
    assert faults(np.clip(words(40 * heart(), 24), -1, 1)) == [Fault.CLIPPED]
    assert faults(words(heart() + 0.6, 24)) == [Fault.OFFSET]
    assert faults(words(heart() + 0.1, 24)) == []
    assert faults(heart()[: RATE // 2]) == [Fault.TOO_SHORT]


@pytest.mark.parametrize("base", [50, 60])
@pytest.mark.parametrize("off", [-0.1, 0.0, 0.1])
def test_mains_hum_with_its_harmonics(base: int, off: float) -> None:
    hum = tone(base + off, -45) + tone(3 * (base + off), -52) + tone(5 * (base + off), -58)
    (found,) = examine(words(heart() * 0.2 + hum, 24), RATE)
    assert found.fault is Fault.HUM and f"{base}, {3 * base}" in found.says and "battery" in found.remedy


@pytest.mark.parametrize("base", [50, 60])
def test_ripple_of_the_supply_is_told_from_hum(base: int) -> None:
    ripple = tone(2 * base, -42) + tone(4 * base, -48)
    (found,) = examine(words(heart() * 0.1 + ripple, 24), RATE)
    assert (
        found.fault is Fault.SUPPLY and found.says.startswith("ripple of the supply") and "µF" in found.remedy
    )


def test_a_whine_that_is_no_multiple_of_the_mains_is_the_supply() -> None:
    (found,) = examine(words(heart() + tone(1013, -50) + tone(3339, -60), 24), RATE)
    assert found.fault is Fault.SUPPLY and "1013" in found.says


def test_what_is_wired_is_known_by_the_cards_name_or_by_setting() -> None:
    for setting, card, name in (
        ("auto", "snd_rpi_googlevoicehat_soundcard", "INMP441"),
        ("auto", "arecord wm8960-soundcard", "WM8960"),
        ("auto", "microphone USB PnP Sound Device: Audio (hw:1,0)", "USB sound card"),
        ("auto", "stetho", "microphone"),
        ("sph0645", "snd_rpi_googlevoicehat_soundcard", "SPH0645"),
    ):
        assert hardware_of(setting, card).name == name
    for key, hardware in HARDWARE.items():
        assert hardware.i2s == bool(hardware.overlay) == (key != "usb")
        assert all(line.startswith(("dtoverlay=", "dtparam=")) for line in hardware.overlay)


def test_on_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sound(tmp_path / "good.wav", heart(), RATE)
    assert soundcheck.main([str(tmp_path / "good.wav")]) == 0
    assert capsys.readouterr().out == "nothing is wrong with this sound\n"
    write_sound(tmp_path / "hum.wav", heart() * 0.2 + tone(50, -40) + tone(150, -50), RATE)
    assert soundcheck.main([str(tmp_path / "hum.wav")]) == 1
    assert capsys.readouterr().out.startswith("mains hum: mains hum: 50")
    assert soundcheck.main([str(tmp_path / "none.wav")]) == 2
    assert soundcheck.main([]) == 2
