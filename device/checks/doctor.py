"""`stethopi-device doctor`: what is there, what is missing, the remedy.

Each finding is one line: ok, note (fine, but worth knowing) or BAD with what to do. The models are proved by
the bundle's stored vectors: a machine that computes wrongly is told so (DESIGN §4).
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device.errors import StethopiError

if TYPE_CHECKING:
    from device.arrays import Samples
    from device.settings.settings import Settings

__all__ = ["BAD", "GOOD", "NOTE", "Check", "checks", "model_checks", "run", "show"]

GOOD, NOTE, BAD = "ok", "note", "bad"

_LEAST_FREE_MB = 200
_LEAST_VECTOR_DB = 30.0
_LISTEN_S = 4.0


@dataclass(frozen=True)
class Check:
    """One finding. `state`: ok, note or bad; `remedy` says what to do about the last two."""

    name: str
    state: str
    says: str
    remedy: str = ""


def _python() -> Iterator[Check]:
    from importlib import metadata

    yield Check("python", GOOD, sys.version.split()[0])
    for package in ("numpy", "soundfile", "paho-mqtt"):
        try:
            yield Check(package, GOOD, metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Check(package, BAD, "is missing", "run: pip install 'stethopi[device]'")


def model_checks(path: Path | None = None, state_dir: Path | None = None) -> Iterator[Check]:
    """Interpreter, bundle, and whether this machine computes what the bundle's stored vectors say."""
    import numpy as np

    from device.denoise.stream import vector_difference_db
    from device.inference import bundle as bundles
    from device.inference.interpreter import runtime_name
    from device.screening.screen import Int8Network

    yield Check("interpreter", GOOD, runtime_name())
    bundle = bundles.load(path, state_dir)
    yield Check("bundle", GOOD, f"{bundle.version} in {bundle.folder}, all hashes fit")
    wrong = "this machine computes wrongly; set STETHOPI_RUNTIME to the other interpreter, or reinstall it"
    vectors, entry = bundle.vectors(), bundle.model("classifier")
    # a stethoscope cannot do without these two; whatever else streams in the bundle is checked as well
    for model in ("denoiser", *(m for m in bundle.models if m != "denoiser" and f"{m}/y" in vectors)):
        found_db = vector_difference_db(bundle, model)
        says = f"stored vector comes out {found_db:.0f} dB above its error (at least {_LEAST_VECTOR_DB:.0f})"
        fine = found_db >= _LEAST_VECTOR_DB
        # `ecg` alone is the lead's own check
        yield Check(
            {"ecg": "ecg model"}.get(model, model), GOOD if fine else BAD, says, "" if fine else wrong
        )
    network = Int8Network(entry)
    found = np.stack([network(x) for x in vectors["classifier/x"]])
    worst = float(np.abs(found - vectors["classifier/logits"]).max())
    # two interpreters differ in the last bits: a few steps of the output's scale
    most = 4.0 * float(entry.meta["outputs"][0]["scale"])
    fine = worst <= most
    says = f"{len(found)} stored windows come out within {worst:.2g} (at most {most:.2g})"
    yield Check("classifier", GOOD if fine else BAD, says, "" if fine else wrong)


def _source(settings: Settings) -> Iterator[Check]:
    from device.settings.specs import is_live
    from device.sources import open_source

    chosen = settings.source
    try:
        source = open_source(chosen.spec, pace="fast", rate_hz=chosen.rate_hz, channel=chosen.channel)
        if is_live(chosen.spec):
            yield from _microphone(source, settings)
            return
        try:
            source.start()
            block = source.read()
        finally:
            source.stop()
    except StethopiError as error:
        yield _bad("source", error)
        if is_live(chosen.spec):
            yield _wired(settings)
        return
    name = f"{source.name} at {source.rate_hz} Hz"
    if block is None or not len(block.samples):
        yield Check("source", BAD, f"{name} gives no sound", "choose another [source] spec")
    else:
        yield Check("source", GOOD, name)


