"""A QR reader or keypad without one: the kernel's events from a file, lines from a pipe."""

from __future__ import annotations

import logging
import os
import queue
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.panel import keypad
from device.panel.keypad import EVENT, Decoder, Keypad
from tests.waiting import until

CODES = {character: key for key, character in keypad._KEYS.items() if key < 60}


def typed(word: str, enter: int = 28) -> bytes:
    """As a keyboard types it: each key down, up, and the kernel's reports between."""
    data = b""
    for key in [*(CODES[character] for character in word.upper()), enter]:
        for kind, number, value in ((4, 4, 458756), (1, key, 1), (0, 0, 0), (1, key, 0), (0, 0, 0)):
            data += EVENT.pack(1700000000, 5, kind, number, value)
    return data


def key(number: int) -> bytes:
    return EVENT.pack(0, 0, 1, number, 1)


@settings(deadline=None)
@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-", min_size=1, max_size=30), st.data())
def test_what_is_typed_comes_out_whatever_the_pieces(word: str, data: st.DataObject) -> None:
    raw = typed(word) + typed("", 28) + typed("7", 96)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    decoder, found = Decoder(), []
    for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        found += decoder.feed(raw[a:b])
    assert found == [word, "7"]


def test_signs_and_corrections() -> None:
    decoder = Decoder()
    assert decoder.feed(key(78) + key(74) + key(115) + key(114)) == ["+", "-", "+", "-"]
    assert decoder.feed(key(79) + key(80) + key(14) + key(74) + key(81) + key(28)) == ["1-3"]
    assert decoder.feed(key(79) + key(1) + key(80) + key(28)) == ["2"]
    assert decoder.feed(EVENT.pack(0, 0, 1, 2, 2) + EVENT.pack(0, 0, 1, 3, 0)) == []  # held down, let go


def words(spec: str, **more: Path) -> tuple[Keypad, queue.Queue[str]]:
    found: queue.Queue[str] = queue.Queue()
    return Keypad(spec, found.put, **more), found


def test_a_keyboard_is_found_by_its_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "usb-QR_Reader-event-kbd")
    (tmp_path / "usb-Mouse-event-mouse").write_bytes(b"")
    pad, found = words("evdev", by_id=tmp_path)
    pad.start()
    with (tmp_path / "usb-QR_Reader-event-kbd").open("wb", buffering=0) as reader:
        reader.write(typed("V3-0042-K")[:100])
        reader.write(typed("V3-0042-K")[100:])
        assert found.get(timeout=20) == "V3-0042-K"
    pad.stop()
    pad.stop()


def test_it_goes_and_comes_back_told_once_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(keypad, "_RETRY_S", 0.02)
    path = tmp_path / "reader"
    os.mkfifo(path)
    pad, found = words(f"text:{path}")
    pad.start()
    with path.open("wb", buffering=0) as reader:
        reader.write(b"A-1\r\n")
        assert found.get(timeout=20) == "A-1"
    until(lambda: "went away" in caplog.text)
    with path.open("wb", buffering=0) as reader:
        reader.write(b"B-2\n")
        assert found.get(timeout=20) == "B-2"
    until(lambda: caplog.text.count("went away") == 2)
    pad.stop()
    assert caplog.text.count("came back") == 1 and found.empty()


def test_a_device_that_is_not_there_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keypad, "_RETRY_S", 0.01)
    looked: queue.Queue[None] = queue.Queue()
    pad, _ = words("evdev", by_id=tmp_path)
    real = pad._found

    def look() -> Path | None:
        looked.put(None)
        return real()

    monkeypatch.setattr(pad, "_found", look)
    pad.start()
    for _ in range(5):
        looked.get(timeout=20)
    pad.stop()
    assert caplog.text.count("no keyboard under /dev/input/by-id") == 1
