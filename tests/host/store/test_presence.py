"""What devices say of themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from device.contract.control import State
from device.contract.topics import Topic
from host.store.presence import Presence
from host.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as made:
        yield made


def test_devices_remember_their_state_and_health(store: Store) -> None:
    where = Topic("village", "stetho-1", "state")
    Presence(store).put_state(where, State(True, "0.1.0", "7", "running", "boot"))
    Presence(store).put_health(where, json.dumps({"x": 1}).encode())
    (row,) = store.devices()
    assert (row.online, row.software, row.bundle, row.health) == (True, "0.1.0", "7", '{"x": 1}')
    assert row.seen_s is not None
    Presence(store).put_state(where, State(False, "0.1.0", None, "connection lost", "boot"))
    (row,) = store.devices()
    assert (row.online, row.bundle, row.why) == (False, "7", "connection lost")
    Presence(store).put_state(where, State(True, "0.1.0", "7", "running", "boot"))
    Presence(store).forget_online()
    assert store.devices()[0].online is None


def test_a_last_will_is_no_sign_of_life(tmp_path: Path) -> None:
    """The broker speaks it for a device that is gone: when it was last seen stays what it was."""
    now = iter((100.0, 100.0, 200.0, 200.0, 300.0, 300.0))
    with Store(tmp_path / "store", now=lambda: next(now, 300.0)) as store:
        where = Topic("village", "stetho-1", "state")
        Presence(store).put_state(where, State(True, "0.1.0", "7", "running", "boot"))
        seen = store.devices()[0].seen_s
        Presence(store).put_state(where, State(False, "0.1.0", "7", "connection lost", "boot"))
        assert store.devices()[0].seen_s == seen


def test_who_was_known_to_be_away_stays_so_when_the_broker_goes(store: Store) -> None:
    for name, online in (("stetho-1", True), ("stetho-2", False)):
        state = State(online, "0.1.0", "7", "running" if online else "stopped", "boot")
        Presence(store).put_state(Topic("village", name, "state"), state)
    Presence(store).forget_online()
    assert [row.online for row in store.devices()] == [None, False]