def _wired(settings: Settings) -> Check:
    """What makes a card appear that is not there, for what is wired."""
    from device.checks.soundcheck import HARDWARE
    from device.sources.alsa import cards

    there = ", ".join(f'"{card.name}"' for card in cards()) or "none"
    chosen = settings.source.hardware
    if chosen == "auto":
        kinds = ", ".join(HARDWARE)
        return Check(
            "sound cards",
            NOTE,
            f"the machine has {there}",
            f"set [source] hardware to what is wired ({kinds}): then this says what sets it up",
        )
    hardware = HARDWARE[chosen]
    says = f"the machine has {there}; [source] hardware is {hardware.name}"
    return Check("sound cards", NOTE, says, hardware.set_up)


def _microphone(source: Any, settings: Settings) -> Iterator[Check]:
    """Some seconds of a microphone: what the card was set to, whether samples are missing, what is wrong with
    the sound.
    """
    import numpy as np

    from device.checks import soundcheck
    from device.sources import alsa
    from device.sources.capture import CHANNELS

    frames: list[Samples] = []
    source.on_frames = frames.append
    lost = heard = 0
    first_s: float | None = None
    last_s = 0.0
    running: list[alsa.HwParams] = []
    try:
        source.start()
        while sum(map(len, frames)) < _LISTEN_S * source.rate_hz:
            block = source.read()
            if block is None:
                break
            # the first pieces may have waited in the card
            if sum(map(len, frames)) > 0.5 * source.rate_hz:
                first_s = block.monotonic_s if first_s is None else first_s
                if block.monotonic_s > first_s:
                    heard += len(block.samples)
                    lost += block.lost
                last_s = block.monotonic_s
            running = alsa.capturing() or running
    finally:
        source.stop()
    setup = getattr(source, "setup", None) or (running[0] if len(running) == 1 else None)
    hardware = soundcheck.hardware_of(settings.source.hardware, source.name)
    name = f"{source.name} at {source.rate_hz} Hz"
    if not frames:
        yield Check("source", BAD, f"{name} gives no sound", "unplug it and plug it in again")
        return
    if setup is not None and hardware.i2s and setup.format not in ("S32_LE", "S24_LE"):
        yield Check(
            "source",
            BAD,
            f"the card is set to {setup}; {hardware.name} gives its sound in S32_LE alone",
            f'check {hardware.lines} in /boot/firmware/config.txt, and set [source] spec = "arecord:NAME"',
        )
    took_s = last_s - (first_s or 0.0)
    if lost or (first_s is not None and abs(heard / source.rate_hz - took_s) > 0.1 + 0.02 * took_s):
        yield Check(
            "source",
            BAD,
            f"{heard} samples in {took_s:.2f} s by the clock, {lost} known to be lost",
            "end what else is busy on this machine, use another USB port, or a lower [source] rate_hz",
        )
    found = soundcheck.examine(
        np.concatenate(frames),
        source.rate_hz,
        channel=CHANNELS.index(settings.source.channel),
        hardware=hardware,
        words=setup.format if setup else "",
    )
    for finding in found:
        yield Check("source", BAD if finding.serious else NOTE, finding.says, finding.remedy)
    if not any(finding.serious for finding in found):
        peak = max(float(np.abs(piece).max()) for piece in frames)
        told = f" ({setup})" if setup is not None else ""
        yield Check("source", GOOD, f"{name}{told}, peak {peak:.4f}")


def _listen(settings: Settings) -> Iterator[Check]:
    kind, _, name = settings.listen.output.partition(":")
    if kind != "device":
        yield Check("listen", GOOD, settings.listen.output)
        return
    from device.sources.portaudio import find_device, open_portaudio

    audio = open_portaudio("sound output")
    try:
        yield Check("listen", GOOD, f"output {find_device(audio, name, 'output')['name']}")
    finally:
        audio.terminate()


def _panel(settings: Settings) -> Iterator[Check]:
    if settings.panel.kind != "gpio":
        yield Check("panel", GOOD, f'kind = "{settings.panel.kind}": no pins are used')
        return
    from device.panel.panels import open_panel

    panel = open_panel(settings.panel)
    panel.start()
    panel.stop()
    yield Check("panel", GOOD, "button and lights answer at their pins")


