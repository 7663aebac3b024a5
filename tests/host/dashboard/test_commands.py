"""What a page may ask of a stethoscope, and who may not."""

from __future__ import annotations

import json
import time

import pytest
from starlette.testclient import TestClient

from device.contract.codec import encode
from device.contract.control import Command, Listen
from device.contract.topics import Address
from tests.wire_schemas import validator

LISTEN = "/api/devices/village/stetho-1/listen"
SUBJECT = "/api/devices/village/stetho-1/subject"
OWN = {"origin": "http://127.0.0.1:8080"}


def test_a_press_to_listen_becomes_a_command(client: TestClient, sent: list[tuple[Address, Command]]) -> None:
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
def test_a_command_that_is_wrong_or_foreign_is_refused(
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
