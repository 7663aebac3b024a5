"""The demo's virtual stethoscope: its settings, what it hears, and what happens when it fails."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from device.delivery.link import Broker
from device.errors import StethopiError
from device.settings.settings import Settings
from device.settings.specs import check_spec, heart_settings
from host.cli import main
from host.commands.demo import Stethoscope, settings_text, sources
from tests.brokers import free_port

BROKER = Broker("127.0.0.1", 18830)


def test_the_settings_are_the_daemons_own(tmp_path: Path) -> None:
    odd = tmp_path / 'a "quoted" \\ folder, é'
    text = settings_text(f"file:{odd / 'x.wav'}", BROKER, odd, odd / "bundle")
    settings = Settings.from_toml(text)
    assert settings.source.spec == f"file:{odd / 'x.wav'}" and settings.source.pace == "real"
    assert settings.device.state_dir == odd
    assert (settings.mqtt.host, settings.mqtt.port) == ("127.0.0.1", 18830)
    assert settings.exam.autostart and settings.exam.exams == 1 and settings.exam.sites == ("MV",)
    assert settings.bundle.path == odd / "bundle"
    assert Settings.from_toml(settings_text("synthetic", BROKER, odd)).bundle.path is None


def test_a_recording_is_heard_again_and_again(tmp_path: Path) -> None:
    heard = list(itertools.islice(sources(tmp_path / "x.wav"), 3))
    assert heard == [f"file:{tmp_path / 'x.wav'}"] * 3


def test_without_one_hearts_with_and_without_a_murmur_take_turns() -> None:
    hearts = []
    for spec in itertools.islice(sources(None), 6):
        kind, rest = check_spec(spec)
        assert kind == "synthetic"
        hearts.append(heart_settings(rest))
    assert [heart.murmur for heart in hearts] == ["systolic", "none"] * 3
    assert len({heart.seed for heart in hearts}) == 6


def test_a_recording_that_cannot_be_used_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host.commands.serve.start_logging", lambda: None)
    text = tmp_path / "text.wav"
    text.write_text("this is no sound")
    for path, says in ((tmp_path / "none.wav", "no such file"), (text, "neither a WAV nor a FLAC")):
        assert main(["demo", "--no-browser", "--recording", str(path)]) == 2
        told = capsys.readouterr()
        assert says in told.err and told.err.count("\n") == 1 and not told.out

    assert main(["demo", "--no-browser", "--bundle", str(tmp_path)]) == 2
    assert "bundle.json: not there" in capsys.readouterr().err


@pytest.mark.process
def test_a_daemon_that_fails_again_and_again_ends_the_demo_with_its_words(tmp_path: Path) -> None:
    hears = itertools.repeat("file:/no/such/recording.wav")
    stethoscope = Stethoscope(hears, Broker("127.0.0.1", free_port()), tmp_path / "s", pause_s=0.0)
    try:
        with pytest.raises(StethopiError, match=r"does not run \(exit 2\): .*/no/such/recording\.wav"):
            while True:
                stethoscope.tend()
    finally:
        stethoscope.stop()
    assert stethoscope.pid is None and stethoscope.exams == 0
