"""A thorough run asks each test for more examples, and for no more than that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.profiles import TIMES, ask, thoroughly


def item(test: Any) -> pytest.Item:
    return cast(pytest.Item, SimpleNamespace(obj=test, cls=None))


def test_a_thorough_run_tries_more_of_each_test_once() -> None:
    tried: list[int] = []

    @settings(max_examples=3, deadline=None, database=None)
    @given(st.integers())
    def test(n: int) -> None:
        tried.append(n)

    # two items of one parametrised test share its function
    ask([item(test), item(test)], thoroughly)
    test()
    assert 3 < len(tried) <= 3 * TIMES
    assert len(tried) > 3 * TIMES / 2
