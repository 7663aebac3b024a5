"""The ECG beside the sound: aligned by two clocks, recorded with its gaps, shown, and never in the way."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from device.contract.codec import encode
from device.contract.exam import EcgTrack
from device.contract.live import LiveEcg
from device.contract.topics import read
from device.ecg.base import EcgBlock
from device.ecg.files import Ecg, Lead
from device.ecg.replay import EcgReplay, SyntheticEcg
from device.ecg.run import LeadRun
from device.ecg.trace import Trace
from device.ecg.track import Track
from device.errors import SourceGone, StethopiError
from device.settings.sections import EcgSettings
from device.settings.specs import SyntheticLead
from device.stream.ring import Ring
from device.stream.timeline import Nominal, Timeline
from tests.device.leads import Through, beating


class Wired:
    """A lead at a converter whose crystal, and whose amplifier, may be wrong."""

    name = "wired lead"
    rails_mv = (-1.5, 1.5)
    played = False

    def __init__(self, rate_hz: int = 360) -> None:
        self.rate_hz = rate_hz


def heard(
    seconds: float,
    *,
    sound_ppm: float = 0.0,
    ecg_ppm: float = 0.0,
    rate_hz: int = 360,
    begins_s: float = 0.4,
    jitter_s: float = 0.002,
    off: tuple[float, float] | None = None,
    missing: tuple[int, int] | None = None,
) -> tuple[Track, Timeline, np.ndarray]:
    """A track that has heard a beating lead; the true seconds of its R peaks, by the sound's own clock.

    The sound's sample 0 is at 100 s, the lead's at 100 s + begins_s.
    """
    random = np.random.default_rng(4)
    sound = Timeline(48000)
    true_sound = 48000 * (1 + sound_ppm * 1e-6)
    for end in range(960, int(seconds * 48000), 960):
        sound.note(end, 100.0 + (end - 1) / true_sound + random.exponential(jitter_s))
    track = Track(Wired(rate_hz), sound, 90.0)
    true_ecg = rate_hz * (1 + ecg_ppm * 1e-6)
    # the heart beats by the monotonic clock; the lead samples it by its own
    fine, peaks_s = beating(seconds, 1000, 0.005)
    t = np.arange(int((seconds - begins_s) * true_ecg)) / true_ecg
    x = np.interp(begins_s + t, np.arange(len(fine)) / 1000, fine).astype(np.float32)
    pins = np.zeros(len(x), bool)
    if off is not None:
        pins |= (t + begins_s >= off[0]) & (t + begins_s < off[1])
        x[pins] = 1.5
    at = 0
    while at < len(x):
        end = min(at + int(random.integers(1, 15)), len(x))
        lost = 0
        if missing is not None and at <= missing[0] < end:
            lost, at = missing[1] - at, missing[1]
            end = at + 8
        when = 100.0 + begins_s + (end - 1) / true_ecg + random.exponential(jitter_s)
        track.accept(EcgBlock(x[at:end], at, when, lost, off=pins[at:end] if off is not None else None))
        at = end
    # at second s by the monotonic clock, the sound's own clock says s * true / nominal
    return track, sound, peaks_s * (1 + sound_ppm * 1e-6)


def peaks_of(path: Path, made: EcgTrack) -> np.ndarray:
    """Seconds of the R peaks in a recording, from the first sample of the site's sound."""
    x, rate_hz = soundfile.read(path)
    assert rate_hz == 360 and len(x) == made.samples
    tops = [n for n in range(2, len(x) - 2) if x[n] > 0.12 and x[n] == x[n - 2 : n + 3].max()]
    return made.start_s + np.array(tops) / made.true_rate_hz


