"""JSON of devices, of the list of exams, of one exam."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from device.contract import topics
from device.contract.codec import BadMessage
from device.contract.exam import Exam
from host.dashboard.present import brief, device, full
from host.dashboard.wanted import wanted_exam
from host.playback.sounds import Sounds
from host.store.store import Found, Store

__all__ = ["Exams"]


class Exams:
    """Answers with what the store holds, in the pages' words."""

    def __init__(self, store: Store, sounds: Sounds) -> None:
        self._store, self._sounds = store, sounds

    def routes(self) -> list[Route]:
        return [
            Route("/api/devices", self.devices),
            Route("/api/exams", self.exams),
            Route("/api/exams/{exam:uuid}", self.exam),
        ]

    def devices(self, request: Request) -> Response:
        """The limits by which the live page colours windows come with each device; those beside the list are
        for one that has not told its bundle."""
        return JSONResponse(
            {
                "devices": [device(row) | self._limits(row.bundle) for row in self._store.devices()],
                **self._limits(None),
            }
        )

    def _limits(self, bundle: str | None) -> dict[str, Any]:
        return self._sounds.nearest_thresholds(bundle) or {"threshold": None, "undecided": None}

    def exams(self, request: Request) -> Response:
        query = request.query_params
        try:
            limit = max(1, min(200, int(query.get("limit", "50"))))
            before = None
            if "before" in query:
                arrived, _, name = query["before"].partition("_")
                before = (float(arrived), name)
        except ValueError:
            raise HTTPException(400, "limit is a number, before is the cursor of an exam") from None
        found = self._store.exams(limit + 1, before)
        return JSONResponse(
            {
                "exams": [self._brief(each) for each in found[:limit]],
                "more": len(found) > limit,
                "total": self._store.count(),
            }
        )

    def exam(self, request: Request) -> Response:
        found = wanted_exam(self._store, request)
        made = self._brief(found) | {"total": self._store.count()}
        if "brief" not in request.query_params:
            made |= self._full(found)
        return JSONResponse(made)

    def _brief(self, found: Found) -> dict[str, Any]:
        return brief(found, self._sounds.thresholds(found.exam.bundle) or {})

    def _full(self, found: Found) -> dict[str, Any]:
        try:
            exam = topics.read(Exam, found.exam.result)
        except BadMessage as error:
            raise HTTPException(503, f"another version of stethopi wrote this exam: {error}") from None
        finished = self._store.when(exam.fleet, exam.device, exam.finished)
        return full(found, exam, finished, self._store.receipts(exam.id))
