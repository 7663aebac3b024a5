"""The daemon: from a source to the outbox and the host, through loss, lateness and a clean end."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.clock import FakeClock
from device.contract.codec import encode
from device.contract.control import Answer, Command, Health, Listen, Listening
from device.contract.exam import Delay, Exam
from device.contract.live import LiveEcg, LiveExam, LiveWave, LiveWindow
from device.contract.topics import Address, read
from device.daemon import daemon as daemon_module
from device.daemon import health, sound_thread
from device.daemon.daemon import Daemon
from device.daemon.from_settings import one_exam, plan_of
from device.daemon.models import Models
from device.delivery.uplink import Pace
from device.errors import BadInput, SourceGone, StethopiError
from device.exam.plan import Phase
from device.exam.subjects import code, codes
from device.listening.outputs import NoListener
from device.panel.button import Press
from device.panel.light import Light
from device.panel.panels import FakePanel
from device.settings.settings import Settings
from device.settings.specs import HeartSettings
from device.sources.base import Block
from device.sources.files import read_sound, write_sound
from device.sources.synthetic import SyntheticSource
from device.storage.outbox import Outbox
from device.stream.shedding import Shed, Shedder
from tests.brokers import Mosquitto
from tests.device.fakes import META, FakeCleaner, FakeJudge
from tests.device.hosts import Ingest
from tests.device.leads import Through
from tests.waiting import until

HURRIED = Pace(reconnect_first_s=0.05, reconnect_most_s=0.2, announce_first_s=0.2, announce_most_s=0.5)


def settings_in(folder: Path, **sections: dict[str, Any]) -> Settings:
    table: dict[str, Any] = {
        "device": {"id": "stetho-1", "fleet": "village", "state_dir": str(folder / "state")},
        "source": {"spec": "synthetic", "pace": "fast"},
        "exam": {"sites": ["AV"], "min_s": 5, "max_s": 8, "autostart": True, "exams": 1},
    }
    for section, values in sections.items():
        table[section] = {**table.get(section, {}), **values}
    return Settings.parse(table)


def fakes() -> Models:
    return Models("fake", FakeCleaner(), FakeJudge(), META)


@contextmanager
def running(daemon: Daemon) -> Iterator[Daemon]:
    """The daemon in a thread of the test; asked to stop at the end, and what it raised is raised."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            daemon.run(signals=False)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield daemon
    finally:
        daemon.request_stop()
        thread.join(60)
        assert not thread.is_alive()
    if raised:
        raise raised[0]


def synthetic(**options: Any) -> SyntheticSource:
    pace = options.pop("pace", "fast")
    return SyntheticSource(HeartSettings(**options), pace=pace)


def stored(settings: Settings) -> list[tuple[Exam, dict[str, Path]]]:
    """What is in the outbox after the daemon has ended."""
    box = Outbox(settings.device.state_dir / "outbox")
    found = []
    while (parcel := box.claim()) is not None:
        found.append((read(Exam, parcel.result), {s.site: s.path for s in parcel.sounds}))
    box.close()
    return found


def asking(host: Ingest) -> Callable[..., Answer]:
    """ask(name, **args) sends the stethoscope a command and gives what it answers."""
    number = iter(range(100))

    def ask(name: str, **args: str) -> Answer:
        command = Command(f"c-{next(number)}", name, 4e9, args)
        host.command(Address("village", "stetho-1"), command)
        return until(lambda: (a := host.last("answer")) and a.command == command.id and a)

    return ask


# ---- the way of an exam


