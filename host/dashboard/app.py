"""The web application: pages, JSON for them under /api/, sounds, and /live.

Nothing here changes an exam. What can be changed is what a stethoscope that is online sends to the ear, and
whose its next exam is; a foreign page cannot do it. Whatever came from a device is escaped by Jinja2 or put
into the page as text; a strict content policy forbids everything that is not this server's own file. Requests
that name another host are refused, so that a foreign page cannot reach a dashboard on the loopback address by
DNS.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.websockets import WebSocket

from device import __version__
from device.contract import codec, topics
from device.contract.codec import BadMessage, Text, decode, to_json
from device.contract.control import Command, Listen
from device.contract.exam import EcgTrack, Exam
from device.contract.topics import Address
from device.ecg.lead import not_cleaned
from device.errors import StethopiError
from device.rates import WINDOW, WORKING_RATE_HZ
from device.screening import quality
from host.dashboard.guard import Guard, Scope
from host.dashboard.live import Hub
from host.dashboard.present import about_ecg, device, iso, pieces
from host.playback.sounds import ECG_FULL_MV, KINDS, PLAY_RATE_HZ, SiteEcg, SiteSound, Sounds, spectrogram
from host.store.clocks import WORDS
from host.store.store import Found, Store

__all__ = ["create_app"]

log = logging.getLogger(__name__)

HERE = Path(__file__).parent


Send = Callable[[Address, Command], bool]
"""Gives a command to a device's broker; False when there is none."""

_MOST_WISH_BYTES = 2000
_COMMAND_S = 10.0
"""A wish is of the moment: later than this nobody waits for it any more."""


@dataclass(frozen=True)
class _Subject:
    """Whose the next exam is; empty: nobody's, or the next of the device's list."""

    code: Annotated[str, Text(40)]


