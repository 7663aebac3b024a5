"""The sections of the settings file: each key with unit, range and default."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from device.contract.vocabulary import SITES
from device.errors import BadInput
from device.settings.specs import ECG_KINDS, LIVE
from device.text import read_text

__all__ = [
    "DeviceSettings",
    "SourceSettings",
    "EcgSettings",
    "DenoiseSettings",
    "ListenSettings",
    "ExamSettings",
    "OutboxSettings",
    "MqttSettings",
    "PanelSettings",
    "BundleSettings",
]


MICROPHONE_RATES = (8000, 16000, 44100, 48000, 96000)


@dataclass(frozen=True)
class Key:
    """What a person may write for a key, and what it means."""

    says: str
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    also: Any = None
    """A value besides `choices` that `says` explains."""
    remedy: str = ""
    """What to do about a value that is none of `choices`."""
    shown: str | None = None
    """The default in the reference, where it is not the same everywhere."""
    pattern: str = ""
    shape: str = ""
    """`pattern` in words."""
    path: bool = False
    """A file or folder, counted from the settings file."""
    spec: tuple[str, ...] = ()
    """KIND or KIND:MORE, the kind one of these; after `file:` stands a path."""

    @property
    def listed(self) -> str:
        return ", ".join(map(said, self.choices))

    @property
    def allowed(self) -> str:
        """The range in words; empty when there is none."""
        if self.choices:
            return f"one of {self.listed}"
        if self.low is not None and self.high is not None:
            return f"{self.low} to {self.high}"
        return self.shape


def _key(default: Any, says: str, **more: Any) -> Any:
    metadata = {"key": Key(says, **more)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _host_name() -> str:
    """This machine's name as far as it may be a device's id."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname().split(".")[0]).strip("-_")
    return name[:64] or "stethoscope"


_STATE_DIR = "~/.local/state/stethopi"


def _state_dir() -> Path:
    return Path(_STATE_DIR).expanduser()


_ID: dict[str, Any] = {
    "pattern": r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}",
    "shape": "up to 64 letters, digits, . _ -, a letter or digit first",
}


@dataclass(frozen=True)
class DeviceSettings:
    """Who this stethoscope is, and where it keeps what it must not forget."""

    id: str = _key(_host_name, "unique in its fleet; default: the machine's name", shown="HOSTNAME", **_ID)
    fleet: str = _key("home", "group of stethoscopes that one host listens to", **_ID)
    state_dir: Path = _key(
        _state_dir, "folder of exams that wait, recordings, newer models", shown=_STATE_DIR, path=True
    )


@dataclass(frozen=True)
class SourceSettings:
    """Where the sound comes from."""

    spec: str = _key(
        "microphone",
        f"{' or '.join(LIVE)}, either with :PART_OF_ITS_NAME; file:PATH; synthetic:rate=70",
        spec=(*LIVE, "file", "synthetic"),
    )
    rate_hz: int = _key(
        0,
        "Hz, of the microphone; 0: the first of these that it offers",
        choices=MICROPHONE_RATES,
        also=0,
        remedy="Set one your microphone has.",
    )
    channel: str = _key(
        "left",
        "which channel of a microphone that has two, or of a file",
        pattern=r"left|right|loudest|[1-9]\d?",
        shape="left, right, loudest or a number from 1",
    )
    hardware: str = _key(
        "auto",
        "what is wired; auto: by the card's name",
        choices=("auto", "inmp441", "ics43434", "sph0645", "wm8960", "usb"),
    )
    pace: str = _key(
        "real",
        "files and synthetic hearts in real time, or as fast as the machine can",
        choices=("real", "fast"),
    )


@dataclass(frozen=True)
class EcgSettings:
    """The ECG lead beside the sound. A missing lead never stops the sound."""

    spec: str = _key(
        "none",
        "none, mcp3008[:BUS.DEVICE], ads1115[:BUS.ADDRESS], file:PATH, synthetic[:rate=70]",
        spec=ECG_KINDS,
    )
    rate_hz: int = _key(360, "Hz, of the converter", choices=(360, 500))
    channel: int = _key(0, "input of the converter that the AD8232's output is wired to", low=0, high=7)
    gain: float = _key(
        1100.0,
        "from electrode to converter: 100, or 1100 with the second stage of the usual boards",
        low=50,
        high=5000,
    )
    supply_v: float = _key(
        3.3, "V of AD8232 and converter; the ECG lies around half of it", low=2.0, high=5.5
    )
    lo_plus_pin: int = _key(5, "LO+, high when that electrode is off; -1: not wired", low=-1, high=27)
    lo_minus_pin: int = _key(6, "LO-, as lo_plus_pin", low=-1, high=27)
    delay_ms: float = _key(
        0.0,
        "ms by which the amplifier's filter delays the ECG; about 6 with a 40-Hz low-pass",
        low=0,
        high=100,
    )
    strength: float = _key(1.0, "of denoising; 0: raw, delayed to match", low=0, high=1)


@dataclass(frozen=True)
class DenoiseSettings:
    """The streaming denoiser."""

    strength: float = _key(1.0, "0: raw, delayed to match; 1: fully denoised", low=0, high=1)
    budget: float = _key(
        0.25, "share of a hop that a step may take; above it counts as missed", low=0.01, high=1
    )


