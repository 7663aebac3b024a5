"""How many examples hypothesis tries: a test says what a day needs, a profile asks all of them for more.

make test                                         daily: as the tests say
make test-thorough                                thorough: twenty times as many, for a night
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import is_hypothesis_test, settings

__all__ = ["DAILY", "THOROUGH", "ask", "register", "thoroughly"]

DAILY, THOROUGH = "daily", "thorough"
TIMES = 20
"""So many times the examples of a day are tried in a thorough run."""


def register() -> None:
    """Make the profiles known; the daily one holds until `--hypothesis-profile` names another."""
    settings.register_profile(DAILY, deadline=None)
    settings.register_profile(THOROUGH, deadline=None, print_blob=True)
    settings.load_profile(DAILY)


def thoroughly(asked: settings) -> settings:
    return settings(asked, max_examples=TIMES * asked.max_examples, deadline=None)


def ask(items: Iterable[pytest.Item], change: Callable[[settings], settings]) -> None:
    """Change what the tests ask for: what one asks for by itself goes before a profile."""
    done: set[int] = set()
    for item in items:
        test: Any = getattr(item, "obj", None)
        test = getattr(test, "__func__", test)
        cls: Any = getattr(item, "cls", None)
        machine = getattr(cls, "settings", None)
        asks: Any = cls if isinstance(machine, settings) else test
        if id(asks) in done:
            continue  # a parametrised test is one function for all its items
        done.add(id(asks))
        if isinstance(machine, settings):
            cls.settings = change(machine)
        elif is_hypothesis_test(test):
            test._hypothesis_internal_use_settings = change(
                getattr(test, "_hypothesis_internal_use_settings", None) or settings()
            )
