"""The sound's thread: how far a block's way through the program is."""

from __future__ import annotations

import queue
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import device
from device.clock import FakeClock
from device.contract.exam import Delay
from device.contract.live import LiveWave
from device.daemon.models import load_models
from device.daemon.sound_thread import SoundThread
from device.daemon.source_thread import SourceThread
from device.exam.examiner import Examiner
from device.exam.identity import Identity
from device.exam.plan import Plan
from device.listening.outputs import NoListener
from device.settings.settings import Settings
from device.settings.specs import HeartSettings
from device.sources.base import Block
from device.sources.synthetic import SyntheticSource
from device.storage.outbox import Outbox
from device.stream.chain import SoundChain
from device.stream.intake import Intake
from device.stream.ring import Ring
from device.stream.shedding import Shedder
from device.stream.waveform import LiveWaves

MOST_CHANGES = 20
"""Of file, while one block is processed."""


class _Way:
    """Records through which of the device's files the calls and returns of this thread go."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self._root = str(Path(device.__file__).parent)

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "return") and frame.f_code.co_filename.startswith(self._root):
            self.files.append(frame.f_code.co_filename.removeprefix(self._root))

    def take(self) -> list[str]:
        """The files since the last time, each change once."""
        files, self.files = self.files, []
        return [file for before, file in zip(["", *files], files, strict=False) if file != before]


class _InTime(queue.Queue[Block | None]):
    """A queue in which never more than the next block waits; counts the way of each."""

    def __init__(self, blocks: list[Block], way: _Way, told: list[LiveWave]) -> None:
        super().__init__()
        self._left, self._way, self._told = iter(blocks), way, told
        self.ways: list[tuple[list[str], bool]] = []
        """Of each block, and whether it completed a live message."""
        self._before = 0

    def get(self, block: bool = True, timeout: float | None = None) -> Block | None:
        self.ways.append((self._way.take(), len(self._told) > self._before))
        self._before = len(self._told)
        return next(self._left, None)

    def empty(self) -> bool:
        return True


def test_a_block_changes_file_at_most_twenty_times(tmp_path: Path) -> None:
    """A block of 20 ms with the released models, an exam under way, nobody late, no message due.

    Counted is how often the file changes from one `call` or `return` event of `sys.setprofile` to the next,
    among those of functions that stand in device/, between two takes from the queue. The way in and the way
    back both count, so a call into another file that comes back at once is two; code of NumPy, of the
    interpreter and of Python itself is not the device's. The most of three seconds.
    """
    settings = Settings.parse({"device": {"id": "s-1", "fleet": "f", "state_dir": str(tmp_path)}})
    models = load_models(settings)
    source = SyntheticSource(HeartSettings(rate_hz=2000, seed=5), pace="fast")
    source.start()
    blocks = [block for _ in range(200) if (block := source.read()) is not None]
    assert {len(block.samples) for block in blocks} == {40}
    ring, way, told = Ring(60), _Way(), list[LiveWave]()
    outbox = Outbox(tmp_path / "outbox")
    examiner = Examiner(
        Identity("f", "s-1", "0", "b", "heart", 2000, Delay(0.0, 8.0, 16.0, 24.0)),
        ring,
        models.judge,
        models.meta,
        outbox,
        FakeClock(),
    )
    chain = SoundChain(
        Intake(2000, ring),
        examiner.feed,
        models.denoiser,
        [],
        LiveWaves(lambda: examiner.exam_id, told.append),
    )
    blocks_in_time = _InTime(blocks, way, told)
    sound = SoundThread(
        blocks_in_time,
        chain,
        examiner,
        NoListener(),
        rate_hz=2000,
        shedder=Shedder(),
        source=_nothing_lost(),
        stop=threading.Event(),
        over=threading.Event(),
        fast=False,
    )
    examiner.start(Plan(("AV",), 30.0, 30.0, 9))
    before = sys.getprofile()
    sys.setprofile(way)
    try:
        sound.run()
    finally:
        sys.setprofile(before)
        examiner.abandon()
        outbox.close()
    steady = [files for files, message in blocks_in_time.ways[51:] if not message]
    assert len(told) == 40 and examiner.heard == 8000 and len(steady) == 120
    longest = max(steady, key=len)
    assert {"/denoise/mask.py", "/storage/recorder.py", "/stream/waveform.py"} <= set(longest)
    assert len(longest) - 1 <= MOST_CHANGES, " → ".join(longest)


def _nothing_lost() -> SourceThread:
    return SourceThread(
        lambda: SyntheticSource(HeartSettings()),
        queue.Queue(),
        begin=lambda source: None,
        stop=threading.Event(),
        sound_over=threading.Event(),
        clock=FakeClock(),
        gone=lambda gone: None,
        wait_for_it=False,
        patient=False,
        fast=False,
    )