def test_a_file_becomes_an_exam_with_just_its_sound(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    write_sound(tmp_path / "heart.wav", rng.uniform(-0.2, 0.2, 13000).astype(np.float32), 2000)
    x = read_sound(tmp_path / "heart.wav").samples
    settings = settings_in(tmp_path, source={"spec": f"file:{tmp_path / 'heart.wav'}"}, exam={"max_s": 60})
    daemon = Daemon(settings, models=fakes())
    assert daemon.run(signals=False) == 0
    ((exam, files),) = stored(settings)
    assert np.array_equal(read_sound(files["AV"]).samples, x)
    assert (exam.ended, exam.sites[0].samples, exam.source) == ("sound ended", 13000, "heart.wav")
    assert (exam.fleet, exam.device, exam.bundle) == ("village", "stetho-1", "fake")
    assert {stage.stage for stage in exam.latency} == {"decimate", "denoise", "listen", "record", "classify"}
    assert all(stage.count > 0 for stage in exam.latency)
    assert exam.delay == Delay(0.0, 8.0, 16.0, 24.0)
    assert exam.dropped["windows"] == 0
    assert [e.id for e in daemon.exams] == [exam.id]


@pytest.mark.parametrize("rate_hz", [2000, 8000, 44100])
def test_the_same_sound_gives_the_same_exam_twice_at_every_rate(tmp_path: Path, rate_hz: int) -> None:
    found = []
    for run in "ab":
        settings = settings_in(tmp_path / run, exam={"sites": ["AV", "MV"]})
        source = synthetic(rate_hz=rate_hz, seconds=14.0, seed=4)
        Daemon(settings, models=fakes(), source=source).run(signals=False)
        ((exam, _),) = stored(settings)
        found.append(
            [(s.site, s.start_index, s.samples, s.ended, s.sound.sha256, s.windows) for s in exam.sites]
        )
    assert found[0] == found[1]
    assert [row[2] for row in found[0]] == [16000, 12000]


def test_it_stops_after_the_exams_that_were_asked_for(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, exam={"exams": 3, "min_s": 2, "max_s": 2})
    assert Daemon(settings, models=fakes(), source=synthetic()).run(signals=False) == 0
    exams = [exam for exam, _ in stored(settings)]
    assert [exam.sites[0].start_index for exam in exams] == [0, 4000, 8000]


def test_in_a_process_of_its_own_memory_is_tidied_after_each_exam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: done.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: done.append("freeze"))
    monkeypatch.setattr(signal, "signal", lambda number, what: None)
    settings = settings_in(tmp_path, exam={"exams": 2, "min_s": 2, "max_s": 2})
    assert Daemon(settings, models=fakes(), source=synthetic()).run() == 0
    assert done == ["collect", "freeze", "collect"]


def test_when_the_sound_ends_it_stays_for_delivery_until_it_is_asked_to_go(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, exam={"exams": 0})
    with running(Daemon(settings, models=fakes(), source=synthetic(seconds=9.0))) as daemon:
        until(lambda: daemon.report.words() == "source ended, exam idle, 1 waiting in the outbox")
    assert len(stored(settings)) == 1


def test_asked_to_stop_in_an_exam_it_is_ended_as_it_is(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, source={"pace": "real"}, exam={"max_s": 60, "min_s": 50})
    source = synthetic(pace="real")
    with running(Daemon(settings, models=fakes(), source=source)) as daemon:
        until(lambda: daemon.examiner and daemon.examiner.heard > 2000)
    ((exam, files),) = stored(settings)
    assert exam.ended == "stopped" and exam.sites[0].seconds > 0.9
    assert len(read_sound(files["AV"]).samples) == exam.sites[0].samples


def test_an_exam_that_cannot_be_ended_stays_as_a_partial_one_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "END_S", 0.2)
    settings = settings_in(tmp_path, source={"pace": "real"}, exam={"max_s": 60, "min_s": 50})
    models = fakes()
    released = threading.Event()

    def stuck() -> list[Any]:
        released.wait(30)
        return []

    with running(Daemon(settings, models=models, source=synthetic(pace="real"))) as daemon:
        until(lambda: daemon.examiner and daemon.examiner.heard > 3000)
        monkeypatch.setattr(models.judge, "flush", stuck)
        monkeypatch.setattr(threading.Thread, "join", _impatient(threading.Thread.join))
    released.set()
    box = Outbox(settings.device.state_dir / "outbox")
    assert box.backlog().exams == 0
    (partial,) = box.partials
    assert partial.seconds > 1.0 and "found, kept as" in str(partial)
    box.close()


def _impatient(join: Any) -> Any:
    def wait(self: threading.Thread, timeout: float | None = None) -> None:
        join(self, 0.3 if self.name == "judge" else timeout)

    return wait


# ---- delivery


