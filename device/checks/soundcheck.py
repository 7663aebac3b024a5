"""What is wrong with a microphone, told from a few seconds of its sound, and the remedy for what is wired.

    silence and deadness   the wrong channel, a dead microphone (all samples equal), too low a level
    words                  16 bits in 32-bit words, words that are aligned to the wrong end
    hum and supply noise   steady lines at the mains' frequency and its multiples, or elsewhere

Pure functions on all channels as they came from the card; `stethopi-device doctor` prints what they find. The
limits were set on synthetic microphones (tests/device/checks/test_soundcheck.py), not measured on hardware.

    python -I -m device.checks.soundcheck FILE     the same for a recording
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from device.arrays import Floats, Reals, Samples
from device.checks.figures.one_line import of_a_file

__all__ = [
    "HARDWARE",
    "LEAST_S",
    "Fault",
    "SoundcheckFinding",
    "Hardware",
    "examine",
    "hardware_of",
    "lines_in",
]

LEAST_S = 2.0
"""Seconds of sound below which hum cannot be told from a heart."""

SILENT_DB = -90.0
"""Rms of full scale under which a channel is silent: three steps of 16 bit."""
_OTHER_DB = 20.0
QUIET_DB = -72.0
"""Rms of full scale within 20 to 800 Hz under which nothing is at the chest piece, or it does not arrive."""
_CLIPPED_SHARE = 1e-3
_OFFSET = 0.4
_LINE_DB = 20.0
_HUM_SHARE = 0.2
_HUM_FLOOR_DB = -66.0
_BAND_HZ = (20.0, 800.0)
_HALF_WIDTH_HZ = 0.75
_AROUND_HZ = 6.0
_MULTIPLES = 10
_SIDES = ("left", "right")
_QUIET_SUPPLY = (
    "use another power supply, or a battery, and put 10 µF and 100 nF from 3.3 V to ground at the microphone"
)


class Fault(StrEnum):
    """What can be wrong."""

    TOO_SHORT = "too short"
    DEAD = "dead microphone"
    WRONG_CHANNEL = "wrong channel"
    SIXTEEN_BITS = "16 bits in 32-bit words"
    WRONG_END = "words aligned to the wrong end"
    TOO_LOW = "level too low"
    CLIPPED = "level too high"
    OFFSET = "large offset"
    HUM = "mains hum"
    SUPPLY = "supply noise"


@dataclass(frozen=True)
class SoundcheckFinding:
    """One fault: what was heard, and what to do about it."""

    fault: Fault
    says: str
    remedy: str
    serious: bool = True
    """An exam cannot be trusted with it."""


@dataclass(frozen=True)
class Hardware:
    """A microphone or codec, and what sets it up."""

    name: str
    cards: tuple[str, ...]
    """Parts of the names that its card may have."""
    overlay: tuple[str, ...]
    """Lines for /boot/firmware/config.txt."""
    strap: str
    """How its channel is chosen."""
    level: str
    """How it gets louder."""
    i2s: bool = True

    @property
    def lines(self) -> str:
        """What to write into config.txt, in words."""
        return " and ".join(self.overlay)

    @property
    def set_up(self) -> str:
        """What makes its card appear."""
        if not self.overlay:
            return "plug it into another port, and see whether arecord -l lists it"
        return (
            f"write {self.lines} into /boot/firmware/config.txt, reboot, and see whether arecord -l lists it"
        )


_MEMS = ("dtparam=i2s=on", "dtoverlay=googlevoicehat-soundcard")
_NO_GAIN = (
    "it has no gain of its own: check 3.3 V at VDD, the wires of SCK, WS and SD, and that nothing covers "
    "its hole but the tube of the chest piece"
)
HARDWARE = {
    "inmp441": Hardware(
        "INMP441", ("googlevoi", "inmp441"), _MEMS, "its pin L/R: to ground left, to 3.3 V right", _NO_GAIN
    ),
    "ics43434": Hardware(
        "ICS-43434", ("ics43434", "ics43432"), _MEMS, "its pin LR: to ground left, to 3.3 V right", _NO_GAIN
    ),
    "sph0645": Hardware(
        "SPH0645", ("sph0645", "i2smic"), _MEMS, "its pin SEL: to ground left, to 3.3 V right", _NO_GAIN
    ),
    "wm8960": Hardware(
        "WM8960",
        ("wm8960", "seeed2mic"),
        ("dtparam=i2c_arm=on", "dtparam=i2s=on", "dtoverlay=wm8960-soundcard"),
        "the side of the board on which the microphone is soldered",
        "raise Capture and the input boost: alsamixer -c wm8960soundcard, then F4, then alsactl store",
    ),
    "usb": Hardware(
        "USB sound card",
        ("usb",),
        (),
        "most have one microphone, on left",
        "raise Mic and switch Auto Gain Control off: alsamixer, F6 for the card, F4, then alsactl store",
        i2s=False,
    ),
}
_UNKNOWN = Hardware(
    "microphone",
    (),
    _MEMS,
    "its pin for left and right",
    "raise it: alsamixer, F6 for the card, F4, then alsactl store",
    i2s=False,
)


def hardware_of(setting: str, card: str) -> Hardware:
    """What is wired: what `[source] hardware` names, or, for auto, what the card's name tells."""
    if setting != "auto":
        return HARDWARE[setting]
    name = card.casefold()
    for hardware in HARDWARE.values():
        if any(part in name for part in hardware.cards):
            return hardware
    return _UNKNOWN


