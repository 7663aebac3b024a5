"""A real Chromium, driven by Playwright. Debian's package, which `make test` installs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

__all__ = ["FLAGS", "chromium", "watched"]

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


@pytest.fixture(scope="module")
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


_OF_THE_TESTS = "getImageData"
"""A hint of Chromium's on reading canvases back, which only the tests do."""


def watched(page: Any, home: str) -> list[str]:
    """What must not happen on a page, as it happens: errors, warnings, requests to anybody else."""
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))

    def heard(message: Any) -> None:
        if message.type in ("error", "warning") and _OF_THE_TESTS not in message.text:
            wrong.append(f"{message.type}: {message.text}")

    page.on("console", heard)
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith((home, "data:")) else wrong.append(f"foreign: {request.url}")
        ),
    )
    return wrong