def _ecg(settings: Settings) -> Iterator[Check]:
    """A second and a half of the lead: is it taken in time, and is it on."""
    from device.ecg.lead import Watch
    from device.ecg.sources import open_ecg

    lead = open_ecg(settings.ecg)
    if lead is None:
        return
    lead.start()
    try:
        watch, taken, missed = Watch(lead.rate_hz, lead.rails_mv), 0, 0
        while taken < 1.5 * lead.rate_hz and (block := lead.read()) is not None:
            watch.accept(block.samples, block.index, block.off)
            taken, missed = taken + len(block.samples), missed + block.lost
    finally:
        lead.stop()
    if watch.state != "on":
        remedy = "fix the electrodes, then the wires: see docs/ecg-lead.md"
        yield Check("ecg", NOTE, f"{lead.name}: {watch.state}", remedy)
    else:
        yield Check("ecg", GOOD, f"{lead.name} at {lead.rate_hz} Hz, {missed} samples missed")


def _broker(settings: Settings) -> Iterator[Check]:
    from device.daemon.from_settings import broker_of
    from device.delivery.link import broker_answers

    broker = broker_of(settings)
    if broker is None:
        yield Check(
            "broker", NOTE, "none is set: exams wait in the outbox", "set [mqtt] host to deliver them"
        )
        return
    version, why = broker_answers(broker)
    if version is None:
        yield Check("broker", BAD, f"{broker}: {why}", "start it, or correct host, port and user in [mqtt]")
    else:
        yield Check("broker", GOOD, f"{broker} speaks MQTT {'5' if version == 5 else '3.1.1'}")


def _clock(settings: Settings) -> Iterator[Check]:
    from device.clock import ClockTrust, SystemClock

    trust = SystemClock().trust()
    if trust is ClockTrust.SYNCHRONISED:
        yield Check("clock", GOOD, "kept by a time server")
    elif trust is ClockTrust.SET:
        yield Check("clock", NOTE, "set, but no time server stands behind it", "see: timedatectl status")
    else:
        yield Check(
            "clock",
            NOTE,
            "was never set; exams carry the time since the start",
            "give it a network or an RTC",
        )


