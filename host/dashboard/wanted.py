"""Which exam, and which of its sites, a request asks for; what is not here is a 404."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request

from host.playback.sounds import KINDS
from host.store.store import Found, Store

__all__ = ["wanted_exam", "wanted_site"]


def wanted_exam(store: Store, request: Request) -> Found:
    """The exam that the path names."""
    found = store.exam(str(request.path_params["exam"]))
    if found is None:
        raise HTTPException(404, "there is no exam of this id here")
    return found


def wanted_site(request: Request, found: Found) -> str:
    """The site that the path names, of which the exam has a sound, of a kind that there is."""
    site = str(request.path_params["site"])
    if request.path_params.get("kind", "raw") not in KINDS or site not in {s.site for s in found.sounds}:
        raise HTTPException(404, "the exam has no such sound")
    return site
