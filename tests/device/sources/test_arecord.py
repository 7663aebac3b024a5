"""The microphone through arecord: frames, cards by name, what it says; a real process on a real clock."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from device.daemon.source_thread import RETRY_S
from device.errors import SourceGone, StethopiError
from device.sources import alsa, open_source
from device.sources.arecord import FORMATS, Arecord, decoded
from device.sources.base import Block
from device.sources.files import write_sound
from tests.audio_loop import MICROPHONE, AudioLoop

CARDS = """\
 0 [vc4hdmi        ]: vc4-hdmi - vc4-hdmi
                      vc4-hdmi
 1 [sndrpigooglevoi]: RPi-simple - snd_rpi_googlevoicehat_soundcar
                      snd_rpi_googlevoicehat_soundcard
 2 [Device         ]: USB-Audio - USB Audio Device
                      C-Media Electronics Inc. USB Audio Device at usb-3f980000.usb-1.3, full speed
"""
PARAMS = """\
access: RW_INTERLEAVED
format: S32_LE
subformat: STD
channels: 2
rate: 48000 (48000/1)
period_size: 480
buffer_size: 9600
"""


@pytest.mark.parametrize("form", list(FORMATS))
def test_frames_become_sound(form: str) -> None:
    x = np.array([[0.5, -1.0], [-0.25, 0.0], [0.0, 0.75]])
    bits = {"S32_LE": 31, "S24_3LE": 23, "S16_LE": 15}[form]
    whole = np.round(x * 2.0**bits).astype("<i4")
    data = whole.tobytes()
    if form == "S24_3LE":
        data = whole.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    elif form == "S16_LE":
        data = whole.astype("<i2").tobytes()
    y = decoded(data + b"\x01", form, 2)
    assert y.dtype == np.float32 and np.array_equal(y, x.astype(np.float32))


def test_the_smallest_steps_are_kept() -> None:
    steps = np.array([1 << 8, -(1 << 8), (1 << 30) + (1 << 8)], "<i4")
    assert decoded(steps.tobytes(), "S32_LE", 1)[:, 0].tolist() == (steps / 2.0**31).tolist()


def asound(folder: Path, cards: str = CARDS) -> Path:
    (folder / "cards").write_text(cards)
    running = folder / "card1" / "pcm0c" / "sub0"
    running.mkdir(parents=True)
    (running / "hw_params").write_text(PARAMS)
    closed = folder / "card2" / "pcm0c" / "sub0"
    closed.mkdir(parents=True)
    (closed / "hw_params").write_text("closed\n")
    return folder


def test_cards_and_what_they_were_really_set_to(tmp_path: Path) -> None:
    root = asound(tmp_path)
    found = alsa.cards(root)
    assert [card.id for card in found] == ["vc4hdmi", "sndrpigooglevoi", "Device"]
    assert found[2].name == "USB Audio Device" and found[2].matches("usb audio") and found[1].number == 1
    (params,) = alsa.capturing(root)
    assert params == alsa.HwParams(1, "S32_LE", 2, 48000) and str(params) == "S32_LE, 2 channels, 48000 Hz"
    assert alsa.cards(tmp_path / "nothing") == [] and alsa.capturing(tmp_path / "nothing") == []


FAKE = r"""#!/bin/sh
if [ "$1" = "-L" ]; then printf 'null\nspeexrate\ndefault\n    whatever\nmine\n'; exit 0; fi
while [ $# -gt 0 ]; do
  case "$1" in -D) pcm=$2;; -f) form=$2;; -c) channels=$2;; -r) rate=$2;; esac
  shift
