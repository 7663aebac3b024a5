"""What a page may ask of a stethoscope that is online: what the ear gets, whose the next exam is."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from device.contract.codec import BadMessage, Text, decode, to_json
from device.contract.control import Command, Listen
from device.contract.topics import Address
from host.dashboard.present import iso

__all__ = ["Commands", "Send"]

Send = Callable[[Address, Command], bool]
"""Gives a command to a device's broker; False when there is none."""

_MOST_BYTES = 2000
_COMMAND_S = 10.0
"""A command is of the moment: later than this nobody waits for it any more."""


@dataclass(frozen=True)
class _Subject:
    """Whose the next exam is; empty: nobody's, or the next of the device's list."""

    code: Annotated[str, Text(40)]


class Commands:
    """Takes commands to devices from this dashboard's own pages."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def routes(self) -> list[Route]:
        return [
            Route("/api/devices/{fleet}/{device}/listen", self.listen, methods=["POST"]),
            Route("/api/devices/{fleet}/{device}/subject", self.subject, methods=["POST"]),
        ]

    async def listen(self, request: Request) -> Response:
        """Ask a device to send another sound to the ear; what it answers comes over /live."""
        return await self._ask(request, "listen", lambda body: {"listen": decode(Listen, body, _MOST_BYTES)})

    async def subject(self, request: Request) -> Response:
        """Tell a device whose its next exam is; what it answers comes over /live."""
        return await self._ask(
            request, "subject", lambda body: {"args": to_json(decode(_Subject, body, _MOST_BYTES))}
        )

    async def _ask(self, request: Request, name: str, read: Callable[[bytes], dict[str, Any]]) -> Response:
        """A command of this name to the device in the path. read: the body as what the command says."""
        origin = request.headers.get("origin")
        own = origin is None or urlsplit(origin).netloc == request.headers.get("host")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        # a foreign page can send neither another content type nor hide where it comes from
        if not own or kind != "application/json":
            raise HTTPException(403, "only this dashboard's own pages may do this, with application/json")
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > _MOST_BYTES:
                raise HTTPException(413, "this is too long to be a command")
        try:
            args = read(bytes(body))
            address = Address(request.path_params["fleet"], request.path_params["device"])
        except (BadMessage, ValueError) as error:
            raise HTTPException(400, str(error)) from None
        expires_s = time.time() + _COMMAND_S
        command = Command(uuid.uuid4().hex, name, expires_s, **args)
        if not self._send(address, command):
            raise HTTPException(503, "the broker is away; nothing was sent")
        return JSONResponse({"command": command.id, "expires": iso(expires_s)}, 202)