def test_from_the_heart_to_the_host(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shedder, "update", lambda self, waiting_s, now_s: Shed.NOTHING)  # on any machine
    settings = settings_in(
        tmp_path,
        mqtt={"host": mosquitto.host, "port": mosquitto.port},
        source={"pace": "real"},
        exam={"max_s": 5},
    )
    with Ingest(mosquitto.host, mosquitto.port) as host:
        daemon = Daemon(settings, models=fakes(), source=synthetic(pace="real"), pace=HURRIED)
        assert daemon.run(signals=False) == 0
        until(lambda: host.last("state") and host.last("state").why == "stopped")
        assert host.wrong == [], "every published message fits its JSON Schema"
        (exam_id,) = host.stored
        exam = read(Exam, host.results[exam_id])
        assert daemon.delivered == {exam_id}
        live = [topic.live for topic in host.heard if topic.kind == "live"]
        assert live.count("wave") > 30 and live.count("quality") >= 3
        # a slow machine says it before the first sample, and not again within ten seconds
        assert host.count("health") >= 1 and host.last("health").source in ("starting", "running")
        waves = [read(LiveWave, p) for topic, p in host.payloads if topic.live == "wave"]
        assert all(b.index - a.index == 200 for a, b in zip(waves, waves[1:], strict=False))
        assert all(len(w.raw) == len(w.clean) == 25 for w in waves)
        # the fake denoiser halves
        assert all(abs(r - 2 * c) <= 1 for w in waves for r, c in zip(w.raw, w.clean, strict=True))
        states = [read(LiveExam, p).state for topic, p in host.payloads if topic.live == "exam"]
        assert states[0] == "recording" and states[-2:] == ["site done", "finished"]
        windows = [read(LiveWindow, p) for topic, p in host.payloads if topic.live == "window"]
        assert [w.start for w in windows] == [w.start for w in exam.sites[0].windows]


def test_the_last_exam_outwaits_four_tries_to_reach_its_broker() -> None:
    """The second try follows after a second, then twice as long each time, a tenth more at most; the fourth
    still has five seconds for its answer. (5 s in all, as it was once, hold three tries and no time.)
    """
    pace = Pace()
    fourth_s = 1.1 * pace.reconnect_first_s * (1 + 2 + 4)
    assert fourth_s + 5.0 <= daemon_module.CONNECT_S < daemon_module.DELIVER_S


def test_commands_start_stop_and_tell(mosquitto: Mosquitto, tmp_path: Path) -> None:
    settings = settings_in(
        tmp_path,
        mqtt={"host": mosquitto.host, "port": mosquitto.port},
        source={"pace": "real"},
        exam={"autostart": False, "exams": 0, "max_s": 60, "sites": ["AV", "PV"]},
    )
    with Ingest(mosquitto.host, mosquitto.port) as host:
        ask = asking(host)
        with running(Daemon(settings, models=fakes(), source=synthetic(pace="real"), pace=HURRIED)) as daemon:
            until(lambda: host.online() and daemon.examiner)
            assert "exam idle" in ask("status").says
            assert ask("update").says == "unknown command"
            assert (ask("stop").ok, ask("next").ok) == (False, False)
            assert "none of AV" in ask("start", site="XX").says
            assert not ask("start", subject="Mary Smith").ok
            started = ask("start", sites="MV,AV", subject="P-17")
            assert (started.ok, started.says) == (True, "recording MV")
            again = ask("start")
            assert not again.ok and "under way" in again.says and again.exam == started.exam
            until(
                lambda: daemon.examiner and daemon.examiner._running and daemon.examiner._running.fed > 3000
            )
            assert ask("stop").ok
            until(lambda: host.stored)
        exam = read(Exam, host.results[started.exam or ""])
        assert (exam.subject, [s.site for s in exam.sites], exam.ended) == ("P-17", ["MV"], "stopped")


def test_whose_the_next_exam_is_can_be_told_from_the_host(mosquitto: Mosquitto, tmp_path: Path) -> None:
    listed = tmp_path / "codes.txt"
    listed.write_text("\n".join(codes("V3", 1, 9)))
    settings = settings_in(
        tmp_path,
        mqtt={"host": mosquitto.host, "port": mosquitto.port},
        source={"pace": "real"},
        exam={"autostart": False, "exams": 0, "max_s": 60, "subjects": str(listed)},
    )
    with Ingest(mosquitto.host, mosquitto.port) as host:
        ask = asking(host)
        with running(Daemon(settings, models=fakes(), source=synthetic(pace="real"), pace=HURRIED)) as daemon:
            until(lambda: host.online() and daemon.examiner)
            wrong = ask("subject", code="V3-0042-8")
            assert not wrong.ok and "'V3-0042-8' is no subject code" in wrong.says
            assert ask("subject", code="5").says == "the next exam is V3-0005-J"
            assert ask("subject").says == "the next exam is V3-0001-R"
            told = ask("subject", code="V3-0042-9")
            assert told.ok and told.says == "the next exam is V3-0042-9"
            # by the button, by which an exam begins without any screen
            daemon.parts.controls.begin()
            until(lambda: daemon.examiner and daemon.examiner.heard > 3000)
            assert ask("stop").ok
            until(lambda: host.stored)
        (result,) = host.results.values()
        assert read(Exam, result).subject == "V3-0042-9"


