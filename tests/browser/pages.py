"""What tests ask of a page: is it painted, does it move, does it fit, has everything a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = [
    "WAIT_MS",
    "changes",
    "fits",
    "inked",
    "moves",
    "new_page",
    "painted",
    "unnamed",
    "until",
    "watched",
]

WAIT_MS = 90_000
_PICTURE = 3000
"""Pixels that at least are painted where a trace or a spectrogram is."""

_OF_THE_TESTS = "getImageData"
"""A hint of Chromium's on reading canvases back, which only the tests do."""


def new_page(chromium: Any, width: int = 1280, height: int = 860, colours: str = "light") -> Any:
    """An empty page of a size, as patient as the tests."""
    page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=colours)
    page.set_default_timeout(WAIT_MS)
    return page


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


def until(page: Any, true: Callable[[], bool], what: str) -> None:
    """Wait for something to become true while the page lives on; fail with `what` when it does not."""
    waited = 0
    while not true():
        page.wait_for_timeout(50)
        waited += 50
        assert waited < WAIT_MS, what


def inked(page: Any, canvas: str) -> tuple[int, int]:
    """(how many pixels of a canvas are painted, a checksum of them); (0, 0) while there is none."""
    found = page.evaluate(
        """selector => {
            const canvas = document.querySelector(selector);
            if (!canvas || !canvas.width) return [0, 0];
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let [count, sum] = [0, 0];
            for (let i = 3; i < data.length; i += 4) if (data[i]) { count++; sum = (sum * 31 + i) % 1000003; }
            return [count, sum];
        }""",
        canvas,
    )
    return found[0], found[1]


def painted(page: Any, canvas: str) -> tuple[int, int]:
    """Wait until a trace or a spectrogram stands on a canvas; `inked` of it."""
    looks = [(0, 0)]

    def stands() -> bool:
        looks.append(inked(page, canvas))
        return looks[-1] == looks[-2] and looks[-1][0] > _PICTURE

    until(page, stands, f"nothing is painted on {canvas}")
    return looks[-1]


def changes(page: Any, canvas: str, before: tuple[int, int]) -> None:
    """Wait until another picture is on a canvas than `inked` said before."""
    until(page, lambda: inked(page, canvas) != before, f"{canvas} stands still")


def moves(page: Any, canvas: str) -> None:
    """Wait until something is painted there, and until it is another picture."""
    until(page, lambda: inked(page, canvas)[0] > _PICTURE, f"nothing is painted on {canvas}")
    changes(page, canvas, inked(page, canvas))


def fits(page: Any) -> bool:
    """Whether nothing sticks out sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def unnamed(page: Any) -> list[str]:
    """Controls and pictures that have no name for a screen reader."""
    return list(
        page.evaluate(
            """() => [...document.querySelectorAll("button, a, input, [role=img]")]
                .filter(e => !e.closest("[hidden]"))
                .filter(e => !(e.ariaLabel || e.textContent.trim() || e.title || e.ariaHidden))
                .map(e => e.outerHTML.slice(0, 120))"""
        )
    )
