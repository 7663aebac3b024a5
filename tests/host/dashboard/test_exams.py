"""JSON of devices and exams: unknown is null, lists are paged, other versions are no crash."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

from starlette.testclient import TestClient

from device.contract.control import State
from device.contract.exam import Finding
from device.contract.topics import Topic
from device.contract.vocabulary import Moment
from device.inference import bundle as bundles
from device.screening import quality
from host.dashboard.app import create_app
from host.dashboard.live import Hub
from host.store.presence import Presence
from host.store.store import Store
from tests.host.arrivals import beats, flac, put

UNKNOWN = "00000000-0000-4000-8000-00000000dead"


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
