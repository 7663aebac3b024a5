"""What an exam is to hear, and in which phase it is."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from device.contract.vocabulary import MOST_SITES, SITES
from device.errors import BadInput
from device.rates import WORKING_RATE_HZ
from device.settings.sections import ExamSettings

__all__ = ["Phase", "Plan"]


class Phase(enum.Enum):
    """Where an exam stands."""

    IDLE = "idle"
    RECORDING = "recording"
    SETTLING = "settling"
    """The site's sound is over; its last windows are still being judged."""
    BETWEEN = "between"
    """Waiting for the next site to begin."""
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Plan:
    """What an exam is to hear, by the settings' defaults where nothing else is said."""

    sites: tuple[str, ...] = ExamSettings.sites
    min_s: float = ExamSettings.min_s
    max_s: float = ExamSettings.max_s
    good_windows: int = ExamSettings.good_windows
    """Windows that must pass quality before a site has been heard well enough."""

    def __post_init__(self) -> None:
        """BadInput for a plan that cannot be."""
        if not self.sites or len(self.sites) > MOST_SITES:
            raise BadInput(f"exam: {len(self.sites)} sites; give 1 to {MOST_SITES} of {', '.join(SITES)}")
        for site in self.sites:
            if site not in SITES:
                raise BadInput(f"exam: site {site}: none of {', '.join(SITES)}")
        if not 0 < self.min_s <= self.max_s:
            raise BadInput(f"exam: min_s {self.min_s:g} and max_s {self.max_s:g}: must rise, from above 0")

    @property
    def min_samples(self) -> int:
        return round(self.min_s * WORKING_RATE_HZ)

    @property
    def max_samples(self) -> int:
        return round(self.max_s * WORKING_RATE_HZ)

    @property
    def most_bytes(self) -> int:
        """What its recordings may need on disk: FLAC of 24 bit takes less than 3 bytes a sample, and one site
        lies there twice while its file is written.
        """
        return 3 * (len(self.sites) + 1) * self.max_samples

    def name(self, position: int) -> str:
        """Name of a site in the exam: its code, with `-2` and so on when it comes again."""
        code = self.sites[position]
        times = self.sites[: position + 1].count(code)
        return code if times == 1 else f"{code}-{times}"
