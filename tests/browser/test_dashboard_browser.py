"""The dashboard in a real browser: an exam runs, its sound moves, the verdict comes, both sounds play.

STETHOPI_PICTURE=1 python -m pytest -m browser      also writes docs/dashboard.png, the README's picture
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.contract.exam import Finding
from device.contract.live import LiveQuality, LiveWindow
from device.contract.topics import Topic
from device.contract.vocabulary import chunk_span
from device.daemon.daemon import Daemon as DeviceDaemon
from device.inference import bundle as bundles
from device.screening import quality
from device.settings.settings import Settings
from device.sources.files import read_sound, write_sound
from host.commands.demo import Stethoscope
from host.commands.serve import Host
from host.store.arrivals import Arrivals
from tests.browser.pages import (
    WAIT_MS,
    changes,
    fits,
    inked,
    moves,
    new_page,
    painted,
    unnamed,
    until,
    watched,
)
from tests.device.exams import make_exam
from tests.host.arrivals import beats, flac, put
from tests.process.programs import Daemon

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def tended(stethoscope: Stethoscope) -> Iterator[None]:
    """The stethoscope, kept going in a thread while the browser is driven."""
    ended = threading.Event()

    def tend() -> None:
        while not ended.wait(0.1):
            stethoscope.tend()

    thread = threading.Thread(target=tend, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        stethoscope.stop()


def in_noise(recording: Path, target: Path) -> Path:
    """The recording 8 dB over noise of a waiting room's kind: falling by 6 dB an octave from 100 Hz."""
    heard = read_sound(recording)
    white = np.fft.rfft(np.random.default_rng(7).standard_normal(len(heard.samples)))
    hz = np.fft.rfftfreq(len(heard.samples), 1 / heard.rate_hz)
    noise = np.fft.irfft(white / np.maximum(hz / 100.0, 1.0), len(heard.samples))
    noise *= np.std(heard.samples) / np.std(noise) * 10 ** (-8 / 20)
    mixed = (heard.samples + noise).astype(np.float32)
    write_sound(target, mixed * np.float32(0.9 / np.abs(mixed).max()), heard.rate_hz, heard)
    return target


def audio(page: Any, kind: str) -> dict[str, Any]:
    return dict(
        page.evaluate(
            """kind => {
                const audio = document.querySelector(`audio[data-kind=${kind}]`);
                return { at: audio.currentTime, muted: audio.muted, paused: audio.paused };
            }""",
            kind,
        )
    )


def hears(page: Any, kind: str, after: float) -> None:
    """Wait until the player of `kind` sounds and has come past `after` seconds."""
    page.wait_for_function(
        """([kind, after]) => {
            const audio = document.querySelector(`audio[data-kind=${kind}]`);
            return !audio.muted && !audio.paused && audio.currentTime > after;
        }""",
        arg=[kind, after],
        timeout=WAIT_MS,
    )