class _Static(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


class _Pages:
    """The handlers; what they share is the store, the sounds and the hub."""

    def __init__(self, store: Store, sounds: Sounds, hub: Hub, send: Send) -> None:
        self.store, self.sounds, self.hub, self.send = store, sounds, hub, send
        self.templates = Jinja2Templates(directory=HERE / "templates")

    # ---- pages

    def _page(self, request: Request, name: str, status: int = 200, **values: Any) -> Response:
        return self.templates.TemplateResponse(
            request, name, {"version": __version__, "good": quality.GOOD, **values}, status_code=status
        )

    def home(self, request: Request) -> Response:
        return self._page(request, "home.html")

    def exam(self, request: Request) -> Response:
        found = self._wanted(request)
        return self._page(request, "exam.html", exam_id=found.exam.id)

    def licences(self, request: Request) -> Response:
        font = (HERE / "static" / "fonts" / "Inter-LICENSE.txt").read_text("utf-8")
        return self._page(request, "licences.html", font=font)

    # ---- JSON

    def devices(self, request: Request) -> Response:
        """The limits by which the live page colours windows come with each device; those beside the list are
        for one that has not told its bundle."""
        return JSONResponse(
            {
                "devices": [device(row) | self._limits(row.bundle) for row in self.store.devices()],
                **self._limits(None),
            }
        )

    def _limits(self, bundle: str | None) -> dict[str, Any]:
        return self.sounds.nearest_thresholds(bundle) or {"threshold": None, "undecided": None}

    async def listen(self, request: Request) -> Response:
        """Ask a device to send another sound to the ear; what it answers comes over /live."""
        return await self._ask(
            request, "listen", lambda body: {"listen": decode(Listen, body, _MOST_WISH_BYTES)}
        )

    async def subject(self, request: Request) -> Response:
        """Tell a device whose its next exam is; what it answers comes over /live."""
        return await self._ask(
            request, "subject", lambda body: {"args": to_json(decode(_Subject, body, _MOST_WISH_BYTES))}
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
            if len(body) > _MOST_WISH_BYTES:
                raise HTTPException(413, "this is too long to be a wish")
        try:
            wish = read(bytes(body))
            address = Address(request.path_params["fleet"], request.path_params["device"])
        except (BadMessage, ValueError) as error:
            raise HTTPException(400, str(error)) from None
        expires_s = time.time() + _COMMAND_S
        command = Command(uuid.uuid4().hex, name, expires_s, **wish)
        if not self.send(address, command):
            raise HTTPException(503, "the broker is away; nothing was sent")
        return JSONResponse({"command": command.id, "expires": iso(expires_s)}, 202)

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
        found = self.store.exams(limit + 1, before)
        return JSONResponse(
            {
                "exams": [self._brief(each) for each in found[:limit]],
                "more": len(found) > limit,
                "total": self.store.count(),
            }
        )

    def exam_json(self, request: Request) -> Response:
        found = self._wanted(request)
        made = self._brief(found) | {"total": self.store.count()}
        if "brief" not in request.query_params:
            made |= self._full(found)
        return JSONResponse(made)

    def sound_json(self, request: Request) -> Response:
        found, sound = self._sound(request)
        made: dict[str, Any] = {
            "kind": request.path_params["kind"],
            "rate_hz": WORKING_RATE_HZ,
            "samples": len(sound.samples),
            "gain_db": 20.0 * float(np.log10(sound.gain)),
            "bundle": sound.bundle,
            "bundle_wanted": found.exam.bundle,
            "exact": sound.exact,
            "spectrogram": spectrogram(sound.samples, sound.reference).about,
        }
        return JSONResponse(made)

    def wave(self, request: Request) -> Response:
        """Little-endian int16, the gain applied: what the eye sees is what the ear hears."""
        _, sound = self._sound(request)
        x = np.clip(sound.samples * sound.gain, -1.0, 1.0) * 32767.0
        return Response(x.astype("<i2").tobytes(), media_type="application/octet-stream")

    def spectrum(self, request: Request) -> Response:
        """Levels, one byte each, frame after frame, low frequencies first."""
        _, sound = self._sound(request)
        levels = spectrogram(sound.samples, sound.reference).levels
        return Response(levels.tobytes(), media_type="application/octet-stream")

    # ---- sounds

    def wav(self, request: Request) -> Response:
        found = self._wanted(request)
        site, kind = self._site_of(request, found), request.path_params["kind"]
        try:
            strength = float(request.query_params.get("strength", "1"))
        except ValueError:
            strength = -1.0
        if not 0.0 <= strength <= 1.0 or abs(10 * strength - round(10 * strength)) > 1e-6:
            raise HTTPException(400, "strength is 0 to 1 in tenths")
        try:
            made = self.sounds.wav(found.exam.id, site, kind, found.exam.bundle, strength)
        except StethopiError as error:
            raise HTTPException(503, str(error)) from None
        if made is None:
            raise HTTPException(404, "the sound of this site has not arrived yet")
        headers = {"cache-control": "private, no-cache"}
        if isinstance(made, bytes):
            return Response(made, media_type="audio/wav", headers=headers)
        return FileResponse(made, media_type="audio/wav", headers=headers)

    def flac(self, request: Request) -> Response:
        found = self._wanted(request)
        site = self._site_of(request, found)
        path = self.store.sound_path(found.exam.id, site)
        if path is None:
            raise HTTPException(404, "the sound of this site has not arrived yet")
        return FileResponse(
            path,
            media_type="audio/flac",
            filename=f"{found.exam.id}-{site}.flac",
            headers={"cache-control": "private, no-cache"},
        )

    # ---- ECG

    def _ecg(self, request: Request) -> tuple[EcgTrack, SiteEcg]:
        found = self._wanted(request)
        name = str(request.path_params["site"])
        try:
            exam = topics.read(Exam, found.exam.result)
            track = next((site.ecg for site in exam.sites if site.site == name), None)
            ecg = None
            if track is not None:
                ecg = self.sounds.ecg(exam.id, name, track, exam.bundle)
        except (StethopiError, BadMessage) as error:
            raise HTTPException(503, str(error)) from None
        if track is None:
            raise HTTPException(404, "no ECG was heard at this site")
        if ecg is None:
            raise HTTPException(404, "the ECG of this site has not arrived yet")
        return track, ecg

    def ecg_json(self, request: Request) -> Response:
        """Times in seconds from the first sample of the site's sound, by the sound's clock."""
        track, ecg = self._ecg(request)

        def second(sample: int) -> float:
            return round(track.start_s + sample / track.true_rate_hz, 5)

        made: dict[str, Any] = {
            "rate_hz": track.true_rate_hz,
            "start_s": track.start_s,
            "samples": len(ecg.raw),
            "full_mv": ECG_FULL_MV,
            "gaps": [[second(a), second(b)] for a, b in track.gaps],
            "clean_gaps": [[second(a), second(b)] for a, b in not_cleaned(track.gaps, track.rate_hz)],
            "reasons": track.reasons,
            "r_peaks": [second(int(n)) for n in ecg.peaks],
            "heart_rate_bpm": ecg.heart_rate_bpm,
            "drift_ppm": 1e6 * (track.true_rate_hz / track.rate_hz - 1.0),
            "spread_ms": track.spread_ms,
            "clean": ecg.clean is not None,
            "bundle": ecg.bundle,
            "exact": ecg.exact,
        }
        return JSONResponse(made)

    def ecg_wave(self, request: Request) -> Response:
        """Little-endian int16; 32767 is 5 mV."""
        _, ecg = self._ecg(request)
        x = ecg.raw if request.path_params["kind"] == "raw" else ecg.clean
        if x is None or request.path_params["kind"] not in KINDS:
            raise HTTPException(404, "no bundle here has a model for the ECG")
        whole = np.clip(x / ECG_FULL_MV, -1.0, 1.0) * 32767.0
        return Response(whole.astype("<i2").tobytes(), media_type="application/octet-stream")

    async def live(self, socket: WebSocket) -> None:
        await self.hub.serve(socket)

    # ---- what they share

    def _wanted(self, request: Request) -> Found:
        found = self.store.exam(str(request.path_params["exam"]))
        if found is None:
            raise HTTPException(404, "there is no exam of this id here")
        return found

    @staticmethod
    def _site_of(request: Request, found: Found) -> str:
        site = str(request.path_params["site"])
        if request.path_params.get("kind", "raw") not in KINDS or site not in {s.site for s in found.sounds}:
            raise HTTPException(404, "the exam has no such sound")
        return site

    def _sound(self, request: Request) -> tuple[Found, SiteSound]:
        found = self._wanted(request)
        site = self._site_of(request, found)
        try:
            sound = self.sounds.get(found.exam.id, site, request.path_params["kind"], found.exam.bundle)
        except StethopiError as error:
            raise HTTPException(503, str(error)) from None
        if sound is None:
            raise HTTPException(404, "the sound of this site has not arrived yet")
        return found, sound

    def _brief(self, found: Found) -> dict[str, Any]:
        exam = found.exam
        limits = self.sounds.thresholds(exam.bundle) or {}
        return {
            "id": exam.id,
            "fleet": exam.fleet,
            "device": exam.device,
            "status": "complete" if found.complete else "partial",
            "received": iso(exam.received_s),
            "cursor": f"{exam.received_s!r}_{exam.id}",
            "started": iso(found.started.seconds),
            "clock_trust": exam.clock_trust,
            "clock_basis": found.started.basis,
            "label": exam.label,
            "probability": exam.probability,
            "quality": exam.quality,
            "bundle": exam.bundle,
            "threshold": limits.get("threshold"),
            "undecided": limits.get("undecided"),
            "sites": [
                {"site": site.site, "seconds": site.seconds, **pieces(found, site.site)}
                for site in found.sites
            ],
        }

    def _full(self, found: Found) -> dict[str, Any]:
        try:
            exam = topics.read(Exam, found.exam.result)
        except codec.BadMessage as error:
            raise HTTPException(503, f"another version of stethopi wrote this exam: {error}") from None
        return {
            "completed": iso(found.exam.complete_s),
            "finished": iso(self.store.when(exam.fleet, exam.device, exam.finished).seconds),
            "clock_words": WORDS[found.started.basis],
            "software": exam.software,
            "subject": exam.subject,
            "source": exam.source,
            "source_rate_hz": exam.source_rate_hz,
            "ecg_source": exam.ecg_source,
            "ended": exam.ended,
            "reasons": exam.verdict.reasons,
            "murmur": exam.verdict.murmur,
            "heart_rate_bpm": exam.heart_rate_bpm,
            "sha256": found.exam.sha256,
            "window": WINDOW,
            "play_rate_hz": PLAY_RATE_HZ,
            "delay": to_json(exam.delay),
            "latency": to_json(exam.latency),
            "dropped": dict(exam.dropped),
            "receipts": [
                {"sent": iso(row.sent_s), "status": row.status, "why": row.why}
                for row in self.store.receipts(exam.id)
            ],
            "sites": [
                {
                    "site": site.site,
                    "seconds": site.seconds,
                    "samples": site.samples,
                    "ended": site.ended,
                    "heart_rate_bpm": site.heart_rate_bpm,
                    "good_windows": site.good_windows,
                    "clipped": site.clipped,
                    "gaps": site.gaps,
                    "troubles": [
                        str(trouble)
                        for trouble in quality.troubles((w.start, w.reasons) for w in site.windows)
                    ],
                    "windows": [
                        {
                            "start": window.start,
                            "probability": window.probability,
                            "quality": window.quality,
                            "good": window.probability is not None and window.quality >= quality.GOOD,
                            "reasons": window.reasons,
                        }
                        for window in site.windows
                    ],
                    **pieces(found, site.site),
                    "size": site.sound.size,
                    "sha256": site.sound.sha256,
                    "ecg": about_ecg(site.ecg),
                }
                for site in exam.sites
            ],
        }

    # ---- errors

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
    pages = _Pages(store, Sounds(store, bundle), hub, send)
    site = "/exams/{exam:uuid}/sites/{site}/{kind}"
    routes = [
        Route("/", pages.home),
        Route("/exams/{exam:uuid}", pages.exam),
        Route("/licences", pages.licences),
        Route("/api/devices", pages.devices),
        Route("/api/devices/{fleet}/{device}/listen", pages.listen, methods=["POST"]),
        Route("/api/devices/{fleet}/{device}/subject", pages.subject, methods=["POST"]),
        Route("/api/exams", pages.exams),
        Route("/api/exams/{exam:uuid}", pages.exam_json),
        Route("/api/exams/{exam:uuid}/sites/{site}/ecg", pages.ecg_json),
        Route("/api/exams/{exam:uuid}/sites/{site}/ecg/{kind}", pages.ecg_wave),
        Route(f"/api{site}", pages.sound_json),
        Route(f"/api{site}/wave", pages.wave),
        Route(f"/api{site}/spectrogram", pages.spectrum),
        Route("/sounds/{exam:uuid}/{site}/{kind}.wav", pages.wav),
        Route("/sounds/{exam:uuid}/{site}.flac", pages.flac),
        WebSocketRoute("/live", pages.live),
        Mount("/static", _Static(directory=HERE / "static")),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, hosts={"localhost", *hosts})],
        exception_handlers={HTTPException: pages.error, 500: pages.error},
    )