def _db(power: float) -> float:
    return 10.0 * float(np.log10(max(power, 1e-20)))


def _level_db(x: Floats) -> float:
    """Rms around the mean, dB of full scale."""
    return _db(float(np.var(x, dtype=np.float64)))


@dataclass(frozen=True)
class SoundcheckLine:
    """A steady tone."""

    hz: float
    db: float
    """Rms of full scale."""
    above_db: float
    """Over what lies beside it."""


def _spectrum(x: Floats, rate_hz: int) -> tuple[Reals, Reals]:
    """(frequencies, power of each bin) of sound, float (n,); the bins' powers add up to its mean square."""
    n = len(x)
    window = np.hanning(n)
    power = np.abs(np.fft.rfft((x - x.mean(dtype=np.float64)) * window)) ** 2
    return np.fft.rfftfreq(n, 1.0 / rate_hz), 2.0 * power / (n * float(np.sum(window**2)))


def lines_in(x: Floats, rate_hz: int, low_hz: float = 20.0, high_hz: float = 8000.0) -> list[SoundcheckLine]:
    """Steady tones in sound, float (n,) of two seconds or more: narrow, and the same in both its halves.

    A heart's own lines, one each 0.7 to 4 Hz, lie too close to stand 20 dB over their neighbours.
    """
    hz, power = _spectrum(x, rate_hz)
    step = hz[1]
    near, around = max(round(_HALF_WIDTH_HZ / step), 2), round(_AROUND_HZ / step)
    halves = [_spectrum(part, rate_hz) for part in np.array_split(x, 2)]
    found: list[SoundcheckLine] = []
    first, last = np.searchsorted(hz, (low_hz, min(high_hz, hz[-1] - _AROUND_HZ)))
    peaks = first + np.flatnonzero(
        (power[first:last] > power[first - 1 : last - 1]) & (power[first:last] >= power[first + 1 : last + 1])
    )
    for at in peaks[np.argsort(power[peaks])[::-1][:60]]:
        if any(abs(line.hz - hz[at]) < _AROUND_HZ for line in found):
            continue
        beside = np.concatenate([power[max(at - around, 0) : at - near], power[at + near + 1 : at + around]])
        line = float(power[max(at - near, 0) : at + near + 1].sum())
        floor = float(np.mean(beside)) * (2 * near + 1)
        above = _db(line) - _db(floor)
        if above < _LINE_DB:
            continue
        steady = [
            _db(float(p[np.abs(f - hz[at]) <= 2 * _HALF_WIDTH_HZ].sum())) - _db(line) for f, p in halves
        ]
        if max(map(abs, steady)) < 4.0:
            found.append(SoundcheckLine(float(hz[at]), _db(line), above))
    return sorted(found, key=lambda line: line.hz)