def test_an_exam_runs_before_the_eyes_and_can_be_heard(
    host: Host,
    chromium: Any,
    murmur_recording: Path,
    normal_recording: Path,
    tmp_path: Path,
) -> None:
    noisy = in_noise(normal_recording, tmp_path / "noisy.wav")
    hears_in_turn = itertools.cycle([f"file:{murmur_recording}", f"file:{noisy}"])
    stethoscope = Stethoscope(hears_in_turn, host.broker_address, tmp_path / "stethoscope", pause_s=1.0)
    page = new_page(chromium)
    wrong = watched(page, host.url)
    page.goto(host.url)
    page.get_by_text("No exams yet").wait_for()
    page.get_by_text("No exam is running").wait_for()
    assert page.get_by_text("It screens; it does not diagnose. Not a medical device.").is_visible()

    # two other stethoscopes deliver: one exam each, as fast as it goes
    for number, source in enumerate((f"file:{normal_recording}", "synthetic:noise_db=-20,seconds=12")):
        folder = tmp_path / f"other-{number}"
        folder.mkdir()
        other = Daemon(folder, host.broker_address.port, source, device=f"clinic-{number + 1}")
        other.start()
        assert other.process is not None and other.process.wait(WAIT_MS / 1000) == 0, other.says()
    page.wait_for_function("() => document.querySelectorAll('.exam-row[data-status=complete]').length === 2")

    with tended(stethoscope):
        # the exam appears by itself, and its sound moves
        page.locator(".live").wait_for()
        page.wait_for_function("() => document.querySelector('.live h3').textContent === 'demo-stethoscope'")
        for lane in (".live .lane:nth-child(1) canvas", ".live .lane:nth-child(2) canvas"):
            moves(page, lane)
        page.locator(".device[data-online=true]").wait_for()

        # then the exam is in the list, whole, with a verdict in words
        row = page.locator(".exam-row[data-status=complete]", has_text="demo-stethoscope").first
        row.wait_for()
        assert row.locator(".verdict").inner_text() in ("Normal", "Abnormal", "Unsure")

        # the README's picture: the second exam running over the first one's row
        page.wait_for_function("() => document.querySelectorAll('.live:not(.ended) .windows i').length >= 4")
        shot = tmp_path / "dashboard.png"
        page.screenshot(path=str(shot))
        assert shot.stat().st_size < 300_000
        if os.environ.get("STETHOPI_PICTURE"):
            (ROOT / "docs").mkdir(exist_ok=True)
            (ROOT / "docs" / "dashboard.png").write_bytes(shot.read_bytes())
        assert unnamed(page) == []

        exam = row.get_attribute("data-exam")
        row.click()

    # the page of the exam says what the exam says
    page.locator(".result h1").wait_for()
    with urllib.request.urlopen(f"{host.url}/api/exams/{exam}") as answer:
        told = json.load(answer)
    assert page.locator(".result h1").inner_text().lower() == told["label"]
    shown = page.locator(".scale-head strong").inner_text()
    assert shown == ("unknown" if told["probability"] is None else f"{told['probability']:.2f}")
    assert page.get_by_text("A doctor listens and decides.").is_visible()
    assert page.locator(".figures tbody tr").count() == len(told["latency"])

    # waveforms and spectrograms are drawn
    page.locator(".site-foot").get_by_text("Denoised with bundle").wait_for()
    for name in ("raw-wave", "clean-wave", "raw-spec", "clean-spec"):
        kind, what = name.split("-")
        painted(page, f".lane[data-kind={kind}][data-what={what}] canvas")

    # both sounds play, and the switch keeps the place
    page.get_by_role("button", name="Play").click()
    hears(page, "clean", 0.4)
    assert audio(page, "raw")["muted"] is True
    before = audio(page, "clean")["at"]
    page.get_by_role("button", name="Raw", exact=True).click()
    hears(page, "raw", before)
    assert audio(page, "clean")["muted"] is True
    hears(page, "raw", before + 0.4)
    assert page.locator(".time").inner_text() != "0:00.0 / 0:09.3"
    page.get_by_role("button", name="Pause").click()
    assert audio(page, "raw")["paused"] and audio(page, "clean")["paused"]

    # at half the strength, another sound at the same place
    page.get_by_role("button", name="Play").click()
    before = audio(page, "raw")["at"]
    page.get_by_role("slider", name="Strength of denoising").fill("0.5")
    page.wait_for_function(
        "() => document.querySelector('audio[data-kind=clean]').src.endsWith('strength=0.5')"
    )
    hears(page, "clean", before)
    assert abs(audio(page, "clean")["at"] - audio(page, "raw")["at"]) < 1.5
    assert audio(page, "raw")["muted"] and page.locator("audio[data-kind=clean]").count() == 1
    page.get_by_role("button", name="Pause").click()

    # the keyboard does the same
    page.locator(".view").focus()
    page.keyboard.press("d")
    assert page.get_by_role("button", name="Denoised", exact=True).get_attribute("aria-pressed") == "true"
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert abs(audio(page, "clean")["at"] - 1.0) < 0.05
    wave = ".lane[data-kind=raw][data-what=wave] canvas"
    whole = painted(page, wave)
    page.keyboard.press("+")
    changes(page, wave, whole)
    page.keyboard.press("0")
    until(page, lambda: inked(page, wave) == whole, "the whole site again")
    page.keyboard.press(" ")
    hears(page, "clean", 1.2)

    assert unnamed(page) == []
    with page.expect_download() as download:
        page.get_by_text("FLAC, as recorded").click()
    with urllib.request.urlopen(f"{host.url}/sounds/{exam}/MV.flac") as answer:
        assert Path(download.value.path()).read_bytes() == answer.read()
    assert wrong == []
    page.close()