@dataclass(frozen=True)
class ListenSettings:
    """What goes to the ear."""

    output: str = _key(
        "none",
        "none, device, device:NAME (part of its name), or file:PATH (WAV)",
        spec=("none", "device", "file"),
    )
    monitor: str = _key("clean", "what is heard", choices=("raw", "clean"))
    preset: str = _key(
        "none",
        "what passes: all, or 20-200, 100-500, 20-800 Hz",
        choices=("none", "bell", "diaphragm", "extended"),
    )
    gain_db: float = _key(0.0, "dB; a soft limiter keeps the sound within `limit`", low=-40, high=40)
    gain_step_db: float = _key(3.0, "dB; a step of the keys + and -", low=1, high=12)
    limit: float = _key(0.8, "loudest sample that leaves, share of full scale", low=0.05, high=1)
    loudest_db: float = _key(
        -20.0, "dB of full scale; louder for longer than a beat is turned down; 0: never", low=-60, high=0
    )


@dataclass(frozen=True)
class ExamSettings:
    """One examination."""

    sites: tuple[str, ...] = _key(
        ("AV", "PV", "TV", "MV"), "sites in the order in which they are heard; one is enough", choices=SITES
    )
    min_s: float = _key(10.0, "s; a site lasts at least so long", low=1, high=300)
    max_s: float = _key(60.0, "s; a site lasts at most so long", low=1, high=300)
    good_windows: int = _key(
        8, "a site ends when so many windows of 5 s, one a second, were good", low=1, high=200
    )
    autostart: bool = _key(False, "begin an exam as soon as there is sound, without a button")
    subjects: Path | None = _key(
        None, "list of subject codes, one a line: each exam takes the next (stethopi subjects)", path=True
    )
    exams: int = _key(0, "stop after so many exams; 0: go on for ever", low=0, high=1_000_000)


@dataclass(frozen=True)
class OutboxSettings:
    """Exams on this device. Those that were not delivered are never deleted."""

    quota_mb: int = _key(
        0,
        "MB of recordings kept; delivered ones go first, then new exams are refused; 0: no limit",
        low=0,
        high=1_000_000,
    )
    keep_delivered: bool = _key(True, "keep the recording of a delivered exam until the room is needed")


@dataclass(frozen=True)
class MqttSettings:
    """Delivery. Exams wait in the outbox until the host's receipt has come, however long that takes."""

    host: str = _key("", "name or address of the broker; empty: exams wait in the outbox")
    port: int = _key(1883, "TCP port; 8883 is usual with TLS", low=1, high=65535)
    username: str = _key("", "empty: none")
    password_file: Path | None = _key(
        None, "file that holds the password and nothing else, readable by its owner only", path=True
    )
    tls: bool = _key(False, "encrypt, and check the broker's certificate")
    ca_file: Path | None = _key(None, "certificates to trust instead of the system's (PEM)", path=True)
    cert_file: Path | None = _key(
        None, "this device's certificate (PEM), where the broker asks for one", path=True
    )
    key_file: Path | None = _key(None, "the key of cert_file (PEM)", path=True)
    keepalive_s: int = _key(
        30, "s; the broker notices a lost device after one and a half of it", low=5, high=3600
    )

    def password(self) -> str | None:
        """The password, read now; None when there is none. Raises BadInput when its file cannot be read."""
        if self.password_file is None:
            return None
        try:
            return read_text(self.password_file).strip("\r\n")
        except OSError as error:
            raise BadInput(
                f"{self.password_file}: the broker's password cannot be read ({error.strerror}); "
                f"write it there, or correct password_file in [mqtt]"
            ) from None


_PIN: dict[str, Any] = {"low": -1, "high": 27}


@dataclass(frozen=True)
class PanelSettings:
    """Button and lights. Pins are BCM numbers; -1: not there."""

    kind: str = _key("none", "gpio on a Raspberry Pi; fake is for tests", choices=("gpio", "fake", "none"))
    button_pin: int = _key(17, "button to ground; the pull-up is inside", **_PIN)
    red_pin: int = _key(22, "red light", **_PIN)
    green_pin: int = _key(27, "green light", **_PIN)
    blue_pin: int = _key(23, "blue light", **_PIN)
    active_low: bool = _key(False, "the lights shine at 0 V (common anode)")
    buzzer_pin: int = _key(-1, "buzzer that sounds at 3.3 V", **_PIN)
    long_s: float = _key(1.0, "s; a button held so long is a long press", low=0.3, high=4)
    cancel_s: float = _key(5.0, "s; held so long in an exam, the light asks whether to cancel", low=2, high=9)
    shutdown_s: float = _key(10.0, "s; held so long, all is ended safely", low=5, high=30)
    shutdown: str = _key(
        "poweroff",
        "what that does: switch the machine off, end this program, or nothing",
        choices=("poweroff", "stop", "none"),
    )
    keyboard: str = _key(
        "none",
        "QR reader or keypad for subject codes: none, evdev, evdev:PATH, text:PATH",
        spec=("none", "evdev", "text"),
    )
    double_s: float = _key(0.35, "s; a second press within it makes a double press", low=0.1, high=1)


@dataclass(frozen=True)
class BundleSettings:
    """The models."""

    path: Path | None = _key(None, "folder of a released bundle; default: the newest there is", path=True)


def said(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(said(item) for item in value) + "]"
    if isinstance(value, str | Path):
        return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
