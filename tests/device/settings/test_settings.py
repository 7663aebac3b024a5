"""Settings: safe defaults, and messages that name key, place and remedy. The tests read the messages."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.contract.vocabulary import is_path_safe
from device.errors import BadInput
from device.settings.sections import ExamSettings
from device.settings.settings import Settings
from tests.device.draws import floats


def refused(text: str) -> str:
    with pytest.raises(BadInput) as caught:
        Settings.from_toml(text)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[mqtt]\nhots = "pi"', 'device.toml: [mqtt] hots: no such key. Did you mean "host"?'),
        ("[mqqt]\n", "device.toml: [mqqt]: no such section. Did you mean [mqtt]?"),
        (
            "[zzz]\n",
            "device.toml: [zzz]: no such section. "
            "Use [device], [source], [ecg], [denoise], [listen], [exam], [outbox], [mqtt], [panel] "
            "or [bundle].",
        ),
        (
            'host = "pi"',
            "device.toml: host: stands in no section. Put it under [device], [source], [ecg], [denoise], "
            "[listen], [exam], [outbox], [mqtt], [panel] or [bundle].",
        ),
        ("mqtt = 3", "device.toml: mqtt = 3: is a section. Write [mqtt] on a line of its own."),
        ("[denoise]\nport = 3", "device.toml: [denoise] port: no such key. It belongs to [mqtt]."),
        (
            "[denoise]\nzzz = 3",
            "device.toml: [denoise] zzz: no such key. Keys of [denoise]: strength, budget.",
        ),
        (
            '[mqtt]\npassword = "secret"',
            "device.toml: [mqtt] password: is not kept in this file. "
            "Write it into a file that only its owner can read, and name that as password_file.",
        ),
        (
            "[source]\nrate_hz = 22050",
            "device.toml: [source] rate_hz = 22050: not one of 8000, 16000, 44100, 48000, 96000. "
            "Set one your microphone has.",
        ),
        (
            '[source]\npace = "fsat"',
            'device.toml: [source] pace = "fsat": not one of "real", "fast". Did you mean "fast"?',
        ),
        (
            '[source]\nspec = "microfone:USB"',
            'device.toml: [source] spec = "microfone:USB": no such kind. Did you mean "microphone"?',
        ),
        ('[source]\nspec = "file:"', 'device.toml: [source] spec = "file:": names no file. Use file:PATH.'),
        (
            '[source]\nspec = "synthetic:murmer=systolic"',
            'device.toml: [source] spec = "synthetic:murmer=systolic": '
            'synthetic: murmer: no such key. Did you mean "murmur"?',
        ),
        ("[denoise]\nstrength = 1.5", "device.toml: [denoise] strength = 1.5: must be 0 to 1."),
        (
            '[denoise]\nstrength = "full"',
            'device.toml: [denoise] strength = "full": must be a number, 0 to 1.',
        ),
        ("[denoise]\nstrength = nan", "device.toml: [denoise] strength = nan: must be a number, 0 to 1."),
        ("[denoise]\nstrength = true", "device.toml: [denoise] strength = true: must be a number, 0 to 1."),
        ("[mqtt]\nport = 1883.0", "device.toml: [mqtt] port = 1883.0: must be a whole number, 1 to 65535."),
        ("[mqtt]\nport = 70000", "device.toml: [mqtt] port = 70000: must be 1 to 65535."),
        ("[mqtt]\ntls = 1", "device.toml: [mqtt] tls = 1: must be true or false."),
        ("[mqtt]\nhost = 1", "device.toml: [mqtt] host = 1: must be a text in quotes."),
        ("[mqtt]\nca_file = 1", "device.toml: [mqtt] ca_file = 1: must be a text in quotes."),
        (
            '[mqtt]\ncert_file = "c.pem"',
            "device.toml: [mqtt] key_file: is missing beside cert_file. Name both or none.",
        ),
        (
            '[mqtt]\npassword_file = "p"',
            "device.toml: [mqtt] username: is missing beside password_file. Name its owner.",
        ),
        (
            '[device]\nid = "Maria\'s"',
            'device.toml: [device] id = "Maria\'s": '
            "must be up to 64 letters, digits, . _ -, a letter or digit first.",
        ),
        ('[device]\nstate_dir = ""', 'device.toml: [device] state_dir = "": must name a folder.'),
        (
            '[exam]\nsites = ["AV", "mv"]',
            'device.toml: [exam] sites = ["AV", "mv"]: "mv" is no site. Did you mean "MV"?',
        ),
        (
            '[exam]\nsites = ["AV", "AV"]',
            'device.toml: [exam] sites = ["AV", "AV"]: names a site twice. Name each once.',
        ),
        (
            "[exam]\nsites = []",
            "device.toml: [exam] sites = []: must be a list with at least one of "
            '"AV", "PV", "TV", "MV", "other".',
        ),
        (
            '[exam]\nsites = "AV"',
            'device.toml: [exam] sites = "AV": must be a list with at least one of '
            '"AV", "PV", "TV", "MV", "other".',
        ),
        (
            "[exam]\nmin_s = 70",
            "device.toml: [exam] min_s = 70: more than max_s = 60. Lower one or raise the other.",
        ),
        (
            '[listen]\noutput = "speaker"',
            'device.toml: [listen] output = "speaker": no such kind. '
            "Use none, device, device:NAME (part of its name), or file:PATH (WAV).",
        ),
    ],
)
def test_a_mistake_is_told_with_key_place_and_remedy(text: str, message: str) -> None:
    assert refused(text) == message


def test_text_that_is_no_toml_names_the_line() -> None:
    message = refused("[mqtt]\nhost = pi")
    assert message.startswith("device.toml: is no TOML: ") and "line 2" in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "device.toml"
    with pytest.raises(
        BadInput, match=f"{path}: no such settings file; write one: stethopi-device settings > "
    ):
        Settings.load(path)
    with pytest.raises(BadInput, match="cannot be read"):
        Settings.load(tmp_path)


def test_the_defaults_are_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent, nothing is played, nothing is started by itself."""
    monkeypatch.delenv("STETHOPI_CONFIG", raising=False)
    settings = Settings.load()
    assert settings == Settings() == Settings.from_toml("")
    assert settings.mqtt.host == "" and settings.listen.output == "none" and not settings.exam.autostart
    assert settings.exam == ExamSettings(("AV", "PV", "TV", "MV"), 10.0, 60.0, 8, False)
    assert settings.bundle.path is None and settings.device.state_dir.is_absolute()
    assert is_path_safe(settings.device.id) and is_path_safe(settings.device.fleet)
    with pytest.raises(FrozenInstanceError):
        settings.mqtt.host = "x"  # type: ignore[misc]