def test_what_is_heard_changes_while_one_listens(mosquitto: Mosquitto, tmp_path: Path) -> None:
    heard = tmp_path / "heard.wav"
    settings = settings_in(
        tmp_path,
        mqtt={"host": mosquitto.host, "port": mosquitto.port},
        source={"pace": "real"},
        listen={"output": f"file:{heard}", "monitor": "clean", "limit": 1.0, "loudest_db": 0},
        exam={"autostart": False, "exams": 0},
    )
    address = Address("village", "stetho-1")
    models = fakes()
    source = synthetic(pace="real", seed=3)
    with Ingest(mosquitto.host, mosquitto.port) as host:

        def ask(name: str, listen: Listen) -> Answer:
            command = Command(name, "listen", 4e9, listen=listen)
            host.command(address, command)
            return until(lambda: (a := host.last("answer")) and a.command == command.id and a)

        with running(Daemon(settings, models=models, source=source, pace=HURRIED)) as daemon:
            until(lambda: host.online() and daemon.examiner and daemon.examiner.heard > 3000)
            told = ask("c-1", Listen())
            assert told.ok and told.listening == Listening("clean", 1.0, "none", 0.0, "file")
            told = ask("c-2", Listen(monitor="raw", strength=0.25))
            assert told.says == "raw, strength 0.25, gain 0 dB"
            assert told.listening == Listening("raw", 0.25, "none", 0.0, "file")
            assert models.denoiser.strength == 0.25
            until(lambda: (h := host.last("health")) and h.listening == told.listening)
            changed = daemon.examiner.heard if daemon.examiner else 0
            until(lambda: daemon.examiner and daemon.examiner.heard > changed + 2000)
            told = ask("c-3", Listen(preset="bell", gain_db=-12.0))
            assert told.says == "raw, bell, strength 0.25, gain -12 dB"
            softer = daemon.examiner.heard if daemon.examiner else 0
            until(lambda: daemon.examiner and daemon.examiner.heard > softer + 6000)
        assert host.wrong == []
    # the fake denoiser halves, so the file tells which sound was heard
    y = read_sound(heard).samples
    x = SyntheticSource(HeartSettings(seed=3)).heart.render(0, len(y))
    assert np.allclose(y[100:2000], x[100:2000] / 2, atol=1e-5)
    assert np.allclose(y[changed + 200 : changed + 1000], x[changed + 200 : changed + 1000], atol=1e-5)
    beats = slice(softer + 1000, softer + 5000)
    assert np.abs(y[beats]).max() < 0.26 * np.abs(x[beats]).max()


def test_a_wish_to_listen_is_taken_where_nobody_listens_and_says_so(tmp_path: Path) -> None:
    daemon = Daemon(settings_in(tmp_path), models=fakes())
    answer = daemon.commands.obey(Command("c-1", "listen", 4e9, listen=Listen(strength=0.5)))
    assert answer.ok and answer.says.endswith("but nobody listens: [listen] output is none")
    assert answer.listening is not None and answer.listening.strength == 0.5


def test_feedback_is_told_by_light_status_and_health(tmp_path: Path) -> None:
    panel = FakePanel()
    settings = settings_in(tmp_path, listen={"output": "device", "gain_db": 12.0})
    daemon = Daemon(settings, models=fakes(), panel=panel, clock=FakeClock())
    daemon.parts.outbox = Outbox(settings.device.state_dir / "outbox")
    n = np.arange(1900)
    rising = 1e-3 * 10.0 ** (0.0625 * n / 256) * np.sin(2 * np.pi * 437.5 * n / 2000)
    daemon.parts.feedback.hear(rising, rising)
    message = daemon.report.message()
    assert message.listening is not None and message.listening.gain_db == 6.0
    assert read(Health, encode(message)).listening == message.listening
    assert panel.light is Light.FEEDBACK
    assert "feedback: the microphone hears the loudspeaker" in daemon.report.words()
    quiet = synthetic(seed=1).heart.render(0, 10_000)
    daemon.parts.feedback.hear(quiet, quiet)
    assert panel.light is not Light.FEEDBACK and "feedback" not in daemon.report.words()
    daemon.parts.outbox.close()


