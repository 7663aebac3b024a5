"""The ECG in a real browser: it moves beside the sound, says when the lead is off, stands on the page of the
exam."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from device.daemon.daemon import Daemon
from device.daemon.models import Models
from device.settings.settings import Settings
from host.commands.serve import Host
from tests.browser.pages import changes, fits, moves, new_page, painted, unnamed, until, watched
from tests.device.fakes import META, FakeCleaner, FakeJudge
from tests.device.leads import Through

pytestmark = pytest.mark.browser


def test_both_traces_move_and_the_exam_shows_its_r_peaks(
    host: Host,
    chromium: Any,
    tmp_path: Path,
) -> None:
    settings = Settings.parse(
        {
            "device": {"id": "ward-3", "fleet": "clinic", "state_dir": str(tmp_path / "device")},
            "source": {"spec": "synthetic:rate=66", "pace": "real"},
            "ecg": {"spec": "synthetic:rate=66,off_after_s=6,off_for_s=2"},
            "exam": {"sites": ["MV"], "min_s": 11, "max_s": 11, "autostart": True, "exams": 1},
            "mqtt": {"host": host.broker_address.host, "port": host.broker_address.port},
        }
    )
    models = Models("0.1.0", FakeCleaner(), FakeJudge(), META, lead=Through())
    daemon = Daemon(settings, models=models)
    page = new_page(chromium, height=900)
    wrong = watched(page, host.url)
    page.goto(host.url)
    page.get_by_text("No exam is running").wait_for()
    thread = threading.Thread(target=daemon.run, kwargs={"signals": False}, daemon=True)
    thread.start()
    try:
        page.locator(".live .lane[data-kind=ecg]").wait_for()
        moves(page, ".live .lane:nth-child(1) canvas")
        moves(page, ".live .lane[data-kind=ecg] canvas")
        page.get_by_text("denoised, raw behind it").wait_for()
        # the electrode comes off, and is on again
        page.get_by_text("Lead off: an electrode has come off").wait_for()
        page.locator(".live .lane-word").wait_for(state="hidden")
        assert unnamed(page) == [] and fits(page)
        row = page.locator(".exam-row[data-status=complete]").first
        row.wait_for()
        row.click()
        page.locator(".lane[data-kind=ecg]").wait_for()
        page.get_by_text("R peaks").wait_for()
        # how long it is seen as off depends on where the blocks lie
        page.get_by_text(re.compile(r"lead off: \d\.\d s are no ECG")).wait_for()
        page.locator(".site-foot").get_by_text("Denoised with bundle").wait_for()
        whole = painted(page, ".lane[data-kind=ecg] canvas")
        page.get_by_role("button", name="Zoom in").click()
        changes(page, ".lane[data-kind=ecg] canvas", whole)  # it zooms with the sound
        with page.expect_download() as download:
            page.get_by_text("FLAC, ECG").click()
        assert Path(download.value.path()).read_bytes()[:4] == b"fLaC"
        assert page.get_by_text("no diagnostic ECG").is_visible()
        assert unnamed(page) == [] and fits(page)
        page.set_viewport_size({"width": 390, "height": 844})
        until(page, lambda: fits(page), "all of it on a telephone")
    finally:
        daemon.request_stop()
        thread.join(30)
    assert wrong == []
    page.close()
