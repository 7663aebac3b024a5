"""The bundle's models, ready to run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from device.ecg.track import open_cleaner
from device.exam.identity import WindowJudge
from device.rates import HOP_S
from device.screening import quality
from device.stream.aligned import Cleaner

if TYPE_CHECKING:
    from device.settings.settings import Settings


__all__ = ["Models", "load_models"]

log = logging.getLogger("daemon")


@dataclass(frozen=True)
class Models:
    """The bundle's models, ready to run."""

    version: str
    denoiser: Cleaner
    judge: WindowJudge
    meta: Any
    """The classifier's in the bundle: threshold and undecided zone."""
    contact: Callable[..., quality.Quality] = quality.assess
    """How good the last seconds are."""
    lead: Cleaner | None = None
    """The ECG's denoiser; None where no lead is asked for, or the bundle has none for it."""


def load_models(settings: Settings) -> Models:
    """The newest bundle (or the one that the settings name), verified."""
    from device.denoise.stream import Denoiser
    from device.inference import bundle as bundles
    from device.screening.screen import Screener

    found = bundles.load(settings.bundle.path, settings.device.state_dir)
    classifier = found.model("classifier")
    denoiser = Denoiser(
        found.model("denoiser"), settings.denoise.strength, budget_s=settings.denoise.budget * HOP_S
    )
    lead: Cleaner | None = None
    if settings.ecg.spec != "none":
        if "ecg" in found.models:
            lead = open_cleaner(found.model("ecg"), settings.ecg.strength)
        else:
            log.warning("bundle %s has no model for the ECG; it is shown as it comes", found.version)
    judge = Screener(classifier)
    return Models(found.version, denoiser, judge, classifier.meta, judge.contact, lead)
