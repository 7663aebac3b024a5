"""The sound of a stored exam as the page needs it: raw and clean samples, spectrogram, WAV for the browser.

The clean sound is not delivered but recomputed, by the device's own streaming step and the bundle that the
exam names; when that bundle is not here, by the newest one, and `SiteSound.bundle` says so. What was computed
is kept under STORE/cache and may be deleted at any time.

Raw and clean get one and the same gain, so that the ear compares the noise and not the loudness.
"""

from __future__ import annotations

import hashlib
import io
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.arrays import Floats, Indices, Samples
from device.contract.exam import EcgTrack
from device.contract.vocabulary import ECG_FULL_SCALE_MV, ecg_name
from device.durable import write_durably
from device.ecg.r_peaks import heart_rate_bpm, r_peaks
from device.errors import StethopiError
from device.inference import bundle as bundles
from device.inference.bundle import Bundle, ModelEntry
from device.rates import ECG_RATE_HZ, WORKING_RATE_HZ
from host.store.store import Store

__all__ = [
    "ECG_FULL_MV",
    "KINDS",
    "LONGEST_S",
    "PLAY_RATE_HZ",
    "SiteEcg",
    "SiteSound",
    "Sounds",
    "Spectrogram",
    "spectrogram",
]

log = logging.getLogger(__name__)

KINDS = ("raw", "clean")

ECG_FULL_MV = ECG_FULL_SCALE_MV

PLAY_RATE_HZ = 8000
"""Browsers play this everywhere; 2 kHz they do not."""

LONGEST_S = 600
"""A longer recording is not drawn: a small FLAC file may hold hours of silence."""

MOST_CACHE_BYTES = 1_000_000_000

_FFT = 512
_BINS = int(800.0 * _FFT / WORKING_RATE_HZ) + 1
_TOP_HZ = (_BINS - 1) * WORKING_RATE_HZ / _FFT
_FRAME = 256
_RANGE_DB = 52.0
_MOST_FRAMES = 2400
_PEAK = 0.85
_MOST_GAIN = 1000.0


@dataclass(frozen=True)
class Spectrogram:
    """Levels 0…255 over 52 dB, shape (frames, bins); bin k is k * top_hz / (bins - 1) Hz."""

    levels: NDArray[np.uint8]
    hop: int
    """Working-rate samples from one frame to the next; frame 0 is centred on sample 0."""
    top_hz: float

    @property
    def about(self) -> dict[str, Any]:
        """All but the levels, for JSON; `start`: the working-rate sample where the first column begins."""
        frames, bins = self.levels.shape
        return {
            "frames": frames,
            "bins": bins,
            "hop": self.hop,
            "start": -self.hop / 2,
            "top_hz": self.top_hz,
        }


@dataclass(frozen=True)
class SiteSound:
    """One sound of a site at the working rate."""

    samples: Samples
    """float32 (n,), ±1 full scale."""
    gain: float
    """What it is multiplied by for eye and ear; the same for raw and clean."""
    reference: float
    """Spectral power that is drawn as the highest level; the same for raw and clean."""
    bundle: str | None = None
    """Which bundle cleaned it; None for the raw sound."""
    exact: bool = True
    """False when the bundle that the exam names was not here and another one was used."""


@dataclass(frozen=True)
class SiteEcg:
    """The ECG beside a site's sound, at 360 Hz by name."""

    raw: Samples
    """float32 (n,), mV."""
    clean: Samples | None
    """Of the same length; None where no bundle here has a model for it."""
    peaks: Indices
    """Samples of the R peaks, int64 (m,)."""
    heart_rate_bpm: float | None
    bundle: str | None = None
    exact: bool = True


