"""The sounds of an exam over HTTP: both kinds at one gain, any strength, errors in words."""

from __future__ import annotations

import io
import wave
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from device.denoise.stream import Denoiser
from device.errors import StethopiError
from device.inference import bundle as bundles
from host.store.store import Store
from tests.host.arrivals import beats, flac, put


def test_the_denoised_sound_can_be_heard_at_any_strength(client: TestClient, store: Store) -> None:
    exam = put(store, {"AV": flac(beats())})

    def heard(path: str) -> np.ndarray:
        answer = client.get(f"/sounds/{exam.id}/AV/{path}")
        assert answer.status_code == 200 and answer.headers["content-type"] == "audio/wav"
        with wave.open(io.BytesIO(answer.content)) as file:
            assert file.getframerate() == 8000
            return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)

    raw, clean = heard("raw.wav"), heard("clean.wav")
    assert np.array_equal(heard("clean.wav?strength=1"), clean) and np.abs(raw - clean).max() > 20
    assert np.abs(heard("clean.wav?strength=0") - raw).max() <= 1
    partly = client.get(f"/sounds/{exam.id}/AV/clean.wav?strength=0.3", headers={"range": "bytes=0-9"})
    assert partly.status_code == 206, "without ranges a browser cannot seek"
    assert np.abs(heard("clean.wav?strength=0.3") - (0.7 * raw + 0.3 * clean)).max() <= 2
    for wrong in ("2", "-0.1", "loud", "nan", "0.55"):
        assert client.get(f"/sounds/{exam.id}/AV/clean.wav?strength={wrong}").status_code == 400


def wav_of(data: bytes) -> tuple[int, np.ndarray]:
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767.0


def test_raw_and_clean_are_the_devices_sounds_at_one_gain(
    client: TestClient, store: Store, released: bundles.Bundle
) -> None:
    raw = beats()
    exam = put(store, {"MV": flac(raw)}, bundle=released.version)
    stored = soundfile.read(io.BytesIO(flac(raw)), dtype="float32")[0]
    stage = Denoiser(released.model("denoiser"))
    clean = np.concatenate([stage.process(stored), stage.flush()])
    base = f"/api/exams/{exam.id}/sites/MV"
    for kind, truth in (("raw", stored), ("clean", clean)):
        about = client.get(f"{base}/{kind}").json()
        assert about["samples"] == len(raw) and about["rate_hz"] == 2000 and about["exact"]
        gain = 10 ** (about["gain_db"] / 20)
        drawn = np.frombuffer(client.get(f"{base}/{kind}/wave").content, "<i2") / 32767.0
        np.testing.assert_allclose(drawn, np.clip(truth * gain, -1, 1), atol=2 / 32767)
        rate_hz, played = wav_of(client.get(f"/sounds/{exam.id}/MV/{kind}.wav").content)
        assert (rate_hz, len(played)) == (8000, 4 * len(raw))
        # every fourth sample is the instant of one working-rate sample; below 750 Hz nothing is lost
        error = played[::4][100:-100] - np.clip(truth * gain, -1, 1)[100:-100]
        assert np.sqrt(np.mean(error**2)) < 0.02
        shape = about["spectrogram"]
        levels = client.get(f"{base}/{kind}/spectrogram").content
        assert len(levels) == shape["frames"] * shape["bins"]
    assert client.get(f"{base}/raw").json()["bundle"] is None
    assert client.get(f"{base}/clean").json()["bundle"] == released.version


def test_the_flac_is_the_devices_file_byte_for_byte(client: TestClient, store: Store) -> None:
    data = flac(beats())
    exam = put(store, {"MV": data})
    answer = client.get(f"/sounds/{exam.id}/MV.flac")
    assert answer.content == data
    assert answer.headers["content-disposition"] == f'attachment; filename="{exam.id}-MV.flac"'


def test_a_player_may_jump(client: TestClient, store: Store) -> None:
    exam = put(store, {"MV": flac(beats())})
    whole = client.get(f"/sounds/{exam.id}/MV/raw.wav").content
    part = client.get(f"/sounds/{exam.id}/MV/raw.wav", headers={"range": "bytes=1000-1999"})
    assert part.status_code == 206 and part.content == whole[1000:2000]


def test_another_bundle_than_the_exams_is_said(
    client: TestClient, store: Store, released: bundles.Bundle
) -> None:
    exam = put(store, {"MV": flac(beats())}, bundle="../../0.0.0")
    about = client.get(f"/api/exams/{exam.id}/sites/MV/clean").json()
    assert about["exact"] is False
    assert (about["bundle"], about["bundle_wanted"]) == (released.version, "../../0.0.0")
    assert client.get(f"/api/exams/{exam.id}").json()["threshold"] is None, "another model's threshold"
    known = put(store, {"MV": flac(beats())}, bundle=released.version)
    threshold = released.model("classifier").meta["threshold"]
    assert client.get(f"/api/exams/{known.id}").json()["threshold"] == threshold


def test_a_sound_that_is_none_or_too_long_is_an_error_in_words(client: TestClient, store: Store) -> None:
    rubbish = put(store, {"MV": b"no FLAC at all" * 100})
    hours = put(store, {"MV": flac(np.zeros(2000 * 700, np.float32))})
    other = put(store, {"MV": flac(beats(), rate_hz=4000)})
    for exam, says in ((rubbish, "cannot be decoded"), (hours, "Download the FLAC"), (other, "4000 Hz")):
        for path in (f"/api/exams/{exam.id}/sites/MV/raw", f"/sounds/{exam.id}/MV/clean.wav"):
            answer = client.get(path)
            assert answer.status_code == 503 and says in answer.json()["error"]


def test_without_any_bundle_the_raw_sound_still_plays(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> Any:
        raise StethopiError("no model bundle under models; run: stethopi release")

    monkeypatch.setattr(bundles, "load", none)
    exam = put(store, {"MV": flac(beats())}, bundle="unheard-of")
    assert client.get(f"/sounds/{exam.id}/MV/raw.wav").status_code == 200
    answer = client.get(f"/api/exams/{exam.id}/sites/MV/clean")
    assert answer.status_code == 503 and "no model bundle" in answer.json()["error"]
