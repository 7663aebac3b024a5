"""A plugin for pytest (`-p tests.arm64.slow`): hypothesis does not mind that an emulated machine is slow.

It tries fewer examples there: at most EXAMPLES of each test. The same tests try all of theirs on x86; what
arm64 could do otherwise (a type's size, a rounding, an operator) shows in any example, not in the last one.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

__all__ = ["EXAMPLES"]

EXAMPLES = 10

settings.register_profile("emulated", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("emulated")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever a test asks for by itself goes before a profile, so it is lowered test by test."""
    for item in items:
        test: Any = getattr(item, "obj", None)
        machine = getattr(getattr(item, "cls", None), "settings", None)
        if isinstance(machine, settings):
            item.cls.settings = _fewer(machine)  # type: ignore[attr-defined]
        elif is_hypothesis_test(test):
            test = getattr(test, "__func__", test)
            test._hypothesis_internal_use_settings = _fewer(
                getattr(test, "_hypothesis_internal_use_settings", None) or settings()
            )


def _fewer(asked: settings) -> settings:
    most = min(asked.max_examples, EXAMPLES)
    minded = {*asked.suppress_health_check, HealthCheck.too_slow}
    return settings(asked, max_examples=most, deadline=None, suppress_health_check=minded)