def _powers(x: Samples, hop: int) -> Floats:
    """Power spectra (frames, bins up to 800 Hz) of frames centred on multiples of `hop`."""
    frames = max(1, -(-len(x) // hop))
    padded = np.zeros(_FRAME + frames * hop, np.float32)
    padded[_FRAME // 2 : _FRAME // 2 + len(x)] = x
    window = np.hanning(_FRAME).astype(np.float32)
    found = np.empty((frames, _BINS), np.float32)
    views = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::hop][:frames]
    for first in range(0, frames, 256):
        spectrum = np.fft.rfft(views[first : first + 256] * window, _FFT)[:, :_BINS]
        found[first : first + 256] = spectrum.real**2 + spectrum.imag**2
    return found


def _hop_of(samples: int) -> int:
    return max(16, -(-samples // _MOST_FRAMES))


def spectrogram(x: Samples, reference: float) -> Spectrogram:
    """Short-time spectrum 0…800 Hz, 128-ms Hann windows. x: float32 (n,) at the working rate; `reference`:
    the power drawn as the highest level.
    """
    hop = _hop_of(len(x))
    level_db = 10.0 * np.log10(_powers(x, hop) / max(reference, 1e-20) + 1e-12)
    levels = np.clip((level_db + _RANGE_DB) / _RANGE_DB, 0.0, 1.0) * 255.0
    return Spectrogram(np.rint(levels).astype(np.uint8), hop, _TOP_HZ)


class Sounds:
    """Sounds of the exams in `store`. `bundle`: a folder to look at before those that are shipped.

    May be asked by several threads; each sound is computed once.
    """

    def __init__(self, store: Store, bundle: Path | None = None) -> None:
        self._store = store
        self._given = bundle
        self._cache = store.folder / "cache"
        self._busy: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._bundles: dict[str, tuple[Bundle, bool]] = {}
        self._make_room()

    # ---- bundles

    def bundle(self, version: str) -> tuple[Bundle, bool]:
        """The bundle of that version, or the newest there is; and whether it is the one asked for.
        StethopiError when there is none.
        """
        with self._lock:
            if version not in self._bundles:
                self._bundles[version] = self._find(version)
            return self._bundles[version]

    def _find(self, version: str) -> tuple[Bundle, bool]:
        given = bundles.load(self._given) if self._given is not None else None
        if given is not None and given.version == version:
            return given, True
        for folder in sorted(bundles.RELEASED.glob("*/bundle.json")):
            # the exam's word is compared with what is here, never used as a path
            if folder.parent.name == version:
                found = bundles.load(folder.parent)
                if found.version == version:
                    return found, True
        return (given or bundles.load()), False

    def thresholds(self, version: str) -> dict[str, Any] | None:
        """What the classifier of that bundle calls abnormal and undecided; None when it is not here."""
        found = self.nearest_thresholds(version)
        return found if found is not None and self.bundle(version)[1] else None

    def nearest_thresholds(self, version: str | None) -> dict[str, Any] | None:
        """The same, but those of the newest bundle where that version is not here or not known; None when
        there is none at all. For what is passing by: under a verdict that stays, only its own may stand.
        """
        try:
            bundle, _ = self.bundle(version or "")
            meta = bundle.model("classifier").meta
        except StethopiError:
            return None
        return {"threshold": meta.get("threshold"), "undecided": meta.get("undecided")}

    # ---- sounds

    def get(self, exam: str, site: str, kind: str, version: str) -> SiteSound | None:
        """The raw or clean sound of a site; None while its file is not here. `version`: the bundle that the
        exam names. StethopiError when it cannot be read or cleaned.
        """
        path = self._store.sound_path(exam, site)
        if path is None:
            return None
        raw = self._read(path)
        gain, reference = _loudness(raw)
        if kind == "raw":
            return SiteSound(raw, gain, reference)
        bundle, exact = self.bundle(version)
        entry = bundle.model("denoiser")
        cached = self._cache / exam / f"{site}-{_key(entry)}.npy"
        with self._alone(str(cached)):
            clean = _load(cached, len(raw))
            if clean is None:
                clean = _denoise(raw, entry)
                held = io.BytesIO()
                np.save(held, clean)
                self._keep(cached, held.getvalue())
        return SiteSound(clean, gain, reference, bundle.version, exact)

    def ecg(self, exam: str, site: str, track: EcgTrack, version: str) -> SiteEcg | None:
        """The ECG of a site as its exam describes it; None while its file is not here. `version`: the bundle
        that the exam names. StethopiError when it cannot be read or cleaned.
        """
        name = ecg_name(site)
        path = self._store.sound_path(exam, name)
        if path is None:
            return None
        raw = self._read(path, ECG_RATE_HZ) * np.float32(ECG_FULL_MV)
        gaps = [(a, b) for a, b in track.gaps if b <= len(raw)]
        bundle, exact = self.bundle(version)
        if "ecg" not in bundle.models:
            peaks = r_peaks(raw, ECG_RATE_HZ, gaps)
            return SiteEcg(raw, None, peaks, heart_rate_bpm(peaks, ECG_RATE_HZ))
        entry = bundle.model("ecg")
        cached = self._cache / exam / f"{name}-{_key(entry)}.npy"
        with self._alone(str(cached)):
            clean = _load(cached, len(raw))
            if clean is None:
                from device.ecg.track import clean_track

                clean = clean_track(raw, gaps, entry).astype(np.float32)
                held = io.BytesIO()
                np.save(held, clean)
                self._keep(cached, held.getvalue())
        peaks = r_peaks(clean, ECG_RATE_HZ, gaps)
        rate = heart_rate_bpm(peaks, ECG_RATE_HZ)
        return SiteEcg(raw, clean, peaks, rate, bundle.version, exact)

    def wav(
        self, exam: str, site: str, kind: str, version: str, strength: float = 1.0
    ) -> Path | bytes | None:
        """A WAV file that browsers play, 8 kHz, 16 bit; its path, or its bytes when it cannot be kept.

        strength: of the clean sound, as the denoiser's, in tenths: a browser can seek in files only, and so
        there are few of them.
        """
        from device.dsp.resample import upsample

        path = self._store.sound_path(exam, site)
        if path is None:
            return None
        key = "raw" if kind == "raw" else _key(self.bundle(version)[0].model("denoiser"))
        tenths = 10 if kind == "raw" else round(10 * strength)
        part = "" if tenths == 10 else f"-{tenths}"
        cached = self._cache / exam / f"{site}-{key}{part}-{PLAY_RATE_HZ}.wav"
        with self._alone(str(cached)):
            if cached.is_file():
                return cached
            sound = self.get(exam, site, kind, version)
            raw = sound if tenths == 10 else self.get(exam, site, "raw", version)
            if sound is None or raw is None:
                return None
            heard = sound.samples
            if tenths < 10:
                heard = raw.samples - np.float32(tenths / 10) * (raw.samples - sound.samples)
            length = len(heard) * PLAY_RATE_HZ // WORKING_RATE_HZ
            data = _wav_bytes(upsample(heard, PLAY_RATE_HZ, length) * sound.gain)
            return cached if self._keep(cached, data) else data

    @staticmethod
    def _read(path: Path, rate_hz: int = WORKING_RATE_HZ) -> Samples:
        import soundfile

        try:
            with soundfile.SoundFile(path) as file:
                if file.samplerate != rate_hz or file.frames > LONGEST_S * rate_hz:
                    raise StethopiError(
                        f"{path.name}: {file.frames / file.samplerate:.0f} s at {file.samplerate} Hz; "
                        f"shown are up to {LONGEST_S} s at {rate_hz} Hz. Download the FLAC"
                    )
                samples = file.read(dtype="float32", always_2d=True)[:, 0]
        except soundfile.SoundFileError as error:
            raise StethopiError(f"{path.name}: cannot be decoded ({error})") from None
        return np.ascontiguousarray(samples)

    def _keep(self, path: Path, data: bytes) -> bool:
        try:
            write_durably(path, data)
        except OSError as error:
            log.warning("cache %s: %s; computing it each time", path, error.strerror)
            return False
        with self._lock:
            self._cached += len(data)
            full = self._cached > MOST_CACHE_BYTES
        if full:
            self._make_room()
        return True

    def _make_room(self) -> None:
        """When the cache is full, its older half goes, never the newest file, which is about to be sent. All
        of it can be computed again.
        """
        with self._lock:
            files = []
            for path in self._cache.rglob("*"):
                try:
                    about = path.stat()
                except OSError:  # a temporary name that has just become the final one
                    continue
                if path.is_file():
                    files.append((about.st_mtime_ns, about.st_size, path))
            self._cached = sum(size for _, size, _ in files)
            if self._cached <= MOST_CACHE_BYTES:
                return
            for _, size, path in sorted(files)[:-1]:
                if self._cached <= MOST_CACHE_BYTES // 2:
                    break
                path.unlink(missing_ok=True)
                self._cached -= size

    def _alone(self, key: str) -> threading.Lock:
        with self._lock:
            return self._busy.setdefault(key, threading.Lock())


def _key(entry: ModelEntry) -> str:
    """Name of what this very model made: another file of the same version must not be taken for it."""
    return "clean-" + hashlib.sha256(str(entry.meta.get("sha256")).encode()).hexdigest()[:12]


def _load(path: Path, samples: int) -> Samples | None:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == (samples,) and found.dtype == np.float32 else None


def _denoise(raw: Samples, entry: ModelEntry) -> Samples:
    from device.denoise.stream import Denoiser

    stage = Denoiser(entry)
    return np.concatenate([stage.process(raw), stage.flush()]).astype(np.float32)


def _loudness(raw: Samples) -> tuple[float, float]:
    """(gain, reference power) from the raw sound, so that single clicks decide neither."""
    if not len(raw):
        return 1.0, 1.0
    peak = float(np.percentile(np.abs(raw), 99.8))
    reference = float(np.percentile(_powers(raw, _hop_of(len(raw))), 99.9))
    return min(_PEAK / peak, _MOST_GAIN) if peak > 0 else 1.0, reference


def _wav_bytes(x: Samples) -> bytes:
    import wave

    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(PLAY_RATE_HZ)
        file.writeframes((np.clip(x, -1.0, 1.0) * 32767.0).astype("<i2").tobytes())
    return held.getvalue()
