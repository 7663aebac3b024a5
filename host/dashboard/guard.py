"""What every answer of the dashboard must pass: headers and refusals."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "media-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)


_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


Scope = MutableMapping[str, Any]


_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Guard:
    """Every answer gets the safe headers; a request for a foreign host, or a WebSocket from a foreign page,
    gets nothing.
    """

    def __init__(self, app: Any, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}

    def _allowed(self, host: str) -> bool:
        """An address literal cannot be a trick of DNS; a name must be one of ours."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            ipaddress.ip_address(name)
            return True
        except ValueError:
            pass
        name = re.sub(r":\d+$", "", host).lower()
        return name in self._hosts

    async def __call__(self, scope: Scope, receive: _Receive, send: _Send) -> None:
        """Pass a request on, or refuse it: with 421, a WebSocket by closing it with 1008."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        host = headers.get("host", "")
        if scope["type"] == "websocket":
            origin = headers.get("origin")
            if not self._allowed(host) or (origin is not None and urlsplit(origin).netloc != host):
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                present = {key.lower() for key, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.encode(), value.encode())
                        for name, value in {**_HEADERS, "cache-control": "no-store"}.items()
                        if name.encode() not in present
                    ),
                ]
            await send(message)

        if not self._allowed(host):
            refusal = PlainTextResponse(
                "This host name is not known here. Allow it with: stethopi serve --allow-host NAME\n", 421
            )
            await refusal(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)
