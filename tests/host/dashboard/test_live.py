"""Notices to open pages: what they say, what a late page gets, what a slow one loses."""

from __future__ import annotations

import json
from typing import Any

from starlette.testclient import TestClient

from device.contract.control import Answer, Listening
from device.contract.exam import Finding
from device.contract.live import LiveExam, LiveQuality, LiveWave
from host.dashboard.live import Hub, page_message

LIVE = "ws://127.0.0.1:8080/live"
EXAM = "00000000-0000-4000-8000-00000000dead"


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


def live(message: Any, device: str = "village/stetho-1") -> dict[str, Any]:
    return {"type": "live", "device": device, "kind": "", "message": message}


def live_exam(exam: str, state: str = "recording", verdict: Finding | None = None) -> LiveExam:
    return LiveExam(exam, state, "MV", 0, 1, 3.0, 1, 8, verdict)


def test_live_messages_speak_in_seconds() -> None:
    made = page_message(live(LiveWave(5000, 8, (1, 2), (3, 4), EXAM)))
    assert (made["type"], made["t"], made["rate"]) == ("wave", 2.5, 250.0)
    assert (made["raw"], made["clean"], made["name"]) == ((1, 2), (3, 4), "stetho-1")
    json.dumps(made)
    over = page_message(live(live_exam(EXAM, "finished", Finding("normal", 0.1, 0.9, ()))))
    assert (over["type"], over["state"], over["label"]) == ("exam", "finished", "normal")


def test_a_page_that_comes_late_sees_the_running_exam(client: TestClient, hub: Hub) -> None:
    hub.tell({"type": "broker", "connected": True})
    hub.tell(live(live_exam(EXAM)))
    hub.tell(live(LiveWave(0, 8, (1,), (1,), EXAM)))
    hub.tell(live(LiveQuality(0, 0.9, (), -20.0, 70.0, EXAM)))
    with client.websocket_connect(LIVE) as socket:
        hello = socket.receive_json()
        assert hello["broker"] is True
        (shown,) = hello["live"]
        assert [each["type"] for each in shown["messages"]] == ["exam", "quality", "wave"]
        hub.tell({"type": "stored", "exam": EXAM, "device": "village/stetho-1", "complete": True})
        assert socket.receive_json()["type"] == "stored"
    hub.tell(live(live_exam(EXAM, "finished")))
    with client.websocket_connect(LIVE) as socket:
        assert socket.receive_json()["live"] == []


def test_a_device_that_goes_is_forgotten(client: TestClient, hub: Hub) -> None:
    hub.tell(live(live_exam(EXAM)))
    hub.tell({"type": "device", "device": "village/stetho-1", "online": False})
    with client.websocket_connect(LIVE) as socket:
        assert socket.receive_json()["live"] == []


def test_a_slow_page_loses_waves_but_no_event(client: TestClient, hub: Hub) -> None:
    wave_message = live(LiveWave(0, 8, (1,) * 200, (1,) * 200, EXAM))
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