def test_a_live_window_has_the_colour_that_its_bundle_gives_it(host: Host, chromium: Any) -> None:
    assert host.hub is not None
    meta = bundles.load().model("classifier").meta
    low, high = meta["undecided"]
    shown = {"": low - 0.01, "unsure": (low + high) / 2, "over": high + 0.01}
    page = new_page(chromium)
    wrong = watched(page, host.url)
    page.goto(host.url)
    page.get_by_text("connected", exact=True).wait_for()
    exam = make_exam().id
    for n, probability in enumerate(shown.values()):
        window = LiveWindow(exam, "MV", 2000 * n, probability, 0.9, (), True)
        host.hub.tell({"type": "live", "device": "village/stetho-1", "message": window})
    score = LiveQuality(0, 0.9 * quality.GOOD, (), -30.0, None, exam)
    host.hub.tell({"type": "live", "device": "village/stetho-1", "message": score})
    page.wait_for_function("() => document.querySelectorAll('.windows i').length === 3")
    bars = page.evaluate("[...document.querySelectorAll('.windows i')].map((each) => each.className)")
    assert bars == list(shown)
    page.locator(".meter.low").wait_for()
    page.get_by_text("poor, ").wait_for()
    score = LiveQuality(2000, quality.GOOD, (), -30.0, None, exam)
    host.hub.tell({"type": "live", "device": "village/stetho-1", "message": score})
    page.get_by_text("weak, ").wait_for()
    assert page.locator(".meter.low").count() == 0
    assert wrong == []
    page.close()


def test_what_is_not_known_or_not_here_is_said(host: Host, chromium: Any) -> None:
    assert host.store is not None and host.hub is not None
    sounds = {"AV": flac(beats()), "MV": flac(beats(seconds=30, seed=2))}
    # the store is ingest's; nothing else is on the way while this test puts an exam there
    exam = put(
        host.store,
        sounds,
        leave_out=1,
        verdict=Finding("unsure", None, None, ("too noisy",)),
        heart_rate_bpm=None,
        bundle="0.0.1-elsewhere",
    )
    page = new_page(chromium, 390, 844, "dark")
    wrong = watched(page, host.url)
    page.goto(host.url)
    page.get_by_text("pieces of sound are here").wait_for()
    page.get_by_text("probability unknown").wait_for()
    assert fits(page)
    page.locator(".exam-row").click()
    page.get_by_text("The sound is not whole yet.").wait_for()
    assert page.locator(".scale-head strong").inner_text() == "unknown"
    assert page.locator(".scale-mark").count() == 0
    assert page.locator(".chip", has_text="too noisy").first.is_visible()
    page.get_by_text("which is not here").wait_for()
    assert fits(page)

    # the rest arrives: the page follows by itself
    for n in range(exam.sites[1].sound.chunks):
        first, past = chunk_span(n, exam.sites[1].sound.size, exam.sites[1].sound.chunk_size)
        where = Topic(exam.fleet, exam.device, "sound", exam=exam.id, site="MV", chunk=n)
        Arrivals(host.store).put_chunk(where, sounds["MV"][first:past])
    host.hub.tell({"type": "stored", "exam": exam.id, "device": "village/stetho-1", "complete": True})
    page.get_by_text("complete, every sha256 fits").wait_for()
    page.locator("[data-site=MV] .transport").wait_for()

    host.hub.tell({"type": "broker", "connected": False})
    page.get_by_text("broker away").wait_for()
    assert wrong == []
    page.close()