@pytest.mark.parametrize(
    ("sound_ppm", "ecg_ppm", "rate_hz"), [(0, 0, 360), (200, -200, 360), (-200, 200, 500), (200, 200, 500)]
)
def test_every_beat_lies_within_five_milliseconds(
    tmp_path: Path, sound_ppm: float, ecg_ppm: float, rate_hz: int
) -> None:
    track, _, truth = heard(45.0, sound_ppm=sound_ppm, ecg_ppm=ecg_ppm, rate_hz=rate_hz)
    found = track.record(tmp_path, "x-AV-ecg", 5 * 2000).finish(35 * 2000, 65536)
    assert found is not None
    made, path = found
    peaks = peaks_of(path, made)
    inside = truth[(truth > 5.2) & (truth < 39.8)] - 5.0
    assert len(inside) > 35
    apart = np.array([np.min(np.abs(peaks - at)) for at in inside])
    assert apart.max() < 0.005, "a sample is 2.8 ms long"
    drift = 1e6 * ((1 + ecg_ppm * 1e-6) / (1 + sound_ppm * 1e-6) - 1)
    assert track.drift_ppm == pytest.approx(drift, abs=30)
    assert made.true_rate_hz == pytest.approx(360 * (1 + drift * 1e-6), abs=0.02)
    assert made.spread_ms is not None and made.spread_ms < 3 and made.gaps == () and made.reasons == ()
    assert -0.06 < made.start_s < 0 and made.samples == pytest.approx(35.1 * 360, abs=8)


def test_the_amplifiers_delay_is_taken_away() -> None:
    track, sound, _ = heard(20.0)
    late = Track(Wired(), sound, 90.0, delay_s=0.006)
    late.times = track.times
    assert late.sound_of(3600) == pytest.approx(track.sound_of(3600) - 12, abs=0.1)
    assert late.ecg_of(20000) == pytest.approx(track.ecg_of(20000) + 0.006 * 360, abs=0.01)
    assert track.sound_of(track.ecg_of(20000)) == pytest.approx(20000, abs=0.01)


def test_what_was_not_heard_is_marked_with_its_reason_and_holds_zeros(tmp_path: Path) -> None:
    track, _, truth = heard(30.0, off=(10.0, 12.0), missing=(7200, 7500))
    found = track.record(tmp_path, "x-AV-ecg", 2000).finish(28 * 2000, 65536)
    assert found is not None
    made, path = found
    x, _ = soundfile.read(path)
    assert set(made.reasons) == {"lead off", "samples lost"} and made.reasons[0] == "lead off"
    spans = [(made.start_s + a / 360 + 1.0, made.start_s + b / 360 + 1.0) for a, b in made.gaps]
    assert len(spans) == 2
    assert spans[0] == pytest.approx((10.0, 12.2), abs=0.01)
    assert spans[1][0] == pytest.approx(20.4, abs=0.03) and spans[1][1] == pytest.approx(
        20.4 + 300 / 360, abs=0.03
    )
    for a, b in made.gaps:
        assert not x[a:b].any()


def test_a_lead_that_came_late_covers_what_it_missed_with_a_gap(tmp_path: Path) -> None:
    track, _, _ = heard(30.0, begins_s=4.0)
    recorder = track.record(tmp_path, "x-AV-ecg", 2 * 2000)
    found = recorder.finish(20 * 2000, 65536)
    assert found is not None
    made, _ = found
    (gap,) = made.gaps
    assert gap[0] == 0 and gap[1] == pytest.approx(2.05 * 360, abs=2) and made.reasons == ("samples lost",)


def test_no_lead_no_file(tmp_path: Path) -> None:
    track = Track(Wired(), Timeline(2000), 30.0)
    track.over = True
    assert track.record(tmp_path, "x-AV-ecg", 0).finish(20000, 65536) is None
    assert list(tmp_path.iterdir()) == []


def test_a_crash_leaves_a_partial_that_can_be_read(tmp_path: Path) -> None:
    from device.storage.recorder import rescue

    track, _, _ = heard(20.0)
    recorder = track.record(tmp_path, "x-AV-ecg", 2000)
    recorder.close()
    (partial,) = rescue(tmp_path)
    assert partial.seconds == pytest.approx(20 - 0.4 - 1.1 - 0.55, abs=0.3)
    _, rate_hz = soundfile.read(partial.path)
    assert rate_hz == 360


def test_a_disk_that_takes_nothing_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    track, _, _ = heard(20.0)
    (tmp_path / "file").write_text("no folder")
    recorder = track.record(tmp_path / "file", "x-AV-ecg", 2000)
    assert recorder.finish(20000, 65536) is None
    assert caplog.text.count("the sound goes on") == 1


# ---- the trace


