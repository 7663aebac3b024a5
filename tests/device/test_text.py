"""Text as people's programs write it: the same words whatever the encoding, and on whatever terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from device.exam.subjects import SubjectList
from device.settings.settings import Settings
from device.text import decoded, one_line, printable

WORDS = 'id = "Raum-3"\n# Müller µV\n'


@pytest.mark.parametrize(
    "raw",
    [
        WORDS.encode("utf-8"),
        WORDS.encode("utf-8-sig"),
        WORDS.encode("utf-16"),
        b"\xfe\xff" + WORDS.encode("utf-16-be"),
        WORDS.encode("utf-16-le"),
        WORDS.encode("utf-16-be"),
        WORDS.encode("latin-1"),
        WORDS.encode("cp1252"),
        (WORDS + "é").encode()[:-1],
    ],
)
def test_every_encoding_gives_the_same_words(raw: bytes) -> None:
    assert decoded(raw) == WORDS


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_settings_passwords_and_lists_of_codes_take_them(tmp_path: Path, encoding: str) -> None:
    secret, codes, settings = tmp_path / "secret", tmp_path / "codes.txt", tmp_path / "device.toml"
    secret.write_text("schlüssel\r\n", encoding, newline="")
    codes.write_text("V3-0001-R\r\nV3-0002-P # für später\r\n", encoding, newline="")
    settings.write_text(
        '[device]\r\nid = "room-3" # Müller\r\n[mqtt]\r\nusername = "a"\r\npassword_file = "secret"\r\n',
        encoding,
        newline="",
    )
    found = Settings.load(settings)
    assert (found.device.id, found.mqtt.password()) == ("room-3", "schlüssel")
    assert SubjectList(codes, tmp_path / "place").codes == ["V3-0001-R", "V3-0002-P"]


def test_what_a_terminal_cannot_show_has_a_likeness_or_an_escape() -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), "ascii")
    assert printable("hiss at 3–7 s, 5 µV", ascii_only) == "hiss at 3-7 s, 5 uV"
    assert printable("心.wav", ascii_only) == r"\u5fc3.wav"
    everything = io.TextIOWrapper(io.BytesIO(), "utf-8")
    assert printable("3–7 s 心", everything) == "3–7 s 心"
    assert printable("M\udcfcller", everything) == r"M\xfcller"
    assert one_line("a\nb\x1b[31m") == r"a\nb\x1b[31m"
