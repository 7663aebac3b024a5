"""What every answer carries, and who gets none."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from host.store.store import Store
from tests.host.arrivals import beats, flac, put

LIVE = "ws://127.0.0.1:8080/live"
UNKNOWN = "00000000-0000-4000-8000-00000000dead"


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