def test_raw_sound_is_tapped_before_it_is_decimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tapped: list[Block] = []
    monkeypatch.setattr(NoListener, "tap", lambda self, block: tapped.append(block))
    settings = settings_in(tmp_path, source={"pace": "real"}, exam={"min_s": 2, "max_s": 2})
    source = synthetic(pace="real", rate_hz=8000)
    assert Daemon(settings, models=fakes(), source=source).run(signals=False) == 0
    assert sum(len(block.samples) for block in tapped) >= 16000
    assert all(b.index == a.index + len(a.samples) for a, b in zip(tapped, tapped[1:], strict=False))


def test_without_a_broker_exams_wait(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    settings = settings_in(tmp_path)
    daemon = Daemon(settings, models=fakes(), source=synthetic())
    daemon.run(signals=False)
    assert daemon.uplink is None and len(stored(settings)) == 1
    assert "no broker is set ([mqtt] host); exams wait in the outbox" in caplog.text


# ---- button and lights


def test_one_button_is_enough(tmp_path: Path) -> None:
    settings = settings_in(
        tmp_path,
        source={"pace": "real"},
        exam={"autostart": False, "exams": 0, "max_s": 60, "sites": ["AV", "MV"]},
    )
    panel = FakePanel()
    with running(Daemon(settings, models=fakes(), source=synthetic(pace="real"), panel=panel)) as daemon:
        until(lambda: panel.light is Light.READY)
        panel.press(Press.SHORT)
        until(lambda: daemon.examiner and daemon.examiner.phase is Phase.RECORDING)
        panel.press(Press.HELD)
        until(lambda: panel.light is Light.ASK_CANCEL)
        panel.press(Press.SHORT)
        until(lambda: daemon.examiner and daemon.examiner.phase is Phase.IDLE)
        panel.press(Press.SHORT)
        until(lambda: daemon.examiner and daemon.examiner._running and daemon.examiner._running.fed > 5000)
        panel.press(Press.LONG)
        until(lambda: daemon.examiner and daemon.examiner.phase is Phase.BETWEEN)
        until(lambda: panel.light is Light.NEXT_SITE)
        panel.press(Press.DOUBLE)
        until(lambda: daemon.examiner and daemon.examiner.phase is Phase.RECORDING)
        running_ = daemon.examiner._running if daemon.examiner else None
        assert running_ is not None and (len(running_.state.sites), running_.files) == (1, {})
        again = running_.state.current.start
        until(lambda: running_.fed > again + 4000)
        panel.press(Press.LONG)
        until(lambda: daemon.examiner and daemon.examiner.phase is Phase.BETWEEN)
        panel.press(Press.SHORT)
        until(lambda: daemon.examiner and daemon.examiner.phase is Phase.RECORDING)
        panel.press(Press.SHORT)
        until(lambda: panel.light is Light.STORED)
    ((exam, files),) = stored(settings)
    assert [s.site for s in exam.sites] == ["AV"] and exam.sites[0].start_index == again
    assert len(read_sound(files["AV"]).samples) == exam.sites[0].samples
    assert {Light.READY, Light.LISTENING, Light.STORED, Light.OFF} <= set(panel.history)


def test_codes_reach_exams_without_a_screen(tmp_path: Path) -> None:
    """From the list, from the keypad, again for a second exam; a cancelled exam gives its code back."""
    (tmp_path / "codes.txt").write_text("A-1\nA-2\nA-3\n")
    os.mkfifo(tmp_path / "reader")
    settings = settings_in(
        tmp_path,
        source={"pace": "real"},
        exam={"autostart": False, "exams": 0, "max_s": 60, "subjects": str(tmp_path / "codes.txt")},
        panel={"keyboard": f"text:{tmp_path / 'reader'}"},
    )
    panel, typed = FakePanel(), code("V3", 7)
    with running(Daemon(settings, models=fakes(), source=synthetic(pace="real"), panel=panel)) as daemon:

        def heard() -> bool:
            examiner = daemon.examiner
            if examiner is None or examiner.phase is not Phase.RECORDING:
                return False
            running_ = examiner._running
            return running_ is not None and running_.fed > running_.state.current.start + 4000

        def exam(first: Press, last: Press = Press.SHORT) -> None:
            done = len(daemon.exams)
            panel.press(first)
            until(heard)
            if last is Press.HELD:
                panel.press(Press.HELD)
            panel.press(Press.SHORT)
            until(lambda: daemon.examiner and daemon.examiner.phase is Phase.IDLE)
            if last is not Press.HELD:
                until(lambda: len(daemon.exams) > done)

        until(lambda: panel.light is Light.READY)
        exam(Press.SHORT)
        exam(Press.DOUBLE)
        exam(Press.SHORT, Press.HELD)
        exam(Press.SHORT)
        with (tmp_path / "reader").open("w") as reader:
            reader.write(f"{typed}\n")
        until(lambda: Light.CODE_TAKEN in panel.history)
        exam(Press.SHORT)
        exam(Press.SHORT)
    assert [exam.subject for exam, _ in stored(settings)] == ["A-1", "A-1", "A-2", typed, "A-3"]


@pytest.mark.parametrize(("how", "off"), [("poweroff", 1), ("stop", 0)])
def test_a_very_long_press_ends_all_safely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, off: int
) -> None:
    switched: list[int] = []
    monkeypatch.setattr(daemon_module, "switch_off", lambda: switched.append(1))
    settings = settings_in(
        tmp_path,
        source={"pace": "real"},
        exam={"autostart": False, "exams": 0, "max_s": 60},
        panel={"shutdown": how},
    )
    panel = FakePanel()
    daemon = Daemon(settings, models=fakes(), source=synthetic(pace="real"), panel=panel)
    thread = threading.Thread(target=lambda: daemon.run(signals=False))
    thread.start()
    until(lambda: panel.light is Light.READY)
    panel.press(Press.SHORT)
    until(lambda: daemon.examiner and daemon.examiner._running and daemon.examiner._running.fed > 4000)
    panel.press(Press.SHUTDOWN)
    thread.join(60)
    assert not thread.is_alive() and len(switched) == off and Light.SHUTTING_DOWN in panel.history
    ((exam, _),) = stored(settings)
    assert exam.ended == "stopped"


