"""Every error text of the settings and of the doctor is read here: it names the key or thing, the place, and
the remedy. The texts are found in the code, not listed: a new one is read without anybody thinking of it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import device
from device.checks import doctor, soundcheck
from device.errors import BadInput
from device.settings import settings
from device.settings.settings import Settings

CODE = Path(device.__file__).parent

ALLOWED = (
    r"(must be|must not be|must name|must rise|not from|not one of|none of) .+|"  # says what is allowed
    r"(Did you mean|Raise|Use|Set|Put|Write|Name|Lower|Keys:|Keys of|It belongs to|Correct|Add|Give) .+[.?]"
)
"""How a text of the settings ends: with what is allowed, or with what to do."""

VERBS = set(
    re.findall(
        r"\w+",
        """add apply ask attach check choose close connect convert copy correct delete enable end find free
        give install keep let listen look lower make mend move name open plug put raise reboot record remove
        replace resample run save see set sort start stop switch take tap try turn type unplug update upgrade
        use wait write""",
    )
)
"""What a remedy may tell one to do."""


def has_remedy(remedy: str) -> bool:
    """Whether it tells to do something, or what there is to choose from."""
    words = re.findall(r"[a-z]+", remedy.lower())
    choices = re.search(r"(Keys|it has|here:|example|Did you mean)", remedy)
    return any(word in VERBS for word in words) or choices is not None


# ---- the settings: every key, every way to get it wrong


def wrong_values(item: Any) -> Iterator[Any]:
    """Everything that a key does not take."""
    key = item.metadata["key"]
    yield from ([[]], {"a": 1}, float("nan"), "no such thing", "", True, 3, -7.5, [])
    if key.low is not None:
        yield from (key.low - 1, key.high + 1, float(key.low - 1))
    for choice in key.choices:
        if isinstance(choice, str):
            yield choice + "x"
            yield [choice, choice]
            yield [choice.lower() + "z"]
    for kind in key.spec:
        yield from (f"{kind}x", f"x{kind}:y", f"{kind}:")
    yield from ("file:", "synthetic:nonsense=1", "synthetic:rate=9999", "synthetic:rate=x", "zzz:1")


def mistakes() -> Iterator[tuple[dict[str, Any], str]]:
    """(settings, what the message must name)."""
    for section in fields(Settings):
        stage = section.default_factory  # type: ignore[misc]
        for item in fields(stage):  # type: ignore[arg-type]
            for value in wrong_values(item):
                yield {section.name: {item.name: value}}, f"[{section.name}] {item.name}"
            for key in (f"{item.name}x", f"zzz_{item.name}_zzz"):
                yield {section.name: {key: 1}}, f"[{section.name}] {key}"
        if section.name != "mqtt":
            yield {section.name: {"port": 1}}, f"[{section.name}] port"
        yield {f"{section.name}x": {}}, f"[{section.name}x]"
        yield {section.name: 3}, section.name
    yield {"zzz": {}}, "[zzz]"
    yield {"host": "pi"}, "host"
    yield {"mqtt": {"password": "x"}}, "[mqtt] password"
    yield {"exam": {"min_s": 70}}, "[exam] min_s"
    yield {"mqtt": {"cert_file": "c"}}, "[mqtt] key_file"
    yield {"mqtt": {"key_file": "c"}}, "[mqtt] cert_file"
    yield {"mqtt": {"password_file": "c"}}, "[mqtt] username"
    yield from ((extra, named) for extra, named in EXTRA)


EXTRA: list[tuple[dict[str, Any], str]] = [
    ({"panel": {"cancel_s": 6.0, "shutdown_s": 5.0}}, "[panel] shutdown_s"),
]
"""What one key asks of another, where the enumeration above does not come by itself."""


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    """(what was said, what it must name) of every mistake."""
    for table, named in mistakes():
        try:
            Settings.parse(table, "device.toml", folder)
        except BadInput as error:
            yield str(error), named  # else this value is right for this key


def test_every_wrong_value_of_every_key_is_told_with_key_place_and_remedy(tmp_path: Path) -> None:
    read = []
    for text, named in texts(tmp_path):
        assert text.startswith("device.toml: ") and "\n" not in text, text
        assert all(part in text for part in named.split()), (named, text)
        assert re.search(rf"({ALLOWED})$", text), text
        read.append(text)
    assert len(read) > 400

    def said(work: Any) -> str:
        with pytest.raises(BadInput) as caught:
            work()
        return str(caught.value)

    (tmp_path / "bad.toml").write_bytes(b"[mqtt]\nhost = pi")
    secret = Settings.parse({"mqtt": {"username": "u", "password_file": "secret"}}, "d", tmp_path).mqtt
    for work in (
        lambda: Settings.load(tmp_path / "none.toml"),
        lambda: Settings.load(tmp_path / "bad.toml"),
        lambda: Settings.load(tmp_path),
        lambda: Settings().change("exam", mx_s=3),
        secret.password,
    ):
        read.append(said(work))
        assert has_remedy(re.split(r"; |\. ", read[-1])[-1]), read[-1]
    unread = [
        f"line {call.lineno}: {shape}"
        for call in calls(Path(settings.__file__), "BadInput", "_refused")
        if (shape := template(call.args[-1] if ast.unparse(call.func) == "_refused" else call.args[0]))
        and not any(re.search(_as_pattern(shape), text) for text in read)
    ]
    assert unread == [], "texts of settings.py that are read by no test; add the mistake to EXTRA"


def _as_pattern(shape: str) -> str:
    return ".*".join(map(re.escape, shape.split("{}")))


# ---- the doctor, and what it repeats of others


def template(node: ast.expr) -> str:
    """A text as it stands in the code, `{}` where something is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    return "{}"