def test_colours_follow_the_system_and_the_button(host: Host, chromium: Any) -> None:
    page = new_page(chromium, colours="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    page.goto(host.url)
    dark = page.evaluate(background)
    page.locator("#theme").click()
    page.wait_for_function(f"() => {background} !== '{dark}'")
    light = page.evaluate(background)
    page.reload()
    assert page.evaluate(background) == light, "the choice is remembered"
    page.locator("#theme").click()
    page.wait_for_function(f"() => {background} === '{dark}'")
    page.close()


def test_an_address_that_leads_nowhere_says_so(host: Host, chromium: Any) -> None:
    page = new_page(chromium)
    page.goto(f"{host.url}/exams/{make_exam().id}")
    page.get_by_role("heading", name="Not here").wait_for()
    page.get_by_role("link", name="All exams", exact=True).click()
    page.get_by_text("No exams yet").wait_for()
    page.close()


def test_what_is_heard_at_a_stethoscope_can_be_chosen(host: Host, chromium: Any) -> None:
    """A real daemon without an end; each change is shown when the device has answered."""
    page = new_page(chromium)
    wrong = watched(page, host.url)
    page.goto(host.url)
    settings = Settings.parse(
        {
            "device": {"id": "ward-3", "fleet": "clinic", "state_dir": str(host.store.folder / "device")},
            "source": {"spec": "synthetic", "pace": "real"},
            "listen": {"output": f"file:{host.store.folder / 'heard.wav'}", "preset": "extended"},
            "exam": {"autostart": False, "exams": 0},
            "mqtt": {"host": host.broker_address.host, "port": host.broker_address.port},
        }
    )
    daemon = DeviceDaemon(settings)
    thread = threading.Thread(target=daemon.run, kwargs={"signals": False}, daemon=True)
    thread.start()
    try:
        ear = page.locator(".device[data-device='clinic/ward-3'] .ear")
        ear.wait_for()
        said = ear.locator(".ear-says")
        raw, clean = (ear.get_by_role("button", name=name, exact=True) for name in ("Raw", "Denoised"))
        assert clean.get_attribute("aria-pressed") == "true" and raw.get_attribute("aria-pressed") == "false"
        assert ear.locator("select").input_value() == "extended"
        assert ear.locator("input").input_value() == "1"

        raw.click()
        said.get_by_text("raw, extended, strength 1, gain 0 dB", exact=True).wait_for()
        assert raw.get_attribute("aria-pressed") == "true"
        ear.locator("select").select_option("bell")
        said.get_by_text("raw, bell, strength 1, gain 0 dB", exact=True).wait_for()
        ear.locator("input").focus()
        for _ in range(4):
            page.keyboard.press("ArrowLeft")
        said.get_by_text("raw, bell, strength 0.8, gain 0 dB", exact=True).wait_for()
        assert ear.locator(".num").inner_text() == "80 %"
        assert daemon.parts.listening.now.strength == 0.8

        # whose the next exam is
        field = page.get_by_label("Subject code of the next exam", exact=True)
        told = page.locator(".subject .ear-says")
        field.fill("V3-0042-8")
        page.keyboard.press("Enter")
        told.get_by_text("'V3-0042-8' is no subject code, or one of its characters is wrong").wait_for()
        assert field.input_value() == "V3-0042-8"
        field.fill("V3-0042-9")
        page.locator(".subject button").click()
        told.get_by_text("the next exam is V3-0042-9", exact=True).wait_for()
        assert field.input_value() == "" and daemon.parts.controls.subjects.next == "V3-0042-9"
        assert unnamed(page) == [] and fits(page)

        # another page sees the same, from what the device tells of itself
        other = new_page(chromium, 390, 844)
        other.goto(host.url)
        other.locator(".ear button[aria-pressed=true]", has_text="Raw").wait_for()
        assert other.locator(".ear select").input_value() == "bell"
        assert fits(other)
        other.close()
    finally:
        daemon.request_stop()
        thread.join(30)
    ear.wait_for(state="hidden")
    assert wrong == []
    page.close()
