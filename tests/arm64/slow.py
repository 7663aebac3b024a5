"""A plugin for pytest (`-p tests.arm64.slow`): hypothesis does not mind that an emulated machine is slow, and
what became of a file is told when its last test has ended (a line: TOLD, and JSON), as the way is long.

Hypothesis tries fewer examples there: at most EXAMPLES of each test. The same tests try all of theirs on
x86; what arm64 could do otherwise (a type's size, a rounding, an operator) shows in any example, not in the
last one.
"""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

from tests.profiles import ask

__all__ = ["EXAMPLES", "TOLD"]

EXAMPLES = 10
TOLD = "TOLD "


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ask(items, _fewer)


def _fewer(asked: settings) -> settings:
    most = min(asked.max_examples, EXAMPLES)
    minded = {*asked.suppress_health_check, HealthCheck.too_slow}
    return settings(asked, max_examples=most, deadline=None, suppress_health_check=minded)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Teller(config))


class _Teller:
    """Counts what became of each file's tests."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._counts: dict[str, Counter[str]] = {}
        self._file = ""
        self._began = time.monotonic()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and report.nodeid:
            self._count(report.nodeid, "errors")
            self._go_to("")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._go_to(_file_of(nodeid))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._config.get_terminal_writer().line(f"\n{report.nodeid}\n{report.longreprtext}")
            self._count(report.nodeid, "failed" if report.when == "call" else "errors")
        elif report.skipped or report.when == "call":
            self._count(report.nodeid, report.outcome)

    def pytest_sessionfinish(self) -> None:
        self._go_to("")

    def _count(self, nodeid: str, what: str) -> None:
        self._file = _file_of(nodeid)
        self._counts.setdefault(self._file, Counter())[what] += 1

    def _go_to(self, file: str) -> None:
        if self._file not in ("", file):
            counts = self._counts.get(self._file, Counter())
            minutes = (time.monotonic() - self._began) / 60
            told = {"file": self._file, **counts, "exit": int(bool(counts["failed"] + counts["errors"]))}
            writer = self._config.get_terminal_writer()
            writer.line()
            writer.line(TOLD + json.dumps(told | {"minutes": round(minutes, 1)}))
            writer.flush()
        if file != self._file:
            self._began = time.monotonic()
        self._file = file


def _file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]
