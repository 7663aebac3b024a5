"""A real Chromium, driven by Playwright, and the host it looks at. `make test` installs Debian's package."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host.commands.serve import Host
from host.ingest.embedded_broker import EmbeddedBroker

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# no longer than these tests: while Playwright lives in this thread, no other can run an event loop in it
@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """A running browser."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.fail("chromium is not installed; type: apt-get install -y chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """`stethopi serve` with a broker of its own, in this process."""
    with Host(tmp_path / "store", embedded=EmbeddedBroker(), http_port=0) as made:
        assert made.ingest is not None and made.ingest.connected.wait(20)
        yield made
