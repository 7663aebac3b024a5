"""The ECG in a real browser: it moves beside the sound, says when the lead is off, stands on the page of the
exam."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device.daemon import Daemon, Models
from device.settings import Settings
from host.broker import EmbeddedBroker
from host.serve import Host
from tests.browser.chromium import chromium, watched  # noqa: F401
from tests.browser.test_dashboard_browser import WAIT_MS, fits, inked, unnamed
from tests.device.fakes import META, FakeCleaner, FakeJudge
from tests.device.leads import Through

pytestmark = pytest.mark.browser


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Host(tmp_path / "store", embedded=EmbeddedBroker(), http_port=0) as made:
        assert made.ingest is not None and made.ingest.connected.wait(20)
        yield made


def moves(page: Any, canvas: str) -> None:
    """Wait until something is drawn there, and until it is another picture."""
    page.wait_for_function(
        """selector => {
            const canvas = document.querySelector(selector);
            if (!canvas || !canvas.width) return false;
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let count = 0;
            for (let i = 3; i < data.length; i += 4) if (data[i]) count++;
            return count > 3000;
        }""",
        arg=canvas,
    )
    before = inked(page, canvas)
    waited = 0
    while inked(page, canvas) == before:
        page.wait_for_timeout(150)
        waited += 150
        assert waited < WAIT_MS, f"{canvas} stands still"


def test_both_traces_move_and_the_exam_shows_its_r_peaks(
    host: Host,
    chromium: Any,  # noqa: F811
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
    page = chromium.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.set_default_timeout(WAIT_MS)
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
        page.wait_for_timeout(300)
        assert inked(page, ".lane[data-kind=ecg] canvas")[0] > 3000
        whole = inked(page, ".lane[data-kind=ecg] canvas")
        page.get_by_role("button", name="Zoom in").click()
        page.wait_for_timeout(300)
        assert inked(page, ".lane[data-kind=ecg] canvas") != whole, "the ECG zooms with the sound"
        with page.expect_download() as download:
            page.get_by_text("FLAC, ECG").click()
        assert Path(download.value.path()).read_bytes()[:4] == b"fLaC"
        assert page.get_by_text("no diagnostic ECG").is_visible()
        assert unnamed(page) == [] and fits(page)
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(200)
        assert fits(page)
    finally:
        daemon.request_stop()
        thread.join(30)
    assert wrong == []
    page.close()