def _writable(folder: Path) -> Path | None:
    """The folder, or the nearest above that exists; None when it cannot be written."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK) else None


def _disk(settings: Settings) -> Iterator[Check]:
    state = settings.device.state_dir
    place = _writable(state)
    if place is None:
        yield Check(
            "disk", BAD, f"{state} cannot be written", "give its owner the right, or set [device] state_dir"
        )
        return
    free_mb = shutil.disk_usage(place).free / 1e6
    says = f"{state}: {free_mb / 1000:.1f} GB free"
    if free_mb < _LEAST_FREE_MB:
        yield Check("disk", BAD, f"{state}: {free_mb:.0f} MB free", _what_may_go(state / "outbox"))
    else:
        yield Check("disk", GOOD, says)


def _what_may_go(outbox: Path) -> str:
    """What makes room on a full card, largest first: nothing that waits for its delivery."""
    places = [
        (outbox / "sound" / "partial", "recordings that were cut off"),
        (outbox / "quarantine", "what is left of damaged ones"),
    ]
    sizes = [
        (sum(f.stat().st_size for f in place.rglob("*") if f.is_file()), place, what)
        for place, what in places
    ]
    told = [
        f"{what} in {place} ({size / 1e6:.0f} MB)"
        for size, place, what in sorted(sizes, reverse=True)
        if size
    ]
    told.append("old logs (journalctl --vacuum-size=50M)")
    return (
        f"no exam begins without room: delete {', '.join(told)}; sounds that were delivered go by themselves"
    )


def _outbox(settings: Settings) -> Iterator[Check]:
    from device.daemon.from_settings import plan_of

    folder = settings.device.state_dir / "outbox"
    path = folder / "outbox.sqlite"
    if not path.exists():
        yield Check("outbox", GOOD, "empty: no exam was recorded yet")
        return
    try:
        # the daemon may be at work: look only
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
        try:
            rows = db.execute("SELECT state, count(*), total(bytes) FROM exams GROUP BY state").fetchall()
        finally:
            db.close()
    except sqlite3.Error as error:
        yield Check("outbox", BAD, f"{path}: {error}", "start the daemon: it keeps a damaged one apart")
        return
    counts = {state: count for state, count, _ in rows}
    waiting, delivered = counts.get("waiting", 0), counts.get("delivered", 0)
    kept = sum(size for state, _, size in rows if state != "delivered")
    quota = settings.outbox.quota_mb * 1_000_000
    if quota and kept + plan_of(settings).most_bytes > quota:
        yield Check(
            "outbox",
            BAD,
            f"{waiting} waiting use up [outbox] quota_mb = {settings.outbox.quota_mb}: no exam begins",
            "bring it to its network until they are delivered, or raise quota_mb",
        )
    else:
        yield Check("outbox", GOOD, f"{waiting} waiting, {delivered} delivered")
    for state, remedy in (
        ("refused", "the host's log says why"),
        ("torn", f"what is left of them is in {folder / 'quarantine'}"),
    ):
        if counts.get(state):
            yield Check("outbox", NOTE, f"{counts[state]} {state}", remedy)
    partial = folder / "sound" / "partial"
    if partial.is_dir() and (cut := sum(1 for _ in partial.iterdir())):
        yield Check(
            "outbox", NOTE, f"{cut} recordings that were cut off are kept in {partial}", "listen, then delete"
        )


def checks(config: Path | None = None) -> Iterator[Check]:
    """Every finding, one after the other; a check that fails in an unforeseen way is a finding too."""
    from device.settings.settings import Settings

    try:
        settings = Settings.load(config)
    except StethopiError as error:
        yield _bad("settings", error)
        settings = Settings()
    else:
        yield Check("settings", GOOD, str(config) if config else "the defaults")
    parts: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("python", _python),
        ("models", lambda: model_checks(settings.bundle.path, settings.device.state_dir)),
        ("source", lambda: _source(settings)),
        ("listen", lambda: _listen(settings)),
        ("panel", lambda: _panel(settings)),
        ("ecg", lambda: _ecg(settings)),
        ("broker", lambda: _broker(settings)),
        ("clock", lambda: _clock(settings)),
        ("disk", lambda: _disk(settings)),
        ("outbox", lambda: _outbox(settings)),
    ]
    for name, part in parts:
        try:
            yield from part()
        except ImportError as error:
            yield Check(name, BAD, f"{error.name or error} is missing", "run: pip install 'stethopi[device]'")
        except StethopiError as error:
            yield _bad(name, error)


def _bad(name: str, error: StethopiError) -> Check:
    text = str(error)
    # what, where; remedy. Or, of settings: file: [section] key: what. Remedy.
    says, mark, remedy = text.rpartition("; ") if "; " in text else text.partition(". ")
    return Check(name, BAD, says or text, remedy if mark else "")


def show(check: Check, width: int = 12) -> str:
    """One line for the terminal; `width`: of the longest name."""
    mark = {GOOD: "ok  ", NOTE: "note", BAD: "BAD "}[check.state]
    return f"{mark}  {check.name:<{width}} {check.says}" + (f"; {check.remedy}" if check.remedy else "")


def run(config: Path | None = None, *, as_json: bool = False) -> int:
    """Print every finding; 0 when all that is needed works, else 1."""
    found: list[Check] = []
    for check in checks(config):
        found.append(check)
        if not as_json:
            print(show(check), flush=True)
    bad = sum(check.state == BAD for check in found)
    if as_json:
        print(json.dumps({"ok": not bad, "checks": [asdict(check) for check in found]}, indent=2))
    elif bad:
        print(f"{bad} of {len(found)} checks failed; the line of each says what to do")
    else:
        print("everything that is needed is there; try: stethopi-device exam --source synthetic")
    return 1 if bad else 0
