"""The way of the bundle's models through one run folder: what each step needs and leaves."""

from __future__ import annotations

import argparse
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from training.commands.common import one_thread, say
from training.commands.recipes import RunRecipes

if TYPE_CHECKING:
    from training.screening.corpus import Corpus

__all__ = ["RunFolder"]


class RunFolder:
    """Trains, prunes and exports denoiser, classifier and judge of quality by the recipes of a run."""

    def __init__(self, options: argparse.Namespace, recipes: RunRecipes) -> None:
        self.options, self.recipes = options, recipes
        self.out, self.data, self.cache = (
            Path(options.out),
            Path(options.data),
            Path(options.cache).expanduser(),
        )
        self.resume = bool(getattr(options, "resume", False))
        one_thread()

    @cached_property
    def corpus(self) -> Corpus:
        from training.screening.corpus import Corpus

        corpus = Corpus(self.data, self.cache, say)
        corpus.into_memory()
        return corpus

    def train(self, model: str, resume: bool | None = None) -> Path:
        resume = self.resume if resume is None else resume
        if model == "quality":
            from training.screening.quality import train_quality

            train_quality(self.recipes.quality(), self.data, self.out / "classifier", say, resume=resume)
            return self.out / "classifier" / "classifier.npz"
        if model == "denoiser":
            from training.denoise.train import train_denoiser

            return train_denoiser(self.recipes.denoiser(), self.data, self.out, self.cache, resume=resume)
        from training.screening.train import train

        if not resume:
            (self.out / "classifier-resume.pt").unlink(missing_ok=True)
        train(self.corpus, self.recipes.classifier(), self.out, say)
        return self.out / "classifier-full.pt"

    def prune(self, model: str, resume: bool | None = None) -> Path:
        resume = self.resume if resume is None else resume
        if model == "denoiser":
            from training.denoise.prune import prune_denoiser

            return prune_denoiser(self.recipes.denoiser(), self.data, self.out, self.cache, resume=resume)
        from training.screening.train import prune_classifier

        if not resume:
            (self.out / "classifier-resume-pruned.pt").unlink(missing_ok=True)
        source = self.out / "classifier-full.pt"
        prune_classifier(self.recipes.classifier(), source, self.corpus, self.out, say)
        return self.out / "classifier-pruned.pt"

    def export(self, model: str) -> Path:
        part = self.out / model
        if model == "denoiser":
            from training.denoise.export import export_denoiser

            source = self.out / "denoiser-pruned.pt"
            export_denoiser(self.recipes.denoiser(), source, self.data, self.cache, part)
        else:
            from training.screening.export import export_classifier

            source = self.out / "classifier-pruned.pt"
            export_classifier(self.recipes.classifier(), source, self.corpus, part, say)
        return part