def test_bad_contact_is_told_by_light_within_three_seconds_of_sound(tmp_path: Path) -> None:
    settings = settings_in(
        tmp_path, source={"pace": "real"}, exam={"autostart": False, "exams": 0, "max_s": 60}
    )
    panel = FakePanel()
    with running(
        Daemon(settings, models=fakes(), source=synthetic(pace="real", level=0.0), panel=panel)
    ) as daemon:
        until(lambda: panel.light is Light.READY)
        panel.press(Press.SHORT)
        until(lambda: panel.light is Light.BAD_CONTACT)
        now = daemon.examiner._running if daemon.examiner else None
        assert now is not None and now.told - now.state.current.start <= 3 * 2000


# ---- sources that fail


def test_a_source_that_comes_back_leaves_a_gap_and_two_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = settings_in(tmp_path, source={"pace": "real"}, exam={"min_s": 4, "max_s": 4})
    source = synthetic(pace="real", gone_after_s=1.0, gone_for_s=0.4)
    assert Daemon(settings, models=fakes(), source=source).run(signals=False) == 0
    ((exam, _),) = stored(settings)
    ((start, end),) = exam.sites[0].gaps
    assert abs(start - 2000) <= 16 and end - start > 0.3 * 2000
    assert exam.sites[0].samples == 8000 and exam.ended == "complete"
    said = [r.getMessage() for r in caplog.records if r.name == "daemon" and "source" in r.getMessage()]
    assert len([line for line in said if "went away" in line]) == 1
    assert len([line for line in said if "came back after" in line]) == 1


