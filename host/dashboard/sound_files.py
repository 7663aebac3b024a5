"""The sounds of an exam, to be heard or drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from device.errors import StethopiError
from device.rates import WORKING_RATE_HZ
from host.dashboard.wanted import wanted_exam, wanted_site
from host.playback.sounds import SiteSound, Sounds, spectrogram
from host.store.store import Found, Store

__all__ = ["SoundFiles"]


class SoundFiles:
    """Answers with a site's sound, raw or clean: files, samples for the eye, levels of the spectrogram."""

    def __init__(self, store: Store, sounds: Sounds) -> None:
        self._store, self._sounds = store, sounds

    def routes(self) -> list[Route]:
        one = "/api/exams/{exam:uuid}/sites/{site}/{kind}"
        return [
            Route(one, self.about),
            Route(f"{one}/wave", self.wave),
            Route(f"{one}/spectrogram", self.spectrum),
            Route("/sounds/{exam:uuid}/{site}/{kind}.wav", self.wav),
            Route("/sounds/{exam:uuid}/{site}.flac", self.flac),
        ]

    def about(self, request: Request) -> Response:
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

    def wav(self, request: Request) -> Response:
        found = wanted_exam(self._store, request)
        site, kind = wanted_site(request, found), request.path_params["kind"]
        try:
            strength = float(request.query_params.get("strength", "1"))
        except ValueError:
            strength = -1.0
        if not 0.0 <= strength <= 1.0 or abs(10 * strength - round(10 * strength)) > 1e-6:
            raise HTTPException(400, "strength is 0 to 1 in tenths")
        try:
            made = self._sounds.wav(found.exam.id, site, kind, found.exam.bundle, strength)
        except StethopiError as error:
            raise HTTPException(503, str(error)) from None
        if made is None:
            raise HTTPException(404, "the sound of this site has not arrived yet")
        headers = {"cache-control": "private, no-cache"}
        if isinstance(made, bytes):
            return Response(made, media_type="audio/wav", headers=headers)
        return FileResponse(made, media_type="audio/wav", headers=headers)

    def flac(self, request: Request) -> Response:
        found = wanted_exam(self._store, request)
        site = wanted_site(request, found)
        path = self._store.sound_path(found.exam.id, site)
        if path is None:
            raise HTTPException(404, "the sound of this site has not arrived yet")
        return FileResponse(
            path,
            media_type="audio/flac",
            filename=f"{found.exam.id}-{site}.flac",
            headers={"cache-control": "private, no-cache"},
        )

    def _sound(self, request: Request) -> tuple[Found, SiteSound]:
        found = wanted_exam(self._store, request)
        site = wanted_site(request, found)
        try:
            sound = self._sounds.get(found.exam.id, site, request.path_params["kind"], found.exam.bundle)
        except StethopiError as error:
            raise HTTPException(503, str(error)) from None
        if sound is None:
            raise HTTPException(404, "the sound of this site has not arrived yet")
        return found, sound