def _multiples(lines: list[SoundcheckLine], base_hz: float) -> list[SoundcheckLine]:
    return [
        line
        for line in lines
        if (number := round(line.hz / base_hz)) in range(1, _MULTIPLES + 1)
        and abs(line.hz - number * base_hz) < 0.25 + 0.004 * number * base_hz
    ]


def _hum(x: Floats, rate_hz: int) -> list[SoundcheckFinding]:
    lines = lines_in(x, rate_hz)
    hz, power = _spectrum(x, rate_hz)
    whole = float(power[(hz >= _BAND_HZ[0]) & (hz <= _BAND_HZ[1])].sum())
    found = []
    mains = max((_multiples(lines, base) for base in (50.0, 60.0)), key=lambda f: sum(_power(v) for v in f))
    total = sum(map(_power, mains))
    if mains and _db(total) > _HUM_FLOOR_DB and total > _HUM_SHARE * whole:
        base = 50.0 if mains == _multiples(lines, 50.0) else 60.0
        numbers = [round(line.hz / base) for line in mains]
        odd = sum(_power(line) for line, number in zip(mains, numbers, strict=True) if number % 2)
        says = f"{', '.join(f'{line.hz:.0f}' for line in mains)} Hz at {_db(total):.0f} dB of full scale"
        if odd > 0.1 * total:
            found.append(
                SoundcheckFinding(
                    Fault.HUM,
                    f"mains hum: {says}",
                    "run on a battery, keep away from cables and lamps, and use a shielded wire with its "
                    "shield to ground at the Pi only",
                )
            )
        else:
            found.append(
                SoundcheckFinding(
                    Fault.SUPPLY,
                    f"ripple of the supply: {says}",
                    _QUIET_SUPPLY,
                )
            )
    rest = [line for line in lines if line not in _multiples(lines, 50.0) + _multiples(lines, 60.0)]
    loud = sum(map(_power, rest))
    if rest and _db(loud) > _HUM_FLOOR_DB:
        shown = ", ".join(f"{line.hz:.0f}" for line in sorted(rest, key=_power, reverse=True)[:4])
        found.append(
            SoundcheckFinding(
                Fault.SUPPLY,
                f"steady whine at {shown} Hz, {_db(loud):.0f} dB of full scale",
                f"{_QUIET_SUPPLY}; keep its wires short and away from the Pi's USB ports",
            )
        )
    return found


def _power(line: SoundcheckLine) -> float:
    return float(10.0 ** (line.db / 10.0))


def _on_grid(x: Floats, bits: int) -> bool:
    """Whether all samples are whole steps of so many bits."""
    scaled = x.astype(np.float64) * 2.0 ** (bits - 1)
    return bool(np.array_equal(scaled, np.rint(scaled)))