def test_the_trace_says_where_it_belongs_and_what_is_no_ecg() -> None:
    told: list[LiveEcg] = []
    track, _, _ = heard(3.0, begins_s=0.0)
    x = track.ring.read(0, track.ring.end)
    again = Track(Wired(), Timeline(48000), 30.0)
    again._sound = track._sound
    trace = Trace(again, Through(0.5), told.append)
    pins = np.zeros(len(x), bool)
    pins[400:500] = True
    for at in range(0, len(x), 9):
        made = again.accept(EcgBlock(x[at : at + 9], at, 100.0 + (at + 8) / 360, off=pins[at : at + 9]))
        trace.process(made, "0" * 8 + "-0000-0000-0000-" + "0" * 12)
    assert len(told) > 20 and all(len(m.raw) == len(m.clean) == 36 for m in told)
    for m in told:
        read(LiveEcg, encode(m))
        assert m.at == pytest.approx(m.index * 2000 / 360, abs=4)
    raw = np.concatenate([m.raw for m in told]) * 5 / 32767
    clean = np.concatenate([m.clean for m in told]) * 5 / 32767
    np.testing.assert_allclose(raw[:400], x[:400], atol=2e-4)
    np.testing.assert_allclose(clean[:400], x[:400] / 2, atol=2e-4)
    assert not raw[400:500].any() and not clean[400 : 500 + 108].any(), "until the denoiser has settled"
    assert told[11].gaps == ((4, 36),) and told[12].gaps == ((0, 36),)
    assert "lead off" in {m.lead for m in told} and told[0].lead == "on"


def test_without_a_denoiser_only_the_raw_trace_is_told() -> None:
    told: list[LiveEcg] = []
    track, _, _ = heard(2.0)
    trace = Trace(track, None, told.append)
    trace.process(track.ring.read(0, 360), "0" * 8 + "-0000-0000-0000-" + "0" * 12)
    assert len(told) == 0 or told[0].clean == ()


# ---- the thread


class Failing(SyntheticEcg):
    """A lead that cannot be opened, then vanishes, then stumbles, then plays."""

    def __init__(self) -> None:
        super().__init__(SyntheticLead(seconds=1.0), pace="fast")
        self.starts = 0

    def start(self) -> None:
        self.starts += 1
        if self.starts == 1:
            raise StethopiError("no such bus; switch SPI on")
        super().start()

    def read(self) -> EcgBlock | None:
        if self.starts == 2:
            raise SourceGone("the wire came off; check its wires")
        if self.starts == 3:
            raise RuntimeError("a driver's own mistake")
        return super().read()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device.ecg.run._RETRY_S", (0.01, 0.02))


def test_a_lead_that_fails_is_tried_again_and_told_once(
    hurried: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    told: list[LiveEcg] = []
    sound = Ring(30.0)
    sound.append(np.zeros(20000, np.float32))
    source = Failing()
    run = LeadRun(
        source,
        EcgSettings(spec="synthetic"),
        Nominal(2000),
        sound,
        seconds=30.0,
        exam=lambda: "0" * 8 + "-0000-0000-0000-" + "0" * 12,
        tell=told.append,
    )
    thread = threading.Thread(target=run.run)
    thread.start()
    thread.join(20)
    assert not thread.is_alive() and source.starts == 4
    assert run.track.ring.end == 360 and run.track.over
    assert caplog.text.count("ECG went away") == 1 and "no such bus" in caplog.text
    assert caplog.text.count("ECG came back after") == 1
    assert told[0].lead == "gone" and told[0].raw == () and told[-1].lead == "on"


def test_read_as_fast_as_it_goes_the_lead_keeps_pace_with_the_sound() -> None:
    x, _ = beating(60.0)
    sound = Ring(100.0)
    source = EcgReplay(Ecg([Lead("I", x)], 360, "CSV"), pace="fast")
    run = LeadRun(source, EcgSettings(), Nominal(2000), sound, seconds=100.0)
    thread = threading.Thread(target=run.run)
    thread.start()
    for _ in range(4):
        sound.append(np.zeros(10000, np.float32))
        wanted = sound.end * 360 // 2000
        assert run.track.ring.wait(wanted, 20.0)
        assert run.track.ring.end < wanted + 0.6 * 360
    sound.close()
    thread.join(20)
    assert not thread.is_alive() and run.track.over
