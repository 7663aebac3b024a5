"""The pages themselves; what they show, their scripts fetch as JSON."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from device import __version__
from device.screening import quality
from host.dashboard.wanted import wanted_exam
from host.store.store import Store

__all__ = ["HERE", "Pages"]

log = logging.getLogger(__name__)

HERE = Path(__file__).parent


class Pages:
    """Answers with HTML; with JSON to a script for which there is only an error."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._templates = Jinja2Templates(directory=HERE / "templates")

    def routes(self) -> list[Route]:
        return [
            Route("/", self.home),
            Route("/exams/{exam:uuid}", self.exam),
            Route("/licences", self.licences),
        ]

    def _page(self, request: Request, name: str, status: int = 200, **values: Any) -> Response:
        return self._templates.TemplateResponse(
            request, name, {"version": __version__, "good": quality.GOOD, **values}, status_code=status
        )

    def home(self, request: Request) -> Response:
        return self._page(request, "home.html")

    def exam(self, request: Request) -> Response:
        found = wanted_exam(self._store, request)
        return self._page(request, "exam.html", exam_id=found.exam.id)

    def licences(self, request: Request) -> Response:
        font = (HERE / "static" / "fonts" / "Inter-LICENSE.txt").read_text("utf-8")
        return self._page(request, "licences.html", font=font)

    def error(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        text = str(getattr(error, "detail", "")) or "This should not have happened; the log says more."
        if status == 500:
            log.error("%s: %s", request.url.path, error, exc_info=error)
            text = "This should not have happened; the log says more."
        if request.url.path.startswith(("/api/", "/sounds/")):
            return JSONResponse({"error": text}, status)
        titles = {404: "Not here", 405: "Not possible", 503: "Not possible now"}
        return self._page(
            request, "message.html", status, title=titles.get(status, "Something went wrong"), text=text
        )
