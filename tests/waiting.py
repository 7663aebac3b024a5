"""Waiting for what comes true, however busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

__all__ = ["until"]

PATIENCE_S = 120.0


def until(true: Callable[[], Any], what: str = "it did not come true") -> Any:
    """Wait until `true()` is, and give it back; fail with `what` when it never is."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := true()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE_S:.0f} s in vain: {what}")
        time.sleep(0.01)
    return found
