"""Recordings: read, clean, screen, count beats. The device's own stages, on files and arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from device.arrays import Samples
    from device.inference.bundle import Bundle
    from device.screening.verdict import Findings
    from device.sources.files import Sound
    from device.spans import Gap

__all__ = [
    "Classified",
    "Recording",
    "classify",
    "denoise",
    "heart_rate",
    "open_bundle",
    "read",
    "screen",
]


@dataclass(frozen=True, eq=False)
class Recording:
    """One channel of a recording at the rate at which heart sound is processed."""

    samples: Samples
    """float32 (n,) in ±1 full scale; sample k is at k / rate_hz seconds of the file. 0 inside gaps."""
    rate_hz: int
    """2000."""
    gaps: tuple[Gap, ...]
    """(start, end) of samples that were no numbers in the file, by index into `samples`."""
    notes: tuple[str, ...]
    """What a person should be told: further channels left out, an end that is missing."""
    file_rate_hz: int
    """The rate of the file."""
    path: Path
    """The file."""

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate_hz


@dataclass(frozen=True)
class Classified:
    """A row of `classify`: what was found in a file, or why it could not be read."""

    file: Path
    findings: Findings | None
    """None where the file could not be read."""
    error: str | None = None
    """One line with the remedy; None where it could be read."""

    def to_dict(self) -> dict[str, Any]:
        """The object that `stethopi classify --json` prints: plain values, probabilities to four places."""
        from host.files.batch import summary

        if self.findings is None:
            return {"file": str(self.file), "error": self.error}
        return {"file": str(self.file), **summary(self.findings)}


def open_bundle(path: str | Path | None = None) -> Bundle:
    """The model bundle in folder `path`, verified; None: the newest that is installed.

    Raises StethopiError naming the file whose sha256 or schema does not fit, BadInput where no bundle is.
    """
    from device.inference import bundle as bundles

    return bundles.load(Path(path).expanduser() if path is not None else None)


@lru_cache(maxsize=1)
def _newest() -> Bundle:
    return open_bundle()


def read(path: str | Path) -> Recording:
    """Read a WAV or FLAC file of 2 to 192 kHz, 8 to 32 bit or float; of several channels the first.

    Raises BadInput, one line with the remedy, when there is no sound to be had.
    """
    from device.dsp.resample import decimate
    from device.rates import WORKING_RATE_HZ
    from device.sources.files import read_sound

    path = Path(path).expanduser()
    sound = read_sound(path)
    return Recording(
        samples=decimate(sound.samples, sound.rate_hz),
        rate_hz=WORKING_RATE_HZ,
        gaps=tuple(sound.working_gaps),
        notes=tuple(sound.notes),
        file_rate_hz=sound.rate_hz,
        path=path,
    )


def denoise(
    sound: Recording | str | Path | ArrayLike,
    rate_hz: int | None = None,
    *,
    strength: float = 1.0,
    bundle: Bundle | None = None,
) -> Samples:
    """Clean heart sound with the network that runs while one listens: the samples of `stethopi denoise`.

    sound: a file or a `Recording`, or an array (n,) in ±1 at `rate_hz`, 2,000 to 192,000. strength: 0 gives
    the input, 1 all of the cleaning. bundle: from `open_bundle`; None: the newest.

    Returns float32, aligned to the sample with its input: (n,) at `rate_hz` of an array; at 2 kHz, as `read`
    gives it, of a file. Samples that are no numbers count as silence. Raises BadInput for a file, an array or
    a strength that cannot be used.
    """
    from device.dsp.resample import upsample
    from device.errors import BadInput
    from device.rates import WORKING_RATE_HZ
    from host.files.batch import clean_sound

    if not 0.0 <= strength <= 1.0:
        raise BadInput(f"strength={strength:g}: not from 0 (as it was) to 1 (cleaned)")
    given = _sound(sound, rate_hz)
    _, clean = clean_sound(given, (bundle or _newest()).model("denoiser"), strength)
    if given.rate_hz == WORKING_RATE_HZ:
        return clean
    return upsample(clean, given.rate_hz, len(given.samples))


def screen(
    sound: Recording | str | Path | ArrayLike, rate_hz: int | None = None, *, bundle: Bundle | None = None
) -> Findings:
    """Whether heart sound is normal, abnormal or unsure. It screens; it does not diagnose.

    Takes what `denoise` takes; raw sound, not cleaned. The result has `label`, `probability` (of abnormal, 0
    to 1), `murmur` (probability that one is heard), `quality` (0 to 1), `reasons` and `windows`, one of 5 s
    for each second; what is not known is None. Under 2 s, or silence, is unsure with the reason.
    """
    from host.files.batch import screen_sound

    return screen_sound(_sound(sound, rate_hz), (bundle or _newest()).model("classifier"))[1]


def heart_rate(sound: Recording | str | Path | ArrayLike, rate_hz: int | None = None) -> float | None:
    """Beats a minute over a whole sound, 30 to 200; None where they cannot be told (under 3 s, or noise).

    Takes what `denoise` takes. From the sound's envelope: device.screening.rhythm says how, and how often it
    is right.
    """
    from device.dsp.resample import decimate
    from device.screening import rhythm

    given = _sound(sound, rate_hz)
    return rhythm.heart_rate(decimate(given.samples, given.rate_hz))


def classify(
    paths: str | Path | Iterable[str | Path], *, bundle: Bundle | None = None, processes: int = 1
) -> list[Classified]:
    """Screen every WAV and FLAC file below a folder (or of several files and folders): a row a file.

    A file that cannot be read is a row with its error; the others are done all the same. processes: how many
    work side by side; a script that asks for more than one needs `if __name__ == "__main__":`, as
    multiprocessing does. For a table: `pandas.DataFrame([row.to_dict() for row in rows])`.
    """
    from host.files.batch import find_recordings, screen_files

    listed = [paths] if isinstance(paths, str | Path) else paths
    found = find_recordings([Path(path).expanduser() for path in listed])
    folder = None if bundle is None else bundle.folder
    outcomes = [*found.empty, *screen_files(found.files, bundle=folder, processes=processes)]
    return [Classified(outcome.path, outcome.findings, outcome.error) for outcome in outcomes]


def _sound(given: Recording | str | Path | ArrayLike, rate_hz: int | None) -> Sound:
    """What `denoise`, `screen` and `heart_rate` take, as the stages take it; what is no number becomes a
    gap.
    """
    import numpy as np

    from device.errors import BadInput
    from device.rates import check_rate
    from device.sources.files import Sound
    from device.spans import merged

    if isinstance(given, str | Path):
        given = read(given)
    if isinstance(given, Recording):
        if rate_hz not in (None, given.rate_hz):
            raise BadInput(f"rate_hz={rate_hz}: a recording is at {given.rate_hz} Hz; leave it out")
        return Sound(given.samples, given.rate_hz, gaps=list(given.gaps))
    if rate_hz is None:
        raise BadInput("rate_hz: an array does not tell its rate; give it, for example rate_hz=2000")
    check_rate(rate_hz, "rate_hz")
    x = np.asarray(given)
    if x.ndim != 1 or not len(x) or x.dtype.kind != "f":
        raise BadInput(
            f"sound: an array of {x.dtype} and shape {x.shape}; "
            "give floating-point samples in ±1, of shape (n,)"
        )
    x = x.astype(np.float32)
    lost = ~np.isfinite(x)
    x[lost] = 0.0
    return Sound(x, rate_hz, gaps=merged((int(k), int(k) + 1) for k in np.flatnonzero(lost)))