def calls(path: Path, *names: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
            yield node


def test_every_finding_of_the_doctor_names_the_remedy() -> None:
    read = 0
    for call in calls(Path(doctor.__file__), "Check"):
        name, state = call.args[0], ast.unparse(call.args[1])
        if state == "GOOD":
            continue
        read += 1
        where = f"doctor.py:{call.lineno}"
        assert template(name), where
        assert len(call.args) == 4, f"{where}: no remedy"
        remedy = call.args[3]
        if isinstance(remedy, ast.Constant | ast.JoinedStr | ast.BinOp):
            assert has_remedy(template(remedy)), f"{where}: {template(remedy)}"
    assert read >= 15


def test_every_finding_about_sound_names_the_remedy() -> None:
    texts = [ast.unparse(call.args[2]) for call in calls(Path(soundcheck.__file__), "SoundcheckFinding")]
    assert len(texts) >= 10
    for text in texts:
        assert has_remedy(getattr(soundcheck, text, text)), text
    for hardware in soundcheck.HARDWARE.values():
        assert all(has_remedy(text) for text in (hardware.set_up, hardware.level))


REPEATED = [
    *sorted((CODE / "sources").glob("*.py")),
    *(
        CODE / name
        for name in (
            "inference/bundle.py",
            "inference/interpreter.py",
            "panel/panels.py",
            "gpio.py",
            "listening/outputs.py",
            "settings/settings.py",
            "settings/reader.py",
            "settings/specs.py",
            "settings/sections.py",
        )
    ),
]
"""Where the errors come from that the doctor repeats."""


@pytest.mark.parametrize("path", REPEATED, ids=lambda path: path.name)
def test_every_error_that_the_doctor_repeats_has_thing_and_remedy(path: Path) -> None:
    for call in calls(path, "BadInput", "StethopiError", "SourceGone"):
        text = template(call.args[0])
        if not text.strip("{}: "):
            continue  # another's text, handed on
        where = f"{path.name}:{call.lineno}: {text}"
        assert re.match(r"[\w\[{].*\w", text) and "\n" not in text, where
        parts = re.split(r"; |\. ", text, maxsplit=1)
        if len(parts) == 1:
            assert re.search(
                r"must be|must not be|must name|not from|not one of|has channels|is no FLAC", text
            ) or ("cannot be written" in text), f"{where}: no remedy"
        else:
            assert has_remedy(parts[1]) or parts[1].startswith("{}"), where
