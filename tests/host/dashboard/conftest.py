"""A dashboard with an empty store, and what it was told to send."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from device.contract.control import Command
from device.contract.topics import Address
from device.inference import bundle as bundles
from host.dashboard.app import create_app
from host.dashboard.live import Hub
from host.store.store import Store


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