def test_a_source_that_stays_away_ends_the_exam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_thread, "GONE_AFTER_S", 0.3)
    settings = settings_in(tmp_path, source={"pace": "real"}, exam={"max_s": 60})
    source = synthetic(pace="real", gone_after_s=2.5, gone_for_s=1e6)
    Daemon(settings, models=fakes(), source=source).run(signals=False)
    ((exam, _),) = stored(settings)
    # up to the last whole hop before it went
    assert (exam.ended, exam.sites[0].samples) == ("source gone", 5000 // 16 * 16)


def test_a_silent_stop_is_told_and_the_source_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(health, "SILENT_AFTER_S", 0.5)

    class Sleepy(SyntheticSource):
        """Falls silent after a second, once."""

        starts = 0

        def start(self) -> None:
            self.starts += 1
            if self.starts > 1:
                self._freeze = float("inf")
            super().start()

    settings = settings_in(tmp_path, source={"pace": "real"}, exam={"min_s": 2, "max_s": 2})
    source = Sleepy(HeartSettings(freeze_after_s=1.0), pace="real")
    assert Daemon(settings, models=fakes(), source=source).run(signals=False) == 0
    assert source.starts == 2
    assert "though it seems alive; it is started again" in caplog.text
    assert len(stored(settings)) == 1


class Broken:
    """A source that cannot be started."""

    rate_hz = 2000
    name = "broken"

    def start(self) -> None:
        raise StethopiError("microphone broken: does not start; unplug it and plug it in again")

    def read(self) -> Block | None:
        raise SourceGone("never there")

    def stop(self) -> None:
        pass


def test_an_impatient_run_fails_and_a_patient_one_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_in(tmp_path, source={"pace": "real"})
    with pytest.raises(StethopiError, match="does not start"):
        Daemon(settings, models=fakes(), source=Broken(), patient=False).run(signals=False)
    with running(Daemon(settings, models=fakes(), source=Broken())):
        until(lambda: "source went away: microphone broken" in caplog.text)
    assert caplog.text.count("source went away") == 1


def test_a_file_that_is_not_there_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, source={"spec": f"file:{tmp_path / 'nothing.wav'}"})
    with pytest.raises(BadInput, match=r"nothing\.wav"):
        Daemon(settings, models=fakes()).run(signals=False)


def test_an_unexpected_error_in_a_thread_ends_the_daemon_and_keeps_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_in(tmp_path, source={"pace": "real"}, exam={"max_s": 60})
    models = fakes()
    daemon = Daemon(settings, models=models, source=synthetic(pace="real"))

    def fail(x: np.ndarray) -> list[Any]:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(models.judge, "process", fail)
    assert daemon.run(signals=False) == 1
    assert "the judge thread failed" in caplog.text
    box = Outbox(settings.device.state_dir / "outbox")
    assert len(box.partials) == 1
    box.close()


# ---- lateness


def test_a_late_machine_sheds_but_never_the_recording(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(FakeCleaner):
        """Takes longer than the sound lasts, for a while."""

        def process(self, x: np.ndarray) -> np.ndarray:
            if self.seen < 3000:
                time.sleep(3 * len(x) / 2000)
            return super().process(x)

    settings = settings_in(tmp_path, source={"pace": "real"}, exam={"min_s": 5, "max_s": 5})
    models = Models("fake", Slow(), FakeJudge(), META)
    daemon = Daemon(settings, models=models, source=synthetic(pace="real", seed=2))
    assert daemon.run(signals=False) == 0
    said = [r.getMessage() for r in caplog.records if "late" in r.getMessage()]
    assert [line.split(": ")[1] for line in said][:3] == [
        "waveform left out",
        "classification left out",
        "denoising left out",
    ]
    ((exam, files),) = stored(settings)
    assert exam.sites[0].samples == 10000 and exam.sites[0].gaps == ()
    assert exam.dropped["waveform"] > 0
    expected = SyntheticSource(HeartSettings(seed=2)).heart.render(0, 10000)
    assert np.allclose(read_sound(files["AV"]).samples, expected, atol=2e-7)


def test_what_the_queue_cannot_take_is_a_marked_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_module, "_QUEUE_S", 0.1)

    class Stuck(FakeCleaner):
        def process(self, x: np.ndarray) -> np.ndarray:
            if 1000 < self.seen < 1100:
                time.sleep(1.0)
            return super().process(x)

    settings = settings_in(tmp_path, source={"pace": "real"}, exam={"min_s": 3, "max_s": 3})
    daemon = Daemon(
        settings, models=Models("fake", Stuck(), FakeJudge(), META), source=synthetic(pace="real")
    )
    daemon.run(signals=False)
    ((exam, _),) = stored(settings)
    assert daemon.parts.source.blocks_lost > 10
    assert exam.dropped["source blocks"] == daemon.parts.source.blocks_lost
    assert sum(end - start for start, end in exam.sites[0].gaps) >= 40 * daemon.parts.source.blocks_lost - 40
    assert exam.sites[0].samples == 6000


