"""The web application: pages, JSON for them under /api/, sounds, and /live.

Nothing here changes an exam. What can be changed is what a stethoscope that is online sends to the ear, and
whose its next exam is; a foreign page cannot do it. Whatever came from a device is escaped by Jinja2 or put
into the page as text; a strict content policy forbids everything that is not this server's own file. Requests
that name another host are refused, so that a foreign page cannot reach a dashboard on the loopback address by
DNS.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Mount, WebSocketRoute
from starlette.staticfiles import StaticFiles

from host.dashboard.commands import Commands, Send
from host.dashboard.ecg import EcgTraces
from host.dashboard.exams import Exams
from host.dashboard.guard import Guard, Scope
from host.dashboard.live import Hub
from host.dashboard.pages import HERE, Pages
from host.dashboard.sound_files import SoundFiles
from host.playback.sounds import Sounds
from host.store.store import Store

__all__ = ["create_app"]


class _Static(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


def create_app(
    store: Store,
    hub: Hub,
    *,
    hosts: Iterable[str] = (),
    bundle: Path | None = None,
    send: Send = lambda address, command: False,
) -> Any:
    """The ASGI application. `hosts`: names, beside localhost and address literals, that requests may use.
    `send`: gives a command to a device."""
    sounds = Sounds(store, bundle)
    pages = Pages(store)
    routes = [
        *pages.routes(),
        *Commands(send).routes(),
        *Exams(store, sounds).routes(),
        # before the sounds, for whose kind `ecg` would be taken
        *EcgTraces(store, sounds).routes(),
        *SoundFiles(store, sounds).routes(),
        WebSocketRoute("/live", hub.serve),
        Mount("/static", _Static(directory=HERE / "static")),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, hosts={"localhost", *hosts})],
        exception_handlers={HTTPException: pages.error, 500: pages.error},
    )
