"""The dashboard: pages, JSON, both sounds, live notices; and what must not get through."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from device.contract.codec import encode
from device.contract.control import Answer, Command, Listen, Listening, State
from device.contract.exam import Finding
from device.contract.live import LiveExam, LiveQuality, LiveWave
from device.contract.topics import Address, Topic
from device.contract.vocabulary import Moment
from device.denoise.stream import Denoiser
from device.errors import StethopiError
from device.inference import bundle as bundles
from device.screening import quality
from host.dashboard.app import create_app
from host.dashboard.live import Hub, page_message
from host.playback.sounds import Sounds, spectrogram
from host.store.presence import Presence
from host.store.store import Store
from tests.host.arrivals import beats, flac, put
from tests.wire_schemas import validator

LIVE = "ws://127.0.0.1:8080/live"
UNKNOWN = "00000000-0000-4000-8000-00000000dead"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as made:
        yield made


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def sent() -> list[tuple[Address, Command]]:
    return []


@pytest.fixture
def client(store: Store, hub: Hub, sent: list[tuple[Address, Command]]) -> Iterator[TestClient]:
    def send(address: Address, command: Command) -> bool:
        sent.append((address, command))
        return address.device != "unreachable"

    app = create_app(store, hub, hosts=["clinic.example"], send=send)
    with TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False) as made:
        yield made


@pytest.fixture(scope="module")
def released() -> bundles.Bundle:
    return bundles.load()


# ---- pages and what surrounds them


def test_every_answer_carries_the_safe_headers(client: TestClient, store: Store) -> None:
    exam = put(store, {"AV": flac(beats())})
    paths = [
        "/",
        f"/exams/{exam.id}",
        "/licences",
        "/api/exams",
        "/api/devices",
        f"/api/exams/{exam.id}",
        f"/sounds/{exam.id}/AV.flac",
        f"/sounds/{exam.id}/AV/raw.wav",
        "/static/css/base.css",
        "/static/js/home.js",
        "/static/fonts/inter-latin.woff2",
        "/no/such/page",
        f"/exams/{UNKNOWN}",
        f"/api/exams/{UNKNOWN}",
    ]
    for path in paths:
        answer = client.get(path)
        assert answer.status_code == (404 if "such" in path or UNKNOWN in path else 200), path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy, path
        assert "unsafe" not in policy and "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "cache-control" in answer.headers


def test_pages_hold_no_inline_script_and_name_nothing_foreign(client: TestClient, store: Store) -> None:
    exam = put(store, {"AV": flac(beats())})
    for path in ("/", f"/exams/{exam.id}", "/licences", "/no/such/page"):
        text = client.get(path).text
        for tag in text.split("<script")[1:]:
            assert ' src="/static/' in tag.split(">", 1)[0] and tag.split(">", 1)[1].startswith("</script>")
        assert "style=" not in text and "onclick" not in text
        assert "//" not in text.replace("http://scripts.sil.org", "").replace(
            "https://github.com", ""
        ).replace("https://openfontlicense.org", "")
        assert "It screens; it does not diagnose. Not a medical device." in text


def test_a_foreign_host_name_gets_nothing(client: TestClient) -> None:
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    assert client.get("/api/exams", headers={"host": "127.0.0.1.evil.example:8080"}).status_code == 421
    assert client.get("/", headers={"host": ""}).status_code == 421
    for host in ("localhost:8080", "127.0.0.1", "[::1]:8080", "192.168.1.7:8080", "clinic.example"):
        assert client.get("/", headers={"host": host}).status_code == 200, host


def test_a_foreign_page_cannot_listen(client: TestClient) -> None:
    with client.websocket_connect(LIVE, headers={"origin": "http://127.0.0.1:8080"}) as socket:
        assert socket.receive_json()["type"] == "hello"
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"host": "evil.example"}):
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(LIVE, headers=headers):
            pass


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2f..%2fstore.py",
        "/sounds/{id}/..%2f..%2fexams.sqlite",
        "/sounds/{id}/..%2fAV.flac",
        "/sounds/{id}/AV/..%2fraw.wav",
        "/sounds/{id}/AV/secret.wav",
        "/sounds/{id}/TV.flac",
        "/sounds/..%2f..%2f/AV.flac",
        "/api/exams/{id}/sites/AV/dirty",
        "/api/exams/{id}/sites/..%2fAV/raw",
        "/api/exams/not-a-uuid",
        "/exams.sqlite",
    ],
)
def test_paths_lead_nowhere_else(client: TestClient, store: Store, path: str) -> None:
    exam = put(store, {"AV": flac(beats())})
    answer = client.get(path.replace("{id}", exam.id))
    assert answer.status_code == 404
    assert b"SQLite" not in answer.content and b"import " not in answer.content


def test_nothing_can_be_changed(client: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, "/api/exams").status_code == 405


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


LISTEN = "/api/devices/village/stetho-1/listen"
SUBJECT = "/api/devices/village/stetho-1/subject"
OWN = {"origin": "http://127.0.0.1:8080"}


def test_a_wish_to_listen_becomes_a_command(client: TestClient, sent: list[tuple[Address, Command]]) -> None:
    answer = client.post(LISTEN, json={"monitor": "raw", "strength": 0.5, "preset": "bell"}, headers=OWN)
    assert answer.status_code == 202
    ((address, command),) = sent
    assert address == Address("village", "stetho-1") and command.name == "listen"
    assert command.listen == Listen("raw", 0.5, "bell", None)
    assert answer.json()["command"] == command.id
    assert 0 < command.expires_s - time.time() <= 10
    validator("command").validate(json.loads(encode(command)))


def test_whose_the_next_exam_is_becomes_a_command(
    client: TestClient, sent: list[tuple[Address, Command]]
) -> None:
    assert client.post(SUBJECT, json={"code": "V3-0042-K"}, headers=OWN).status_code == 202
    ((address, command),) = sent
    assert address == Address("village", "stetho-1")
    assert (command.name, command.args, command.listen) == ("subject", {"code": "V3-0042-K"}, None)
    validator("command").validate(json.loads(encode(command)))


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "says"),
    [
        (LISTEN, b'{"strength": 2}', {}, 400, "strength: 2 lies outside 0.0 to 1.0"),
        (LISTEN, b'{"preset": "trumpet"}', {}, 400, "none of none, bell"),
        (LISTEN, b"not json", {}, 400, "not JSON"),
        (SUBJECT, b'{"code": 17}', {}, 400, "code: "),
        (SUBJECT, b'{"name": "Ada"}', {}, 400, "code: is missing"),
        (SUBJECT, b'{"code": "P-1"}', {"origin": "http://evil.example"}, 403, "own pages"),
        (LISTEN, b" " * 3000, {}, 413, "too long"),
        ("/api/devices/.village/stetho-1/listen", b"{}", {}, 400, "no dot first"),
        ("/api/devices/village/a%23b/listen", b"{}", {}, 400, "use up to 64 letters"),
        ("/api/devices/village/unreachable/listen", b"{}", {}, 503, "the broker is away"),
        (LISTEN, b"{}", {"origin": "http://evil.example"}, 403, "own pages"),
        (LISTEN, b"{}", {"origin": "null"}, 403, "own pages"),
        (LISTEN, b"{}", {"content-type": "text/plain"}, 403, "own pages"),
        (LISTEN, b"{}", {"host": "evil.example"}, 421, ""),
    ],
)
def test_a_wish_that_is_wrong_or_foreign_is_refused(
    client: TestClient,
    sent: list[tuple[Address, Command]],
    path: str,
    body: bytes,
    headers: dict[str, str],
    status: int,
    says: str,
) -> None:
    headers = {"content-type": "application/json", **OWN, **headers}
    answer = client.post(path, content=body, headers=headers)
    assert answer.status_code == status and (not says or says in answer.json()["error"])
    assert not sent or status == 503


def test_an_answer_reaches_the_page(client: TestClient, hub: Hub) -> None:
    listening = Listening("raw", 0.5, "bell", 0.0, "device")
    answer = Answer("c-1", "listen", True, "raw, bell", listening=listening)
    with client.websocket_connect(LIVE) as socket:
        assert socket.receive_json()["type"] == "hello"
        hub.tell({"type": "answer", "device": "village/stetho-1", "message": answer})
        told = socket.receive_json()
    assert (told["type"], told["device"], told["command"], told["ok"]) == (
        "answer",
        "village/stetho-1",
        "c-1",
        True,
    )
    assert told["listening"]["preset"] == "bell" and told["says"] == "raw, bell"


def test_what_a_device_writes_is_data_never_markup(client: TestClient, store: Store) -> None:
    evil = "<script>alert(1)</script>"
    verdict = Finding("unsure", None, None, (evil,))
    exam = put(store, {"AV": flac(beats())}, verdict=verdict, bundle=evil, source=evil)
    page = client.get(f"/exams/{exam.id}")
    assert evil not in page.text and page.headers["content-type"].startswith("text/html")
    answer = client.get(f"/api/exams/{exam.id}")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["reasons"] == [evil]


def test_scripts_build_elements_and_never_parse_markup() -> None:
    folder = Path(__file__).resolve().parents[3] / "host" / "dashboard" / "static" / "js"
    for path in folder.glob("*.js"):
        text = path.read_text("utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "https://"):
            assert word not in text, f"{path.name}: {word}"


# ---- JSON


def test_an_exam_as_json_keeps_unknown_apart_from_zero(client: TestClient, store: Store) -> None:
    exam = put(
        store,
        {"AV": flac(beats()), "MV": flac(beats(seed=2))},
        verdict=Finding("unsure", None, None, ("too noisy",)),
        heart_rate_bpm=None,
        started=Moment("b" * 32, 5.0, 100.0, "none"),
    )
    found = client.get(f"/api/exams/{exam.id}").json()
    assert (found["label"], found["probability"], found["quality"]) == ("unsure", None, None)
    assert found["heart_rate_bpm"] is None and found["reasons"] == ["too noisy"] and found["murmur"] is None
    assert found["started"] is None and "did not know the time" in found["clock_words"]
    assert found["status"] == "complete" and found["received"].endswith("+00:00")
    assert [site["site"] for site in found["sites"]] == ["AV", "MV"]
    assert found["sites"][0]["windows"][0] == {
        "start": 0,
        "probability": 0.25,
        "quality": 0.9,
        "good": True,
        "reasons": [],
    }
    assert found["delay"]["total_ms"] == 36.0
    assert found["latency"][1] == {
        "stage": "classify",
        "budget_ms": 250.0,
        "count": 0,
        "p50_ms": None,
        "p99_ms": None,
        "missed": 0,
    }


def test_a_time_that_no_calendar_holds_is_unknown(client: TestClient, store: Store) -> None:
    exam = put(store, {"AV": flac(beats())}, started=Moment("b" * 32, 5.0, -1e11, "set"))
    assert client.get(f"/api/exams/{exam.id}").json()["started"] is None


def test_a_partial_exam_says_so(client: TestClient, store: Store) -> None:
    exam = put(store, {"AV": b"x" * 5000}, leave_out=2)
    found = client.get("/api/exams").json()["exams"][0]
    assert found["status"] == "partial"
    assert (found["sites"][0]["have"], found["sites"][0]["chunks"]) == (3, 5)
    for path in ("/api/exams/{}/sites/AV/raw", "/sounds/{}/AV/raw.wav", "/sounds/{}/AV.flac"):
        answer = client.get(path.format(exam.id))
        assert answer.status_code == 404 and "not arrived" in answer.json()["error"]


def test_the_list_is_paged(client: TestClient, store: Store) -> None:
    made = [put(store, {"AV": bytes([n])}).id for n in range(5)]
    first = client.get("/api/exams?limit=3").json()
    assert first["total"] == 5 and first["more"]
    cursor = first["exams"][-1]["cursor"]
    rest = client.get("/api/exams", params={"limit": 3, "before": cursor}).json()
    assert not rest["more"]
    assert [e["id"] for e in first["exams"] + rest["exams"]] == made[::-1]
    assert client.get("/api/exams?before=rubbish").status_code == 400


def test_devices_as_json(client: TestClient, store: Store) -> None:
    where = Topic("village", "stetho-1", "state")
    Presence(store).put_state(where, State(True, "0.1.0", "7", "running", "boot", "synthetic"))
    (device,) = client.get("/api/devices").json()["devices"]
    assert (device["id"], device["online"], device["bundle"]) == ("village/stetho-1", True, "7")
    Presence(store).forget_online()
    assert client.get("/api/devices").json()["devices"][0]["online"] is None


def test_the_live_page_is_handed_the_limits_of_each_devices_bundle(
    client: TestClient, store: Store, released: bundles.Bundle
) -> None:
    """Nothing is typed in the scripts: what colours a window is the bundle's, what counts is the judge's."""
    assert f'data-good-quality="{quality.GOOD}"' in client.get("/").text
    meta = released.model("classifier").meta
    wanted = {"threshold": meta["threshold"], "undecided": meta["undecided"]}
    for name, version in (
        ("stetho-1", released.version),
        ("stetho-2", "0.0.1-elsewhere"),
        ("stetho-3", None),
    ):
        where = Topic("village", name, "state")
        Presence(store).put_state(where, State(True, "0.1.0", version, "running", "boot", "synthetic"))
    answer = client.get("/api/devices").json()
    for each in (answer, *answer["devices"]):
        assert {name: each[name] for name in wanted} == wanted
    assert len(answer["devices"]) == 3


def test_limits_come_from_the_devices_own_bundle_where_it_is_here(
    store: Store, released: bundles.Bundle, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(released.folder, tmp_path / "own"))
    meta = json.loads((own / "bundle.json").read_text())
    meta["version"] = "0.2.9-own"
    meta["models"]["classifier"] |= {"threshold": 0.7, "undecided": [0.6, 0.8]}
    (own / "bundle.json").write_text(json.dumps(meta))
    for name, version in (("stetho-1", "0.2.9-own"), ("stetho-2", released.version)):
        where = Topic("village", name, "state")
        Presence(store).put_state(where, State(True, "0.1.0", version, "running", "boot", "synthetic"))
    with TestClient(create_app(store, Hub(), bundle=own), base_url="http://127.0.0.1:8080") as client:
        found = {each["device"]: each["threshold"] for each in client.get("/api/devices").json()["devices"]}
    assert found == {"stetho-1": 0.7, "stetho-2": released.model("classifier").meta["threshold"]}


def test_what_another_version_wrote_is_no_crash(client: TestClient, store: Store) -> None:
    where = Topic("village", "stetho-1", "health")
    Presence(store).put_health(where, b'{"schema": 1, "uptime": "long"}')
    (device,) = client.get("/api/devices").json()["devices"]
    assert "backlog" not in device and device["last_seen"]
    exam = put(store, {"AV": flac(beats())})
    with sqlite3.connect(store.folder / "exams.sqlite") as database:
        database.execute("UPDATE exams SET result = X'7B7D'")
    assert client.get("/api/exams").json()["exams"][0]["id"] == exam.id
    answer = client.get(f"/api/exams/{exam.id}")
    assert answer.status_code == 503 and "another version" in answer.json()["error"]


# ---- sounds


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


def test_the_clean_sound_is_computed_once(
    store: Store, released: bundles.Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    exam = put(store, {"MV": flac(beats())}, bundle=released.version)
    first = Sounds(store).get(exam.id, "MV", "clean", exam.bundle)
    assert first is not None

    def never(*_: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("host.playback.sounds._denoise", never)
    again = Sounds(store).get(exam.id, "MV", "clean", exam.bundle)
    assert again is not None and np.array_equal(again.samples, first.samples)
    (cached,) = store.folder.glob("cache/*/*.npy")
    cached.write_bytes(cached.read_bytes()[:1000])
    with pytest.raises(AssertionError, match="computed again"):
        Sounds(store).get(exam.id, "MV", "clean", exam.bundle)


def test_a_cache_that_is_full_lets_its_older_half_go(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    exam = put(store, {"AV": flac(beats())})
    monkeypatch.setattr("host.playback.sounds.MOST_CACHE_BYTES", 3000)
    older = store.folder / "cache" / "an-older-exam"
    older.mkdir(parents=True)
    for k in range(4):
        (older / f"{k}.npy").write_bytes(bytes(1000))
        os.utime(older / f"{k}.npy", (k, k))
    sounds = Sounds(store)
    assert sorted(path.name for path in older.iterdir()) == ["3.npy"]
    made = sounds.wav(exam.id, "AV", "raw", exam.bundle)
    assert isinstance(made, Path) and made.is_file()
    assert not any(older.iterdir())


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


def test_silence_is_drawn_as_silence(store: Store) -> None:
    exam = put(store, {"MV": flac(np.zeros(8000, np.float32))})
    sound = Sounds(store).get(exam.id, "MV", "raw", "")
    assert sound is not None and sound.gain == 1.0
    assert not spectrogram(sound.samples, sound.reference).levels.any()


def test_a_tone_stands_at_its_place_in_the_spectrogram() -> None:
    t = np.arange(6000) / 2000
    tone = np.where(t >= 1.5, np.sin(2 * np.pi * 200 * t), 0.0).astype(np.float32)
    made = spectrogram(tone, 4096.0)
    frames, bins = made.levels.shape
    hz = np.arange(bins) * made.top_hz / (bins - 1)
    seconds = np.arange(frames) * made.hop / 2000
    loud = made.levels[seconds > 1.7].mean(0)
    assert abs(hz[loud.argmax()] - 200) < 4
    assert not made.levels[seconds < 1.4].any()


# ---- live


def live(message: Any, device: str = "village/stetho-1") -> dict[str, Any]:
    return {"type": "live", "device": device, "kind": "", "message": message}


def live_exam(exam: str, state: str = "recording", verdict: Finding | None = None) -> LiveExam:
    return LiveExam(exam, state, "MV", 0, 1, 3.0, 1, 8, verdict)


def test_live_messages_speak_in_seconds() -> None:
    made = page_message(live(LiveWave(5000, 8, (1, 2), (3, 4), UNKNOWN)))
    assert (made["type"], made["t"], made["rate"]) == ("wave", 2.5, 250.0)
    assert (made["raw"], made["clean"], made["name"]) == ((1, 2), (3, 4), "stetho-1")
    json.dumps(made)
    over = page_message(live(live_exam(UNKNOWN, "finished", Finding("normal", 0.1, 0.9, ()))))
    assert (over["type"], over["state"], over["label"]) == ("exam", "finished", "normal")


def test_a_page_that_comes_late_sees_the_running_exam(client: TestClient, hub: Hub) -> None:
    hub.tell({"type": "broker", "connected": True})
    hub.tell(live(live_exam(UNKNOWN)))
    hub.tell(live(LiveWave(0, 8, (1,), (1,), UNKNOWN)))
    hub.tell(live(LiveQuality(0, 0.9, (), -20.0, 70.0, UNKNOWN)))
    with client.websocket_connect(LIVE) as socket:
        hello = socket.receive_json()
        assert hello["broker"] is True
        (shown,) = hello["live"]
        assert [each["type"] for each in shown["messages"]] == ["exam", "quality", "wave"]
        hub.tell({"type": "stored", "exam": UNKNOWN, "device": "village/stetho-1", "complete": True})
        assert socket.receive_json()["type"] == "stored"
    hub.tell(live(live_exam(UNKNOWN, "finished")))
    with client.websocket_connect(LIVE) as socket:
        assert socket.receive_json()["live"] == []


def test_a_device_that_goes_is_forgotten(client: TestClient, hub: Hub) -> None:
    hub.tell(live(live_exam(UNKNOWN)))
    hub.tell({"type": "device", "device": "village/stetho-1", "online": False})
    with client.websocket_connect(LIVE) as socket:
        assert socket.receive_json()["live"] == []


def test_a_slow_page_loses_waves_but_no_event(client: TestClient, hub: Hub) -> None:
    wave_message = live(LiveWave(0, 8, (1,) * 200, (1,) * 200, UNKNOWN))
    with client.websocket_connect(LIVE) as socket:
        socket.receive_json()
        portal = client.portal
        assert portal is not None

        async def burst() -> None:
            # from inside the loop, so that the page's own task cannot run between
            for _ in range(1000):
                hub._spread(json.dumps(page_message(wave_message)), True)
            hub._spread('{"type": "stored"}', False)

        portal.call(burst)
        kinds = []
        while not kinds or kinds[-1] != "stored":
            kinds.append(socket.receive_json()["type"])
        assert kinds.count("wave") < 1000