# ---- settings and time


def test_the_settings_become_plan_and_one_exam(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, exam={"sites": ["AV", "MV"], "good_windows": 4})
    assert plan_of(settings).sites == ("AV", "MV") and plan_of(settings).good_windows == 4
    one = one_exam(settings, "PV", 7.0)
    assert (one.exam.sites, one.exam.min_s, one.exam.max_s, one.exam.exams) == (("PV",), 7.0, 7.0, 1)
    assert one.exam.autostart and one.exam.good_windows > 7


@pytest.mark.parametrize("jump_s", [-50 * 3.2e7, 10 * 3.2e7, -3600.0])
def test_a_clock_that_jumps_in_mid_exam_is_harmless(tmp_path: Path, jump_s: float) -> None:
    clock = FakeClock()

    class Jumping(SyntheticSource):
        reads = 0

        def read(self) -> Block | None:
            self.reads += 1
            clock.advance(0.02)
            if self.reads == 100:
                clock.jump(jump_s)
            return super().read()

    settings = settings_in(tmp_path)
    source = Jumping(HeartSettings(), pace="fast")
    assert Daemon(settings, models=fakes(), source=source, clock=clock).run(signals=False) == 0
    ((exam, _),) = stored(settings)
    assert exam.sites[0].samples == 16000
    assert exam.finished.monotonic_s >= exam.started.monotonic_s


def test_the_quota_of_the_settings_refuses_new_exams(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_in(tmp_path, outbox={"quota_mb": 1, "keep_delivered": False}, exam={"max_s": 200})
    daemon = Daemon(settings, models=fakes(), source=synthetic(seconds=6.0))
    with running(daemon):
        until(lambda: "the quota of 1 MB is used up" in caplog.text)
        assert daemon.outbox is not None and not daemon.outbox.keep_delivered


# ---- the ECG beside it


def test_sound_and_ecg_of_one_exam_from_the_device_to_the_host(mosquitto: Mosquitto, tmp_path: Path) -> None:
    settings = settings_in(
        tmp_path,
        mqtt={"host": mosquitto.host, "port": mosquitto.port},
        source={"pace": "real"},
        ecg={"spec": "synthetic:off_after_s=2,off_for_s=1"},
        exam={"min_s": 5, "max_s": 5},
    )
    models = replace(fakes(), lead=Through(0.5))
    with Ingest(mosquitto.host, mosquitto.port) as host:
        daemon = Daemon(settings, models=models, source=synthetic(pace="real"), pace=HURRIED)
        assert daemon.run(signals=False) == 0
        assert host.wrong == [], "every published message fits its JSON Schema"
        (exam_id,) = host.stored
        exam = read(Exam, host.results[exam_id])
        track = exam.sites[0].ecg
        assert track is not None and exam.ecg_source == "synthetic lead, 70/min"
        # how exactly is tested with clocks of its own; here a busy machine may tell of its samples late
        assert track.samples == pytest.approx(5 * 360, abs=200) and abs(track.start_s) < 0.5
        assert track.reasons[0] == "lead off"
        spans = [(track.start_s + a / 360, track.start_s + b / 360) for a, b in track.gaps]
        assert pytest.approx((2.0, 3.2), abs=0.2) in spans
        traces = [read(LiveEcg, p) for topic, p in host.payloads if topic.live == "ecg"]
        # in many small pieces or, from a busy machine, in a few large ones
        assert sum(len(t.raw) for t in traces) > 2 * 360 and {t.lead for t in traces} >= {"on", "lead off"}
        assert all(abs(t.at - t.index * 2000 / 360) < 1000 for t in traces if t.at is not None)
        good = [t for t in traces if not t.clean_gaps and t.clean]
        assert good and all(abs(r - 2 * c) <= 2 for t in good for r, c in zip(t.raw, t.clean, strict=True))
    assert "denoise ecg" in {stage.stage for stage in exam.latency}
