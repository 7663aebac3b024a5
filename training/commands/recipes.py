"""The recipes of one run: the file given, laid over those that ship."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from device.errors import BadInput
from training.core.recipe import Table, find, merged, read, settings, shipped

if TYPE_CHECKING:
    from training.screening.quality import QualityRecipe
    from training.screening.recipe import Recipe

__all__ = ["RunRecipes"]


class RunRecipes:
    """A file with a `[denoiser]` table (as all.toml and smoke.toml) changes the shipped denoiser recipe; any
    other file is a denoiser recipe itself. `[classifier]` changes the classifier's defaults, `[ecg]` the
    shipped ECG recipe.
    """

    def __init__(self, given: str | None, default: str = "all") -> None:
        self.path = find(given, default)
        self.table = read(self.path)

    @property
    def _of_many(self) -> bool:
        return "denoiser" in self.table or "classifier" in self.table

    def denoiser(self) -> Table:
        if self._of_many:
            return merged(read(shipped("denoiser")), self.table.get("denoiser", {}))
        return self.table

    def classifier(self) -> Recipe:
        from training.screening.recipe import Recipe

        defaults = read(shipped("classifier")).get("classifier", {})
        return settings(Recipe, merged(defaults, self.table.get("classifier", {})), "classifier")

    def ecg(self) -> Table:
        return merged(read(shipped("ecg")), self.table.get("ecg", {}))

    def baseline(self, name: str) -> Table:
        """Of a denoiser that ours is measured against. A file for many networks changes the shipped one by
        its `[<name>]` table; any other file is that network's recipe itself."""
        if self._of_many:
            return merged(read(shipped(name)), self.table.get(name, {}))
        for part in ("seed", "mix", "train"):
            if part not in self.table:
                raise BadInput(f"{self.path}: {part} is missing; begin with a copy of {shipped(name)}")
        return self.table

    def quality(self) -> QualityRecipe:
        from training.screening.quality import QualityRecipe

        if "quality" not in self.table:
            return settings(QualityRecipe, self.table)
        changes: Any = self.table["quality"]
        return settings(QualityRecipe, merged(read(shipped("quality")), changes), "quality")
