"""One TOML file → frozen dataclasses, one a stage. Read once at start, then passed in.

A key that does not exist is refused by name, with the nearest that does; a wrong value with what is
allowed. Passwords stand in a file of their own. Paths that are not absolute are counted from the settings
file's folder; `~` is home.

    python -I -m device.settings.settings [FILE]
        check FILE, or print the reference: every key, default, unit, range
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from device.errors import BadInput
from device.settings.reader import no_such_section, read_value
from device.settings.sections import (
    BundleSettings,
    DenoiseSettings,
    DeviceSettings,
    EcgSettings,
    ExamSettings,
    Key,
    ListenSettings,
    MqttSettings,
    OutboxSettings,
    PanelSettings,
    SourceSettings,
    said,
)
from device.text import read_text

__all__ = ["Settings"]

ENVIRONMENT = "STETHOPI_CONFIG"
"""Names the settings file when the command line does not."""


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
            text = read_text(path)
        except FileNotFoundError:
            raise BadInput(
                f"{path}: no such settings file; write one: stethopi-device settings > {path}"
            ) from None
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
                raise BadInput(no_such_section(name, section, content, list(sections)))
            if not isinstance(content, Mapping):
                given = f"{name}: {section} = {said(content)}"
                raise BadInput(f"{given}: is a section. Write [{section}] on a line of its own.")
        for section, kind in sections.items():
            made[section] = read_section(kind, section, table.get(section, {}), name, folder or Path.cwd())
        settings = Settings(**made)
        _consistent(settings, name)
        return settings

    def change(self, section: str, **values: Any) -> Settings:
        """The same settings with some values of one section replaced, checked as in a file: for the command
        line.
        """
        stage = getattr(self, section)
        found = {}
        for key, value in values.items():
            known = {f.name: f for f in fields(stage)}
            if key not in known:
                raise BadInput(_no_such_key("option", section, key, value))
            found[key] = read_value(stage, known[key], value, f"option: [{section}] {key}", Path.cwd())
        changed = replace(self, **{section: replace(stage, **found)})
        _consistent(changed, "option")
        return changed

    @staticmethod
    def reference() -> str:
        """A settings file with every key in it, commented out: what it means, unit, range, default."""
        lines = ["# Settings of a stethopi stethoscope. What is commented out is the default."]
        for section in fields(Settings):
            stage = section.default_factory
            doc = " ".join((stage.__doc__ or "").split())
            lines += ["", f"# {doc}", f"[{section.name}]"]
            for item in fields(stage):  # type: ignore[arg-type]
                key: Key = item.metadata["key"]
                lines.append(f"# {key.says}" + (f" ({key.allowed})" if key.allowed else ""))
                default = item.default
                shown = key.shown if key.shown is not None else "" if default is None else default
                lines.append(f"# {item.name} = {said(shown)}")
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
        raise BadInput(f"{name}: [panel] keyboard = {said(panel.keyboard)}: names no file. Use {kind}:PATH.")
    if (mqtt.cert_file is None) != (mqtt.key_file is None):
        there, missing = ("cert_file", "key_file") if mqtt.cert_file else ("key_file", "cert_file")
        raise BadInput(f"{name}: [mqtt] {missing}: is missing beside {there}. Name both or none.")
    if mqtt.password_file and not mqtt.username:
        raise BadInput(f"{name}: [mqtt] username: is missing beside password_file. Name its owner.")


def _no_such_key(name: str, section: str, key: str, value: Any) -> str:
    stages = {f.name: [k.name for k in fields(f.default_factory)] for f in fields(Settings)}  # type: ignore[arg-type]
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


def read_section(kind: Any, section: str, content: Mapping[str, Any], name: str, folder: Path) -> Any:
    known = {f.name: f for f in fields(kind)}
    for key, value in content.items():
        if key not in known:
            raise BadInput(_no_such_key(name, section, key, value))
    stage = kind()
    found = {}
    for key, item in known.items():
        if key in content:
            found[key] = read_value(stage, item, content[key], f"{name}: [{section}] {key}", folder)
    return replace(stage, **found)


if __name__ == "__main__":
    import sys

    from device.errors import StethopiError

    if len(sys.argv) > 2:
        sys.exit("usage: python -I -m device.settings.settings [FILE]")
    try:
        if len(sys.argv) == 1:
            print(Settings.reference(), end="")
        else:
            Settings.load(Path(sys.argv[1]))
            print(f"{sys.argv[1]}: fine")
    except StethopiError as problem:
        print(f"stethopi: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)