def test_a_machine_with_any_name_gets_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, expected in (
        ("pi.local", "pi"),
        ("_Ward 3_", "Ward-3"),
        ("", "stethoscope"),
        ("ä" * 9, "stethoscope"),
    ):
        monkeypatch.setattr("socket.gethostname", lambda name=name: name)
        assert Settings().device.id == expected


def test_values_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "device.toml"
    path.write_text(
        """
        [device]
        id = "stetho-1"
        state_dir = "state"
        [source]
        spec = "file:heart.flac"
        rate_hz = 48000
        [denoise]
        strength = 1
        [listen]
        output = "file:~/out.wav"
        [exam]
        sites = ["MV", "other"]
        [mqtt]
        username = "stetho"
        password_file = "/etc/stethopi/password"
        [bundle]
        path = ""
        """
    )
    monkeypatch.setenv("HOME", "/home/nurse")
    monkeypatch.setenv("STETHOPI_CONFIG", str(path))
    for settings in (Settings.load(path), Settings.load()):
        assert settings.device.state_dir == tmp_path / "state"
        assert settings.source.spec == f"file:{tmp_path}/heart.flac" and settings.source.rate_hz == 48000
        assert settings.denoise.strength == 1.0 and isinstance(settings.denoise.strength, float)
        assert settings.listen.output == "file:/home/nurse/out.wav"
        assert settings.exam.sites == ("MV", "other")
        assert settings.mqtt.password_file == Path("/etc/stethopi/password")
        assert settings.bundle.path is None


