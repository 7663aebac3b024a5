"""`stethopi serve` in this process: ports, addresses, and that everything ends."""

from __future__ import annotations

import json
import socket
import urllib.request
from pathlib import Path

import pytest

from device.errors import BadInput
from host.cli import build_parser, main
from host.commands.serve import Host, default_store, is_loopback, parse_listen
from host.ingest.embedded_broker import EmbeddedBroker, port_is_free
from tests.brokers import free_port


def get(url: str) -> dict:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


def test_broker_store_and_dashboard_start_and_end_together(tmp_path: Path) -> None:
    host = Host(tmp_path / "store", embedded=EmbeddedBroker(), http_port=0)
    with host:
        assert host.ingest is not None and host.ingest.connected.wait(20)
        assert get(f"{host.url}/api/exams") == {"exams": [], "more": False, "total": 0}
        ports = host.http_port, host.broker_address.port
        with pytest.raises(BadInput, match="another stethopi serve"):
            Host(tmp_path / "store", embedded=EmbeddedBroker(), http_port=0).start()
    host.stop()
    assert all(port_is_free(port) for port in ports)
    with Host(tmp_path / "store", embedded=EmbeddedBroker(), http_port=ports[0], exact_http=True) as again:
        assert again.http_port == ports[0]


def test_a_taken_port_is_avoided_or_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Host(tmp_path / "store", embedded=EmbeddedBroker(), http_port=port) as host:
            assert host.http_port != port and str(host.http_port) in host.url
        with pytest.raises(
            BadInput, match=rf"--http 127\.0\.0\.1:{port}: cannot listen there .*give another"
        ):
            Host(tmp_path / "store", embedded=EmbeddedBroker(), http_port=port, exact_http=True).start()


def test_a_failed_start_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    broker = EmbeddedBroker(free_port(), exact=True)
    host = Host(tmp_path / "file", embedded=broker, http_port=free_port(), exact_http=True)
    with pytest.raises(BadInput, match=r"cannot be the store \(it is a file\); give another"):
        host.start()
    assert port_is_free(host.http_port) and port_is_free(broker.port)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--http", "nonsense"], "--http nonsense: not HOST:PORT"),
        (["--http", "127.0.0.1:99999"], "not HOST:PORT"),
        (["--http", "192.0.2.1:8080"], "(Cannot assign requested address); give an address of this machine"),
        (["--broker", "http://b"], "not an address of a broker"),
        (["--broker", "mqtt://u:p@b"], "a password does not belong in the address"),
        (["--embedded-broker", "--password-file", "x"], "the embedded broker asks for none"),
        (["--embedded-broker", "--http", "127.0.0.1:0", "--store", "/proc/no/store"], "cannot be the store"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host.commands.serve.start_logging", lambda: None)
    assert main(["serve", *arguments]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("stethopi: ") and says in told and "\n" not in told


def test_broker_and_embedded_broker_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["serve", "--broker", "b", "--embedded-broker"])
    assert ended.value.code == 2


def test_where_things_listen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert parse_listen("8080", "--http") == ("127.0.0.1", 8080)
    assert parse_listen("0.0.0.0:1", "--http") == ("0.0.0.0", 1)
    assert parse_listen("[::1]:80", "--http") == ("::1", 80)
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("pi-host")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_store() == tmp_path / "stethopi" / "store"
