"""The ECG beside a site's sound, to be drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from device.contract import topics
from device.contract.codec import BadMessage
from device.contract.exam import EcgTrack, Exam
from device.ecg.lead import not_cleaned
from device.errors import StethopiError
from host.dashboard.wanted import wanted_exam
from host.playback.sounds import ECG_FULL_MV, KINDS, SiteEcg, Sounds
from host.store.store import Store

__all__ = ["EcgTraces"]


class EcgTraces:
    """Answers with a site's ECG, on the time axis of its sound."""

    def __init__(self, store: Store, sounds: Sounds) -> None:
        self._store, self._sounds = store, sounds

    def routes(self) -> list[Route]:
        one = "/api/exams/{exam:uuid}/sites/{site}/ecg"
        return [Route(one, self.about), Route(f"{one}/{{kind}}", self.wave)]

    def _ecg(self, request: Request) -> tuple[EcgTrack, SiteEcg]:
        found = wanted_exam(self._store, request)
        name = str(request.path_params["site"])
        try:
            exam = topics.read(Exam, found.exam.result)
            track = next((site.ecg for site in exam.sites if site.site == name), None)
            ecg = None
            if track is not None:
                ecg = self._sounds.ecg(exam.id, name, track, exam.bundle)
        except (StethopiError, BadMessage) as error:
            raise HTTPException(503, str(error)) from None
        if track is None:
            raise HTTPException(404, "no ECG was heard at this site")
        if ecg is None:
            raise HTTPException(404, "the ECG of this site has not arrived yet")
        return track, ecg

    def about(self, request: Request) -> Response:
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

    def wave(self, request: Request) -> Response:
        """Little-endian int16; 32767 is 5 mV."""
        _, ecg = self._ecg(request)
        x = ecg.raw if request.path_params["kind"] == "raw" else ecg.clean
        if x is None or request.path_params["kind"] not in KINDS:
            raise HTTPException(404, "no bundle here has a model for the ECG")
        whole = np.clip(x / ECG_FULL_MV, -1.0, 1.0) * 32767.0
        return Response(whole.astype("<i2").tobytes(), media_type="application/octet-stream")