def test_the_password_is_read_late_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("open sesame\n")
    text = '[mqtt]\nusername = "u"\npassword_file = "secret"'
    settings = Settings.from_toml(text, folder=tmp_path)
    assert settings.mqtt.password() == "open sesame"
    assert "sesame" not in repr(settings)
    (tmp_path / "secret").unlink()
    with pytest.raises(BadInput) as caught:
        settings.mqtt.password()
    assert str(caught.value) == (
        f"{tmp_path}/secret: the broker's password cannot be read (No such file or directory); "
        "write it there, or correct password_file in [mqtt]"
    )
    assert Settings().mqtt.password() is None


def test_the_command_line_changes_single_values() -> None:
    changed = Settings().change("exam", max_s=20, sites=["AV"], autostart=True)
    assert (changed.exam.max_s, changed.exam.sites, changed.exam.autostart) == (20.0, ("AV",), True)
    assert changed.mqtt == Settings().mqtt
    for values, message in (
        ({"max_s": 0}, "option: [exam] max_s = 0: must be 1 to 300."),
        ({"max_s": 5}, "option: [exam] min_s = 10: more than max_s = 5. Lower one or raise the other."),
        ({"mx_s": 5}, 'option: [exam] mx_s: no such key. Did you mean "max_s"?'),
    ):
        with pytest.raises(BadInput) as caught:
            Settings().change("exam", **values)
        assert str(caught.value) == message


def test_the_reference_holds_every_key_and_is_true() -> None:
    """What the reference comments out, taken as it stands, gives the defaults again."""
    text = Settings.reference()
    lines = [line for line in text.splitlines() if line and not line.startswith("# ")]
    assert lines == [f"[{section.name}]" for section in fields(Settings)]
    active = "\n".join(line.removeprefix("# ") if " = " in line else line for line in text.splitlines())
    active = active.replace('"HOSTNAME"', '"my-pi"')
    table = tomllib.loads(active)
    for section in fields(Settings):
        stage = section.default_factory()  # type: ignore[misc]
        assert list(table[section.name]) == [item.name for item in fields(stage)]
    assert Settings.from_toml(active) == Settings.from_toml('[device]\nid = "my-pi"')
    assert max(map(len, text.splitlines())) <= 110
    assert "# strength = 1.0" in text and "(0 to 1)" in text


def test_every_key_says_what_it_is() -> None:
    for section in fields(Settings):
        for item in fields(section.default_factory):  # type: ignore[arg-type,misc]
            assert len(item.metadata["key"].says) > 5, item.name


@given(
    st.dictionaries(
        st.sampled_from([f.name for f in fields(Settings)]),
        st.dictionaries(
            st.one_of(
                st.sampled_from(["host", "port", "sites", "spec", "output", "id", "min_s"]),
                st.text(max_size=5),
            ),
            st.one_of(
                st.none(),
                st.booleans(),
                st.integers(),
                floats(),
                st.text(max_size=9),
                st.lists(st.text(max_size=3)),
            ),
            max_size=3,
        ),
    )
)
def test_whatever_is_written_gives_settings_or_one_line(table: dict) -> None:
    try:
        Settings.parse(table)
    except BadInput as error:
        assert str(error).startswith("settings: ")


def test_the_program_checks_a_file_and_prints_the_reference(tmp_path: Path) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "device.settings.settings", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True)

    path = tmp_path / "device.toml"
    path.write_text(run().stdout)
    assert run(path).stdout == f"{path}: fine\n"
    path.write_text("[mqtt]\nhots = 1")
    bad = run(path)
    assert bad.returncode == 2
    assert bad.stderr == f'stethopi: {path}: [mqtt] hots: no such key. Did you mean "host"?\n'
