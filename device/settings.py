"""One TOML file → frozen dataclasses, one a stage. Read once at start, then passed in.

A key that does not exist is refused by name, with the nearest that does; a wrong value with what is
allowed. Passwords stand in a file of their own. Paths that are not absolute are counted from the settings
file's folder; `~` is home.

    python -I -m device.settings [FILE]   check FILE, or print the reference: every key, default, unit, range
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from device.errors import BadInput

__all__ = [
    "BundleSettings",
    "DenoiseSettings",
    "DeviceSettings",
    "EcgSettings",
    "ExamSettings",
    "ListenSettings",
    "MqttSettings",
    "OutboxSettings",
    "PanelSettings",
    "Settings",
    "SourceSettings",
]

ENVIRONMENT = "STETHOPI_CONFIG"
"""Names the settings file when the command line does not."""

SITES = ("AV", "PV", "TV", "MV", "other")
MICROPHONE_RATES = (8000, 16000, 44100, 48000, 96000)


@dataclass(frozen=True)
class _Key:
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
        return ", ".join(map(_said, self.choices))

    @property
    def allowed(self) -> str:
        """The range in words; empty when there is none."""
        if self.choices:
            return f"one of {self.listed}"
        if self.low is not None and self.high is not None:
            return f"{self.low} to {self.high}"
        return self.shape


def _key(default: Any, says: str, **more: Any) -> Any:
    metadata = {"key": _Key(says, **more)}
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
        "microphone or arecord, either with :PART_OF_ITS_NAME; file:PATH; synthetic:rate=70",
        spec=("microphone", "arecord", "file", "synthetic"),
    )
    rate_hz: int = _key(
        0,
        "Hz, of the microphone; 0: the first of these that it offers",
        choices=MICROPHONE_RATES,
        also=0,
        remedy="Set one your microphone has.",
    )
    channel: str = _key("left", "which channel of a microphone that has two", choices=("left", "right"))
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
        spec=("none", "mcp3008", "ads1115", "file", "synthetic"),
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
            return self.password_file.read_text("utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise BadInput(
                f"{self.password_file}: the broker's password cannot be read ({reason}); "
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


@dataclass(frozen=True)
class Settings:
    """All settings. `Settings()` are the defaults, and they are safe: nothing is sent anywhere."""

    device: DeviceSettings = field(default_factory=DeviceSettings)
    source: SourceSettings = field(default_factory=SourceSettings)
    ecg: EcgSettings = field(default_factory=EcgSettings)
    denoise: DenoiseSettings = field(default_factory=DenoiseSettings)
    listen: ListenSettings = field(default_factory=ListenSettings)
    exam: ExamSettings = field(default_factory=ExamSettings)
    outbox: OutboxSettings = field(default_factory=OutboxSettings)
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    panel: PanelSettings = field(default_factory=PanelSettings)
    bundle: BundleSettings = field(default_factory=BundleSettings)

    @staticmethod
    def load(path: Path | str | None = None) -> Settings:
        """Read the file; without one the file that $STETHOPI_CONFIG names; without that the defaults.

        Raises BadInput naming file, section, key, what is wrong and what is allowed.
        """
        if path is None:
            named = os.environ.get(ENVIRONMENT)
            if not named:
                return Settings.parse({}, "defaults", Path.cwd())
            path = named
        path = Path(path)
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            raise BadInput(
                f"{path}: no such settings file; write one: stethopi-device settings > {path}"
            ) from None
        except UnicodeDecodeError:
            raise BadInput(f"{path}: is no UTF-8 text; save it as UTF-8") from None
        except OSError as error:
            raise BadInput(f"{path}: cannot be read ({error.strerror}); check name and permissions") from None
        return Settings.from_toml(text, str(path), path.absolute().parent)

    @staticmethod
    def from_toml(text: str, name: str = "device.toml", folder: Path | None = None) -> Settings:
        """Settings from TOML text. `name` stands in messages; paths are counted from `folder`."""
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise BadInput(f"{name}: is no TOML: {error}. Correct that line.") from None
        return Settings.parse(table, name, folder)

    @staticmethod
    def parse(table: Mapping[str, Any], name: str = "settings", folder: Path | None = None) -> Settings:
        """Settings from nested dictionaries, checked as a file is."""
        sections = {f.name: f.default_factory for f in fields(Settings) if f.default_factory is not MISSING}
        made: dict[str, Any] = {}
        for section, content in table.items():
            if section not in sections:
                raise BadInput(_no_such_section(name, section, content, list(sections)))
            if not isinstance(content, Mapping):
                given = f"{name}: {section} = {_said(content)}"
                raise BadInput(f"{given}: is a section. Write [{section}] on a line of its own.")
        for section, kind in sections.items():
            made[section] = _section(kind, section, table.get(section, {}), name, folder or Path.cwd())
        settings = Settings(**made)
        _consistent(settings, name)
        return settings

    def change(self, section: str, **values: Any) -> Settings:
        """The same settings with some values of one section replaced, checked as in a file: for the command
        line."""
        stage = getattr(self, section)
        found = {}
        for key, value in values.items():
            known = {f.name: f for f in fields(stage)}
            if key not in known:
                raise BadInput(_no_such_key("option", section, key, value))
            found[key] = _value(stage, known[key], value, f"option: [{section}] {key}", Path.cwd())
        changed = replace(self, **{section: replace(stage, **found)})
        _consistent(changed, "option")
        return changed

    @staticmethod
    def reference() -> str:
        """A settings file with every key in it, commented out: what it means, unit, range, default."""
        lines = ["# Settings of a stethopi stethoscope. What is commented out is the default."]
        for section in fields(Settings):
            stage = section.default_factory  # type: ignore[misc]
            doc = " ".join((stage.__doc__ or "").split())
            lines += ["", f"# {doc}", f"[{section.name}]"]
            for item in fields(stage):  # type: ignore[arg-type]
                key: _Key = item.metadata["key"]
                lines.append(f"# {key.says}" + (f" ({key.allowed})" if key.allowed else ""))
                default = item.default
                shown = key.shown if key.shown is not None else "" if default is None else default
                lines.append(f"# {item.name} = {_said(shown)}")
        return "\n".join(lines) + "\n"


def _consistent(settings: Settings, name: str) -> None:
    """What one key asks of another."""
    exam, mqtt = settings.exam, settings.mqtt
    if exam.min_s > exam.max_s:
        given = f"{name}: [exam] min_s = {exam.min_s:g}"
        raise BadInput(f"{given}: more than max_s = {exam.max_s:g}. Lower one or raise the other.")
    panel = settings.panel
    for shorter, longer in (("long_s", "cancel_s"), ("cancel_s", "shutdown_s")):
        if getattr(panel, shorter) >= getattr(panel, longer):
            raise BadInput(
                f"{name}: [panel] {longer} = {getattr(panel, longer):g}: not more than {shorter} = "
                f"{getattr(panel, shorter):g}. Raise it or lower the other."
            )
    if panel.keyboard in ("text", "text:", "evdev:"):
        kind = panel.keyboard.rstrip(":")
        raise BadInput(f"{name}: [panel] keyboard = {_said(panel.keyboard)}: names no file. Use {kind}:PATH.")
    if (mqtt.cert_file is None) != (mqtt.key_file is None):
        there, missing = ("cert_file", "key_file") if mqtt.cert_file else ("key_file", "cert_file")
        raise BadInput(f"{name}: [mqtt] {missing}: is missing beside {there}. Name both or none.")
    if mqtt.password_file and not mqtt.username:
        raise BadInput(f"{name}: [mqtt] username: is missing beside password_file. Name its owner.")


def _said(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_said(item) for item in value) + "]"
    if isinstance(value, str | Path):
        return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def _no_such_section(name: str, section: str, content: Any, known: list[str]) -> str:
    if not isinstance(content, Mapping):
        return f"{name}: {section}: stands in no section. Put it under {_brackets(known)}."
    near = get_close_matches(section, known, 1)
    return f"{name}: [{section}]: no such section. " + (
        f"Did you mean [{near[0]}]?" if near else f"Use {_brackets(known)}."
    )


def _brackets(sections: list[str]) -> str:
    return ", ".join(f"[{section}]" for section in sections[:-1]) + f" or [{sections[-1]}]"


def _no_such_key(name: str, section: str, key: str, value: Any) -> str:
    stages = {f.name: [k.name for k in fields(f.default_factory)] for f in fields(Settings)}  # type: ignore[arg-type,misc]
    if section == "mqtt" and key == "password":
        return (
            f"{name}: [mqtt] password: is not kept in this file. "
            f"Write it into a file that only its owner can read, and name that as password_file."
        )
    where = f"{name}: [{section}] {key}: no such key."
    near = get_close_matches(key, stages[section], 1)
    if near:
        return f'{where} Did you mean "{near[0]}"?'
    homes = [other for other, keys in stages.items() if key in keys]
    if homes:
        return f"{where} It belongs to [{homes[0]}]."
    return f"{where} Keys of [{section}]: {', '.join(stages[section])}."


def _section(kind: Any, section: str, content: Mapping[str, Any], name: str, folder: Path) -> Any:
    known = {f.name: f for f in fields(kind)}
    for key, value in content.items():
        if key not in known:
            raise BadInput(_no_such_key(name, section, key, value))
    stage = kind()
    found = {}
    for key, item in known.items():
        if key in content:
            found[key] = _value(stage, item, content[key], f"{name}: [{section}] {key}", folder)
    return replace(stage, **found)


_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    Path: "a text in quotes",
}


def _value(stage: Any, item: Any, value: Any, where: str, folder: Path) -> Any:
    """The value as its field holds it. BadInput with what is allowed when it cannot."""
    key: _Key = item.metadata["key"]
    kind = _plain(get_type_hints(type(stage))[item.name])
    given = f"{where} = {_said(value)}"
    if kind is tuple:
        if not isinstance(value, list | tuple) or not value:
            raise BadInput(
                f"{given}: must be a list with at least one of {', '.join(map(_said, key.choices))}."
            )
        for entry in value:
            if entry not in key.choices:
                near = get_close_matches(str(entry), key.choices, 1, 0.5) or get_close_matches(
                    str(entry).upper(), key.choices, 1
                )
                remedy = (
                    f"Did you mean {_said(near[0])}?"
                    if near
                    else f"Use {', '.join(map(_said, key.choices))}."
                )
                raise BadInput(f"{given}: {_said(entry)} is no site. {remedy}")
        if len(set(value)) != len(value):
            raise BadInput(f"{given}: names a site twice. Name each once.")
        return tuple(value)
    if kind is Path and (value == "" or value is None):
        return None if item.default is None else _refused(given, "must name a folder.")
    allowed_kinds: Any = {Path: (str, Path), float: (int, float)}.get(kind, (kind,))
    no_switch = isinstance(value, bool) and kind is not bool  # True is an int to Python, but not to a person
    if not isinstance(value, allowed_kinds) or no_switch or value != value:
        raise BadInput(f"{given}: must be {_WORDS[kind]}" + (f", {key.allowed}." if key.allowed else "."))
    if key.choices and value not in key.choices and value != key.also:
        near = get_close_matches(value, key.choices, 1) if kind is str else []
        remedy = key.remedy or (f"Did you mean {_said(near[0])}?" if near else "")
        raise BadInput(f"{given}: not {key.allowed}. {remedy}".rstrip())
    if (key.low is not None and value < key.low) or (key.high is not None and value > key.high):
        raise BadInput(f"{given}: must be {key.allowed}.")
    if key.pattern and not re.fullmatch(key.pattern, value):
        raise BadInput(f"{given}: must be {key.shape}.")
    if key.path:
        return folder / Path(value).expanduser()
    if key.spec:
        return _spec(key, value, given, folder)
    return kind(value)


def _refused(given: str, why: str) -> Any:
    raise BadInput(f"{given}: {why}")


def _spec(key: _Key, value: str, given: str, folder: Path) -> str:
    kind, _, rest = value.partition(":")
    if kind not in key.spec:
        near = get_close_matches(kind, key.spec, 1)
        remedy = f"Did you mean {_said(near[0])}?" if near else f"Use {key.says}."
        raise BadInput(f"{given}: no such kind. {remedy}")
    if kind == "file":
        if not rest:
            raise BadInput(f"{given}: names no file. Use file:PATH.")
        return f"file:{folder / Path(rest).expanduser()}"
    if "mcp3008" in key.spec:
        from device.sources.ecg import check_ecg_spec

        try:
            check_ecg_spec(value)
        except BadInput as error:
            raise BadInput(f"{given}: {error}") from None
    elif kind == "synthetic":
        from device.sources import check_spec

        try:
            check_spec(value)
        except BadInput as error:
            raise BadInput(f"{given}: {error}") from None
    return value


def _plain(hint: Any) -> type:
    """The type to check for: `Path | None` → Path, `tuple[str, ...]` → tuple."""
    for one in (bool, int, float, str, Path):
        if (
            hint is one
            or one in getattr(hint, "__args__", ())
            and getattr(hint, "__origin__", None) is not tuple
        ):
            return one
    return tuple


if __name__ == "__main__":
    import sys

    from device.errors import StethopiError

    if len(sys.argv) > 2:
        sys.exit("usage: python -I -m device.settings [FILE]")
    try:
        if len(sys.argv) == 1:
            print(Settings.reference(), end="")
        else:
            Settings.load(Path(sys.argv[1]))
            print(f"{sys.argv[1]}: fine")
    except StethopiError as problem:
        print(f"stethopi: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)
