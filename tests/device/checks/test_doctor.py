"""`stethopi-device doctor` on microphones: what the card was set to, what is wrong with its sound."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from device import durable, sources
from device.checks import doctor
from device.checks.doctor import BAD, GOOD, NOTE, Check
from device.errors import BadInput, StethopiError
from device.inference import bundle as bundles
from device.settings.settings import Settings
from device.settings.specs import HeartSettings
from device.sources import alsa
from device.sources.alsa import HwParams
from device.sources.synthetic import synthesise
from tests.device.fakes import FakeCard

RATE = 16000
S32 = HwParams(1, "S32_LE", 2, RATE)


def heart(bits: int = 24) -> np.ndarray:
    x = synthesise(HeartSettings(rate_hz=RATE, noise_db=25), 6).samples
    return np.stack([np.rint(x * 2.0 ** (bits - 1)) / 2.0 ** (bits - 1), np.zeros_like(x)], 1).astype(
        np.float32
    )


def found(monkeypatch: pytest.MonkeyPatch, card: FakeCard, **source: str) -> list[Check]:
    monkeypatch.setattr(sources, "open_source", lambda *_, **__: card)
    settings = Settings.parse({"source": {"spec": "arecord", **source}})
    return list(doctor._source(settings))


def test_a_healthy_card_is_told_with_what_it_was_set_to(monkeypatch: pytest.MonkeyPatch) -> None:
    card = FakeCard(heart(), name="snd_rpi_googlevoicehat_soundcard", setup=S32)
    (check,) = found(monkeypatch, card)
    assert check.state == GOOD
    assert check.says.startswith(
        "microphone snd_rpi_googlevoicehat_soundcard at 16000 Hz (S32_LE, 2 channels, 16000 Hz), peak 0."
    )


def test_what_portaudio_does_not_say_alsa_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAudio does not tell what the card was set to: it is read back from ALSA while it runs."""
    card = FakeCard(heart(16), name="snd_rpi_googlevoicehat_soundcard")
    monkeypatch.setattr(alsa, "capturing", lambda: [HwParams(1, "S16_LE", 2, RATE)])
    check, *_ = found(monkeypatch, card)
    assert check.state == BAD
    assert (
        check.says
        == "the card is set to S16_LE, 2 channels, 16000 Hz; INMP441 gives its sound in S32_LE alone"
    )
    assert "dtoverlay=googlevoicehat-soundcard" in check.remedy and "arecord:NAME" in check.remedy


@pytest.mark.parametrize(
    ("hardware", "lines"),
    [
        ("inmp441", "dtparam=i2s=on and dtoverlay=googlevoicehat-soundcard"),
        ("ics43434", "dtparam=i2s=on and dtoverlay=googlevoicehat-soundcard"),
        ("sph0645", "dtparam=i2s=on and dtoverlay=googlevoicehat-soundcard"),
        ("wm8960", "dtparam=i2c_arm=on and dtparam=i2s=on and dtoverlay=wm8960-soundcard"),
        ("usb", "plug it into another port"),
    ],
)
def test_a_dead_microphone_is_told_with_what_sets_it_up(
    monkeypatch: pytest.MonkeyPatch, hardware: str, lines: str
) -> None:
    (check,) = found(monkeypatch, FakeCard(np.zeros((RATE, 2), np.float32), setup=S32), hardware=hardware)
    assert check.state == BAD and check.says.startswith("all samples are equal (0)") and lines in check.remedy


def test_the_other_channel_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    card = FakeCard(heart()[:, ::-1], setup=S32)
    (check,) = found(monkeypatch, card, hardware="sph0645")
    assert check.says.startswith("the left channel is silent, the right one has sound")
    assert check.remedy.startswith('set [source] channel = "right"')
    card = FakeCard(heart()[:, ::-1], setup=S32, channel="right")
    (check,) = found(monkeypatch, card, hardware="sph0645", channel="right")
    assert check.state == GOOD


def test_samples_that_are_missing_are_found_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    bad, *rest = found(monkeypatch, FakeCard(heart(), setup=S32, late_s=0.002))
    assert bad.state == BAD and " s by the clock" in bad.says and "another USB port" in bad.remedy
    assert [check.state for check in rest] == [GOOD]


def test_a_card_that_is_not_there_is_told_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise StethopiError("no microphone found; plug one in and look with: arecord -l")

    monkeypatch.setattr(sources, "open_source", absent)
    monkeypatch.setattr(alsa, "cards", lambda: [alsa.Card(0, "vc4hdmi", "vc4-hdmi", "vc4-hdmi")])
    bad, note = doctor._source(Settings.parse({"source": {"spec": "microphone", "hardware": "inmp441"}}))
    assert bad == Check("source", BAD, "no microphone found", "plug one in and look with: arecord -l")
    assert note.state == NOTE and note.says == 'the machine has "vc4-hdmi"; [source] hardware is INMP441'
    assert note.remedy.startswith(
        "write dtparam=i2s=on and dtoverlay=googlevoicehat-soundcard into /boot/firmware/config.txt"
    )
    _, note = doctor._source(Settings())
    assert "set [source] hardware to what is wired (inmp441, ics43434, sph0645, wm8960, usb)" in note.remedy


def test_an_error_becomes_what_and_remedy(tmp_path: Path) -> None:
    for text, says, remedy in (
        ("a: is broken (b; c); mend it", "a: is broken (b; c)", "mend it"),
        ("d.toml: [x] y: no such key. Did you mean z?", "d.toml: [x] y: no such key", "Did you mean z?"),
    ):
        assert doctor._bad("x", BadInput(text)) == Check("x", BAD, says, remedy)


# ---- the models


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A copy of the released bundle, to be changed."""
    return Path(shutil.copytree(bundles.find(), tmp_path / "bundle"))


def seal(folder: Path, name: str) -> None:
    """Let bundle.json say the hash that the file has now, as if it had been released so."""
    meta = json.loads((folder / "bundle.json").read_text())
    for model in meta["models"].values():
        for key, digest in (("file", "sha256"), ("arrays", "arrays_sha256")):
            if model.get(key) == name:
                model[digest] = durable.sha256_of(folder / name)
    if meta["vectors"] == name:
        meta["vectors_sha256"] = durable.sha256_of(folder / name)
    (folder / "bundle.json").write_text(json.dumps(meta))


def test_every_model_of_the_bundle_is_proved() -> None:
    checks = {check.name: check.state for check in doctor.model_checks()}
    assert checks == dict.fromkeys(("interpreter", "bundle", "denoiser", "ecg model", "classifier"), GOOD)


def test_an_ecg_model_that_computes_wrongly_is_told(other: Path) -> None:
    """Coefficients in another order: the form is right, what comes out is not."""
    file = other / "ecg.npz"
    with np.load(file) as kept:
        arrays = {name: kept[name] for name in kept.files}
    np.savez(file, **{name: np.roll(values, 1, axis=1) for name, values in arrays.items()})
    seal(other, "ecg.npz")
    bad = [check for check in doctor.model_checks(other) if check.state == BAD]
    assert [check.name for check in bad] == ["ecg model"]
    assert "stored vector comes out" in bad[0].says and "STETHOPI_RUNTIME" in bad[0].remedy


def test_a_bundle_without_an_ecg_model_is_no_fault(other: Path) -> None:
    meta = json.loads((other / "bundle.json").read_text())
    del meta["models"]["ecg"]
    (other / "bundle.json").write_text(json.dumps(meta))
    checks = list(doctor.model_checks(other))
    assert "ecg model" not in {check.name for check in checks}
    assert all(check.state == GOOD for check in checks)