done
echo "$pcm $form $channels $rate" >> "LOG"
BEHAVIOUR
"""
SETUP = r"""printf 'Its setup is:\n  format       : %s\n  channels     : %s\n  rate         : %s\n' """


def fake_arecord(folder: Path, behaviour: str) -> str:
    """A program that takes arecord's arguments, notes them in `log` and does as it is told."""
    path = folder / "arecord"
    path.write_text(FAKE.replace("BEHAVIOUR", behaviour).replace("LOG", str(folder / "log")))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def tried(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


SENDS = f'{SETUP} "$form" "$channels" "$rate" >&2; exec cat /dev/zero'


def test_a_card_is_bound_by_its_name_and_never_by_its_number(tmp_path: Path) -> None:
    command = fake_arecord(tmp_path, SENDS)
    (tmp_path / "asound").mkdir()
    root = asound(tmp_path / "asound")
    source = Arecord("usb", command=command, root=root)
    assert source.name == "arecord USB Audio Device" and tried(tmp_path) == ["hw:CARD=Device S32_LE 2 48000"]
    (root / "cards").write_text(CARDS.replace(" 2 [Device ", " 7 [Device "))
    source.start()
    assert source.read() is not None
    source.stop()
    assert set(tried(tmp_path)) == {"hw:CARD=Device S32_LE 2 48000"}
    assert Arecord("plughw:CARD=Device", command=command, root=root).name == "arecord plughw:CARD=Device"
    assert Arecord("mine", command=command, root=root).name == "arecord mine"
    with pytest.raises(StethopiError) as caught:
        Arecord("blue", command=command, root=root)
    assert str(caught.value) == (
        'no microphone whose name contains "blue" for arecord; there are: "vc4-hdmi", '
        '"snd_rpi_googlevoicehat_soundcar", "USB Audio Device", "default", "mine"; '
        "plug it in, or look with: arecord -l"
    )


def test_the_first_format_that_the_card_really_has(tmp_path: Path) -> None:
    says = "arecord: set_params:1343: Sample format non available"
    refuses = f'[ "$form" = S16_LE ] || {{ echo "{says}" >&2; exit 1; }}\n'
    source = Arecord(command=fake_arecord(tmp_path, refuses + SENDS), root=tmp_path)
    assert source.setup is not None and source.setup.format == "S16_LE"
    assert tried(tmp_path)[-1] == "default S16_LE 2 48000"


def test_a_card_that_gives_another_rate_than_asked_is_refused_with_both(tmp_path: Path) -> None:
    command = fake_arecord(tmp_path, f'{SETUP} "$form" "$channels" 44100 >&2; exec cat /dev/zero')
    with pytest.raises(StethopiError) as caught:
        Arecord(rate_hz=16000, command=command, root=tmp_path)
    assert str(caught.value) == (
        'arecord "default" records at none of 16000 Hz (asked for S16_LE, 1 channels, 16000 Hz, got S16_LE, '
        "1 channels, 44100 Hz); end what else records from it, or set another rate_hz"
    )
    assert Arecord(command=command, root=tmp_path).rate_hz == 44100


def test_without_arecord_the_remedy_is_told(tmp_path: Path) -> None:
    with pytest.raises(StethopiError) as caught:
        Arecord(command=str(tmp_path / "none"), root=tmp_path)
    assert str(caught.value) == (
        "arecord cannot be run (No such file or directory); type: apt-get install -y alsa-utils, or set "
        '[source] spec = "microphone"'
    )


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_process_that_ends_is_a_microphone_that_is_gone_and_nothing_of_it_stays(tmp_path: Path) -> None:
    fails = 'head -c 38400 /dev/zero; echo "arecord: pcm_read:2221: read error: No such device" >&2; exit 1'
    command = fake_arecord(tmp_path, f'{SETUP} "$form" "$channels" "$rate" >&2; {fails}')
    source = Arecord(command=command, root=tmp_path)
    before, threads = descriptors(), threading.active_count()
    for round_ in range(20):
        source.start()
        with pytest.raises(SourceGone, match=r"any more \(arecord: .*No such device\); plug it in again"):
            for _ in range(11):
                block = source.read()
                assert isinstance(block, Block)
                assert round_ or not block.lost
        source.stop()
    assert (descriptors(), threading.active_count()) == (before, threads)


def test_an_overrun_is_believed(tmp_path: Path) -> None:
    """Half a second of sound, an overrun of 0.3 s that arecord tells of, and sound again."""
    now = [100.0]
    source = Arecord(command=fake_arecord(tmp_path, SENDS), root=tmp_path, monotonic=lambda: now[0])
    source.start()
    assert source._run is not None
    source._run.end()
    source._queue.clear()
    lost = []
    for k in range(50):
        now[0] += 0.01 + (0.3 if k == 40 else 0.0)
        source._take(np.zeros((480, 2), np.float32), k == 40)
        block = source._block(*source._queue.popleft())
        lost.append(block.lost)
    assert sum(lost) == lost[40] == 14400 and source.overflows == 1
    source.stop()


# ---- through PulseAudio


@pytest.mark.audio
def test_a_tone_through_the_loop(audio_loop: AudioLoop, tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 150 * np.arange(48000 * 10) / 48000)
    player = audio_loop.play(write_sound(tmp_path / "tone.wav", tone, 48000))
    source = open_source(f"arecord:{MICROPHONE}", rate_hz=16000)
    pieces: list[np.ndarray] = []
    lost = 0
    try:
        source.start()
        while sum(map(len, pieces)) < 40000:
            block = source.read()
            assert block is not None
            pieces.append(block.samples)
            lost += block.lost
    finally:
        source.stop()
        player.kill()
        player.wait()
    x = np.concatenate(pieces)[16000:]
    # from one rise through the same level to the next: a busy machine may tear the loop's tone, and a torn
    # tone's spectrum is smeared, but its periods are whole
    up = np.flatnonzero((x[:-1] < 0.2) & (x[1:] >= 0.2))
    at = up + (0.2 - x[up]) / (x[up + 1] - x[up])
    assert 16000 / np.median(np.diff(at)) == pytest.approx(150, abs=0.5)
    assert np.abs(x).max() == pytest.approx(0.5, abs=0.1) and lost == 0


@pytest.mark.audio
@pytest.mark.parametrize("kind", ["arecord", "microphone"])
def test_the_microphone_is_unplugged_and_plugged_in_again(audio_loop: AudioLoop, kind: str) -> None:
    """Three times: told, recovered, what was missed counted, nothing left behind."""
    source = open_source(f"{kind}:{MICROPHONE}", rate_hz=16000)
    counts = []
    end = 0
    back_s = []
    for _ in range(3):
        began_s = time.monotonic()
        source.start()
        for k in range(20):
            block = source.read()
            assert block is not None
            if k == 0 and end:
                back_s.append(time.monotonic() - began_s)
            assert block.index == end + block.lost and (block.lost > 1600) == (k == 0 and end > 0)
            end = block.index + len(block.samples)
        audio_loop.take_away()
        with pytest.raises(SourceGone):
            while block := source.read():
                end = block.index + len(block.samples)
        with pytest.raises(SourceGone):
            source.start()
            while block := source.read():
                end = block.index + len(block.samples)
        audio_loop.give_back()
        source.stop()
        counts.append((descriptors(), threading.active_count()))
    assert counts[1] == counts[2]
    # the daemon tries at least so often; the quicker of the two, because a busy machine is no slow microphone
    assert min(back_s) + RETRY_S[1] <= 3.0, back_s
