"""A link whose connections succeed or fail as a test says, and whose rests pass at once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from device.delivery.link import Link, LinkLost

__all__ = ["rests_of"]


def rests_of(link: Link, let_in: list[bool], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that `link.keep` rests, without their chance; it stops after as many tries as `let_in`."""
    rests: list[float] = []
    tries = iter(let_in)

    def connect() -> None:
        if not next(tries):
            raise LinkLost("connection refused")

    def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == len(let_in):
            link.stop()

    no_chance = SimpleNamespace(uniform=lambda low, high: (low + high) / 2)
    monkeypatch.setattr("device.delivery.link.random", no_chance)
    monkeypatch.setattr(link, "_connect", connect)
    monkeypatch.setattr(link, "_rest", rest)
    return rests
