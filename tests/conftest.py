"""Fixtures that every room's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.audio_loop import audio_loop
from tests.brokers import mosquitto
from tests.profiles import THOROUGH, ask, register, thoroughly

__all__ = ["audio_loop", "mosquitto", "murmur_recording", "normal_recording"]

register()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`--hypothesis-profile thorough` asks every test for more examples than a day's run has time for."""
    if config.getoption("--hypothesis-profile", None) == THOROUGH:
        ask(items, thoroughly)


DATA = Path(__file__).resolve().parent / "data"


@pytest.fixture(scope="session")
def normal_recording() -> Path:
    """A real recording without a murmur, 9.3 s, FLAC at 2 kHz."""
    return DATA / "circor" / "49853_MV.flac"


@pytest.fixture(scope="session")
def murmur_recording() -> Path:
    """A real recording with a systolic murmur, 9.3 s, FLAC at 2 kHz."""
    return DATA / "circor" / "68379_MV.flac"
