"""`stethopi doctor`: finds what is missing and says what to do about it."""

from __future__ import annotations

import json
import shutil
import socket
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from device.checks.doctor import BAD, GOOD, NOTE, Check, show
from device.inference import bundle as bundles
from host.cli import main
from host.commands.doctor import checks
from host.ingest.embedded_broker import EmbeddedBroker
from tests.brokers import free_port


def found(tmp_path: Path, **how: Any) -> dict[str, Check]:
    return {check.name: check for check in checks(tmp_path / "store", **how)}


def test_here_everything_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--store", str(tmp_path / "store")]) == 0
    told = capsys.readouterr().out
    assert "everything that is needed is there" in told and "BAD" not in told
    assert not (tmp_path / "store").exists(), "looking changes nothing"


def test_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--store", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert {"name", "state", "says", "remedy"} == set(told["checks"][0])


def test_a_missing_package_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = metadata.version

    def version(name: str) -> str:
        if name == "amqtt":
            raise metadata.PackageNotFoundError(name)
        return honest(name)

    monkeypatch.setattr(metadata, "version", version)
    check = found(tmp_path)["amqtt"]
    assert check.state == BAD and "the embedded broker" in check.says
    assert check.remedy == "pip install 'stethopi[host]'"
    assert show(check).startswith("BAD   amqtt")
    assert main(["doctor", "--store", str(tmp_path)]) == 1


def test_a_taken_port_is_only_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr("host.commands.serve.DEFAULT_HTTP_PORT", taken.getsockname()[1])
        check = found(tmp_path)["port of the dashboard"]
    assert check.state == NOTE and "--http" in check.remedy
    assert main(["doctor", "--store", str(tmp_path)]) == 0


def test_a_spoilt_bundle_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundles.find(), folder)
    model = folder / "denoiser.tflite"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(bytes(data))
    check = next(c for c in checks(tmp_path, bundle=folder) if c.state == BAD)
    assert "denoiser.tflite" in check.says and check.remedy


def test_a_machine_that_computes_wrongly_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(tmp_path)["denoiser"].state == GOOD
    monkeypatch.setattr("device.denoise.stream.vector_difference_db", lambda bundle, name="denoiser": -5.0)
    check = found(tmp_path)["denoiser"]
    assert check.state == BAD and "computes wrongly" in check.remedy


def test_a_store_that_cannot_be_is_found(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    check = found(tmp_path)["store"]
    assert check.state == BAD and "--store" in check.remedy


def test_a_broker_is_asked(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        check = found(tmp_path, broker=broker.url)["broker"]
        assert check.state == GOOD and "MQTT 3.1.1" in check.says
    nobody = found(tmp_path, broker=f"mqtt://127.0.0.1:{free_port()}")["broker"]
    assert nobody.state == BAD and "refused" in nobody.says and nobody.remedy