def examine(
    frames: Samples,
    rate_hz: int,
    *,
    channel: int = 0,
    hardware: Hardware = _UNKNOWN,
    words: str = "",
) -> list[SoundcheckFinding]:
    """What is wrong, the worst first; nothing when all is well.

    frames: float32 (n, channels) as they came, ±1 full scale, two seconds or more. channel: the one that is
    listened to. words: format that the card was set to (S32_LE …), where it is known.
    """
    frames = np.asarray(frames, np.float32)
    if frames.ndim == 1:
        frames = frames[:, None]
    if len(frames) < LEAST_S * rate_hz:
        got = len(frames) / rate_hz
        says = f"{got:.1f} s of sound came, {LEAST_S:g} are needed"
        return [SoundcheckFinding(Fault.TOO_SHORT, says, "listen for longer")]
    frames = frames[len(frames) // 10 :]  # a MEMS microphone wakes up with a thump
    channel = min(channel, frames.shape[1] - 1)
    x = frames[:, channel]
    level = _level_db(x)
    wide = words in ("S32_LE", "S24_LE", "S24_3LE") or (not words and hardware.i2s)
    silent = _on_its_own(frames, channel, level, hardware, wide)
    if silent is not None:
        return [silent]
    found = []
    if wide and _on_grid(x, 16):
        found.append(
            SoundcheckFinding(
                Fault.SIXTEEN_BITS,
                "the lower half of each 32-bit word is empty: 16 bits, where the microphone gives 24",
                f"{_overlay(hardware)}; take the card itself, no plug or dsnoop of /etc/asound.conf: "
                f'[source] spec = "arecord:NAME"',
            )
        )
    clipped = float(np.mean(np.abs(x) >= 1.0 - 2.0**-12))
    if clipped > _CLIPPED_SHARE:
        found.append(
            SoundcheckFinding(
                Fault.CLIPPED,
                f"{100 * clipped:.1f} % of the samples are at full scale",
                "lower the capture gain: alsamixer, F6 for the card, F4, then alsactl store",
            )
        )
    offset = float(x.mean(dtype=np.float64))
    if abs(offset) > _OFFSET:
        found.append(
            SoundcheckFinding(
                Fault.OFFSET,
                f"an offset of {offset:+.2f} of full scale leaves little room (it is taken out)",
                "check the supply and the ground of the microphone; an SPH0645 has some, but not so much",
                serious=False,
            )
        )
    hz, power = _spectrum(x, rate_hz)
    heart_db = _db(float(power[(hz >= _BAND_HZ[0]) & (hz <= _BAND_HZ[1])].sum()))
    if heart_db < QUIET_DB:
        found.append(
            SoundcheckFinding(
                Fault.TOO_LOW,
                f"{heart_db:.0f} dB of full scale within 20 to 800 Hz, at least {QUIET_DB:.0f} are needed",
                f"tap the chest piece while this runs; if that is no louder: {hardware.level}",
                serious=False,
            )
        )
    else:
        found += _hum(x, rate_hz)
    return found


def _overlay(hardware: Hardware) -> str:
    if not hardware.overlay:
        return "choose the card's 24- or 32-bit mode"
    return f"check {hardware.lines} in /boot/firmware/config.txt"


def _on_its_own(
    frames: Samples, channel: int, level: float, hardware: Hardware, wide: bool
) -> SoundcheckFinding | None:
    """A channel without sound: the other one, or a dead microphone."""
    x = frames[:, channel]
    if level > SILENT_DB:
        return None
    others = [(_level_db(frames[:, c]), c) for c in range(frames.shape[1]) if c != channel]
    loud, other = max(others, default=(-np.inf, -1))
    if loud > max(SILENT_DB, level + _OTHER_DB):
        return SoundcheckFinding(
            Fault.WRONG_CHANNEL,
            f"the {_SIDES[channel]} channel is silent, the {_SIDES[other]} one has sound "
            f"({loud:.0f} dB of full scale)",
            f'set [source] channel = "{_SIDES[other]}", or change {hardware.strap}',
        )
    if float(x.max()) == float(x.min()):
        return SoundcheckFinding(
            Fault.DEAD,
            f"all samples are equal ({float(x[0]):g}): nothing is connected, or it is dead",
            f"check its wires and its supply; the channel is chosen by {hardware.strap}; {hardware.set_up}",
        )
    peak = float(np.abs(x).max())
    if wide and peak < 2.0**-15 and not _on_grid(x, 24):
        return SoundcheckFinding(
            Fault.WRONG_END,
            f"the upper half of each 32-bit word is empty (peak {peak:.1e} of full scale)",
            f"{_overlay(hardware)}; take the card itself, no plug or dsnoop of /etc/asound.conf: "
            f'[source] spec = "arecord:NAME"',
        )
    return SoundcheckFinding(
        Fault.TOO_LOW,
        f"next to silence: {level:.0f} dB of full scale",
        f"tap the chest piece while this runs; if that is no louder: {hardware.level}",
    )


@of_a_file("soundcheck")
def main(path: str) -> int:
    from device.sources.files import read_sound

    sound = read_sound(path)
    found = examine(sound.samples, sound.rate_hz, words=f"S{sound.bits}_LE")
    for finding in found:
        print(f"{finding.fault}: {finding.says}; {finding.remedy}")
    if not found:
        print("nothing is wrong with this sound")
    return 1 if any(finding.serious for finding in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())
