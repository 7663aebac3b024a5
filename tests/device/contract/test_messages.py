"""The wire contract: what leaves fits its JSON Schema, what comes is believed only when it is right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.contract import topics
from device.contract.chunks import Receipt, bitmap, check_chunk, missing_chunks
from device.contract.codec import BadMessage, decode, encode
from device.contract.control import Answer, Backlog, Command, Health, Listen, Listening, State
from device.contract.exam import Exam
from device.contract.live import LiveExam, LiveQuality, LiveWave, LiveWindow
from device.contract.schemas import schemas
from device.contract.topics import Address, host_filters, parse_topic
from device.contract.vocabulary import MONITORS, PRESETS, chunk_count, chunk_span, site_code
from device.listening import presets
from device.settings.sections import ListenSettings
from tests.device.draws import floats
from tests.device.exams import make_exam, moment
from tests.wire_schemas import FOLDER, check_published, validator

ADDRESS = Address("village", "stetho-1")
EXAM = make_exam(exam_id="0f8fad5b-d9cb-469f-a165-70867728950e")
HASH = "ab" * 32
LISTENING = Listening("raw", 0.5, "bell", -6.0, "device")


def examples() -> dict[str, Any]:
    """One payload for each topic."""
    live = {"exam": EXAM.id, "site": "AV"}
    return {
        ADDRESS.state: State(True, "0.1.0", "1", "running", "0" * 32),
        ADDRESS.result(EXAM.id): EXAM,
        ADDRESS.receipt: Receipt.of_missing(EXAM.id, HASH, {"AV": ([0, 2], 3)}),
        ADDRESS.health: Health(
            now=moment(),
            uptime_s=3.0,
            source="running",
            sample_age_s=0.1,
            samples=6000,
            lost_samples=0,
            exams=1,
            backlog=Backlog(1, 3000, 0, 12.0),
            partials=0,
            disk_free_bytes=10**9,
            memory_bytes=None,
            temperature_c=None,
            battery=None,
            shed="nothing",
            missed={"denoise": 2},
            dropped={},
            listening=LISTENING,
        ),
        ADDRESS.command: Command("c-1", "start", 1.8e9, {"site": "AV"}),
        ADDRESS.answer: Answer("c-1", "start", True, "recording AV", EXAM.id),
        ADDRESS.live("wave"): LiveWave(1600, 8, (1, -2), (0, 1)),
        ADDRESS.live("quality"): LiveQuality(1600, None, ("too quiet",), -60.0),
        ADDRESS.live("window"): LiveWindow(
            **live, start=0, probability=0.5, quality=0.25, reasons=("clipped",), good=False
        ),
        ADDRESS.live("exam"): LiveExam(
            **live, state="recording", position=0, sites=1, seconds=2.5, good_windows=0, needed_windows=8
        ),
    }


@pytest.mark.parametrize("topic", examples())
def test_every_payload_fits_its_schema_and_comes_back_equal(topic: str) -> None:
    message = examples()[topic]
    payload = encode(message)
    parsed = check_published(topic, payload)
    assert parsed.address == ADDRESS
    assert topics.read(type(message), payload) == message


def test_the_schemas_in_deploy_are_those_of_this_code() -> None:
    for name, schema in schemas().items():
        assert json.loads((FOLDER / name).read_text("utf-8")) == schema, (
            f"run: python -I -m device.contract.schemas {FOLDER}"
        )
    assert {p.name for p in FOLDER.glob("*.json")} == set(schemas())


# ---- what is not believed


def broken(value: Any) -> Any:
    """Variants of a JSON value, each with one place damaged."""
    junk = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**12), 10**18),
        floats(allow_nan=False),
        st.text(max_size=5),
        st.just([]),
        st.just({}),
        st.just("../../etc/passwd"),
        st.just("\ud800"),
    )

    def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        found = [path]
        if isinstance(node, dict):
            for key in node:
                found += places(node[key], (*path, key))
        if isinstance(node, list):
            for n in range(len(node)):
                found += places(node[n], (*path, n))
        return found

    def put(node: Any, path: tuple[Any, ...], new: Any) -> Any:
        if not path:
            return new
        copy = dict(node) if isinstance(node, dict) else list(node)
        copy[path[0]] = put(node[path[0]], path[1:], new)
        return copy

    return st.builds(lambda path, new: put(value, path, new), st.sampled_from(places(value)), junk)


@given(data=st.data())
def test_the_reader_is_never_more_lenient_than_the_schema(data: st.DataObject) -> None:
    topic = data.draw(st.sampled_from(sorted(examples())))
    message = examples()[topic]
    value = data.draw(broken(json.loads(encode(message))))
    payload = json.dumps(value).encode()
    try:
        read = topics.read(type(message), payload)
    except BadMessage as error:
        assert "\n" not in str(error)
        return
    # what was believed can be said again, and its schema agrees
    validator(
        {
            "Exam": "exam",
            "Receipt": "receipt",
            "State": "state",
            "Health": "health",
            "Command": "command",
            "Answer": "answer",
        }.get(type(message).__name__, "live")
    ).validate(json.loads(encode(read)))


@given(
    st.builds(
        Listen,
        monitor=st.none() | st.sampled_from(MONITORS),
        strength=st.none() | floats(0, 1),
        preset=st.none() | st.sampled_from(PRESETS),
        gain_db=st.none() | floats(-40, 40),
    )
)
def test_a_listen_command_fits_its_schema_and_comes_back_equal(listen: Listen) -> None:
    command = Command("c-1", "listen", 1.8e9, listen=listen)
    payload = encode(command)
    check_published(ADDRESS.command, payload)
    assert topics.read(Command, payload) == command
    answer = Answer("c-1", "listen", True, "raw, bell", listening=LISTENING)
    check_published(ADDRESS.answer, encode(answer))


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ({"monitor": "both"}, "listen.monitor: 'both' is none of raw, clean"),
        ({"strength": 1.5}, "listen.strength: 1.5 lies outside 0.0 to 1.0"),
        ({"strength": "0.5"}, "listen.strength: must be a number, is a text"),
        ({"preset": "trumpet"}, "listen.preset: 'trumpet' is none of none, bell, diaphragm, extended"),
        ({"gain_db": 41}, "listen.gain_db: 41 lies outside -40.0 to 40.0"),
        (None, "listen: belongs to the command listen, and to no other"),
    ],
)
def test_a_wish_out_of_range_is_not_believed(listen: Any, says: str) -> None:
    command = {"id": "c-1", "name": "listen", "expires_s": 1.8e9, "args": {}, "schema": 1, "listen": listen}
    with pytest.raises(BadMessage) as caught:
        topics.read(Command, json.dumps(command).encode())
    assert str(caught.value) == says
    with pytest.raises(BadMessage, match="belongs to the command listen"):
        topics.read(Command, json.dumps(command | {"name": "start", "listen": {}}).encode())


def test_wire_settings_and_filters_know_the_same_presets() -> None:
    assert PRESETS == presets.PRESETS
    choices = {item.name: item.metadata["key"].choices for item in dataclasses.fields(ListenSettings)}
    assert choices["preset"] == PRESETS and choices["monitor"] == MONITORS


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_a_bad_message_or_a_message(payload: bytes) -> None:
    for cls in (Exam, Receipt, Command):
        with pytest.raises(BadMessage):
            topics.read(cls, payload)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"schema": 2}, "schema: 2 lies outside 1 to 1"),
        ({"id": "../0f8fad5b-d9cb-469f-a165-70867728950"}, "id: "),
        ({"sites": []}, "sites: 0 entries; 1 to 16 allowed"),
        ({"ended": "no idea"}, "ended: 'no idea' is none of complete"),
        (
            {"verdict": {"label": "normal", "probability": 1.5, "quality": None, "reasons": []}},
            "verdict.probability",
        ),
        (
            {"verdict": {"label": "healthy", "probability": 0.5, "quality": None, "reasons": []}},
            "verdict.label",
        ),
        ({"subject": "Mary Smith"}, "subject: "),
        ({"started": 12}, "started: must be an object"),
        ({"dropped": {"windows": True}}, "dropped.windows: must be a whole number, is true or false"),
    ],
)
def test_a_bad_exam_is_told_by_its_place(damage: dict[str, Any], says: str) -> None:
    value = json.loads(encode(EXAM)) | damage
    with pytest.raises(BadMessage) as error:
        topics.read(Exam, json.dumps(value).encode())
    assert says in str(error.value)


@pytest.mark.parametrize(
    "name", ["../../x.flac", "a/b.flac", ".hidden", "", "x\0.flac", "C:\\x.flac", "x" * 101]
)
def test_a_file_name_that_is_no_plain_name_is_refused(name: str) -> None:
    value = json.loads(encode(EXAM))
    value["sites"][0]["sound"]["file"] = name
    with pytest.raises(BadMessage, match="sound.file"):
        topics.read(Exam, json.dumps(value).encode())


def test_sound_whose_chunks_do_not_add_up_is_refused() -> None:
    value = json.loads(encode(EXAM))
    value["sites"][0]["sound"]["chunks"] += 1
    with pytest.raises(BadMessage, match="chunks of 1024 bytes are not"):
        topics.read(Exam, json.dumps(value).encode())


@pytest.mark.parametrize("name", ["gaps", "clipped"])
@pytest.mark.parametrize(
    ("span", "fits"),
    [((0, 1), True), ((0, 20000), True), ((19999, 20000), True)]
    + [((0, 20001), False), ((7, 7), False), ((9, 3), False)],
)
def test_a_span_lies_within_the_recording_and_holds_a_sample(
    name: str, span: tuple[int, int], fits: bool
) -> None:
    """A recording that was lost or clipped to its end is still an exam; a span of nothing is a mistake."""
    value = json.loads(encode(EXAM))
    value["sites"][0][name] = [list(span)]
    payload = json.dumps(value).encode()
    if fits:
        assert getattr(topics.read(Exam, payload).sites[0], name) == (span,)
    else:
        with pytest.raises(BadMessage, match=f"{name}: a span lies outside"):
            topics.read(Exam, payload)


def test_a_site_named_twice_is_refused() -> None:
    value = json.loads(encode(EXAM))
    value["sites"] *= 2
    with pytest.raises(BadMessage, match="named twice"):
        topics.read(Exam, json.dumps(value).encode())


@pytest.mark.parametrize(
    "payload",
    [b"[" * 100_000, b'{"schema":NaN}', b"\xff\xfe", b"1" * 5000, b'{"a":' * 50_000, b"x" * (2 << 20)],
    ids=["deep list", "NaN", "not UTF-8", "huge number", "deep object", "too long"],
)
def test_hostile_bytes_are_refused(payload: bytes) -> None:
    with pytest.raises(BadMessage):
        topics.read(Exam, payload)


def test_a_field_of_a_newer_sender_is_ignored_and_a_missing_unknown_is_null() -> None:
    value = json.loads(encode(State(True, "9.9", "1", "running", "b")))
    value["colour"] = "green"
    del value["source"]
    assert topics.read(State, json.dumps(value).encode()) == State(True, "9.9", "1", "running", "b", None)
    del value["schema"]
    with pytest.raises(BadMessage, match="schema: is missing"):
        topics.read(State, json.dumps(value).encode())


def test_nothing_wrong_leaves() -> None:
    with pytest.raises(BadMessage, match="uptime_s"):
        encode(dataclasses.replace(examples()[ADDRESS.health], uptime_s=float("nan")))


# ---- topics


@pytest.mark.parametrize("topic", examples())
def test_topics_come_apart_as_they_were_built(topic: str) -> None:
    parsed = parse_topic(topic)
    assert (parsed.fleet, parsed.device) == ("village", "stetho-1")
    assert parsed.payload_type is type(examples()[topic])


def test_a_chunk_topic_names_exam_site_and_number() -> None:
    parsed = parse_topic(ADDRESS.sound(EXAM.id, "AV-2", 17))
    assert (parsed.kind, parsed.exam, parsed.site, parsed.chunk) == ("sound", EXAM.id, "AV-2", 17)
    assert parsed.payload_type is None
    assert site_code("AV-2") == "AV"


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "stethopi/2/village/stetho-1/state",
        "stethopi/1/village/../state",
        "stethopi/1/village/stetho-1/state/",
        "stethopi/1/village/stetho-1/state\n",
        "stethopi/1/village/stetho-1/live/other",
        f"stethopi/1/village/stetho-1/exam/{EXAM.id}/sound/AV/01",
        f"stethopi/1/village/stetho-1/exam/{EXAM.id}",
        f"stethopi/1/village/stetho-1/exam/{EXAM.id}/sound/XX/0",
        "stethopi/1/village/stetho-1/exam/../result",
        f"stethopi/1/village/stetho-1/exam/{EXAM.id}/sound/AV/-1",
        f"stethopi/1/village/stetho-1/exam/{EXAM.id}/sound/AV/999999",
    ],
)
def test_a_foreign_topic_is_refused(topic: str) -> None:
    with pytest.raises(BadMessage):
        parse_topic(topic)


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "..", ".x", "x" * 65, "ä", "a b", "x\n"])
def test_an_address_takes_only_path_safe_ids(name: str) -> None:
    with pytest.raises(ValueError, match="^device .*: use up to 64 letters"):
        Address("village", name)
    with pytest.raises(ValueError, match="^fleet .*: use up to 64 letters"):
        Address(name, "stetho-1")


def test_the_host_hears_every_topic_of_the_device() -> None:
    from paho.mqtt.client import topic_matches_sub

    filters = [f for f, _ in host_filters()]
    for topic, message in examples().items():
        from_device = not isinstance(message, Receipt | Command)
        assert any(topic_matches_sub(f, topic) for f in filters) == from_device


# ---- chunks


@given(size=st.integers(1, 5000), chunk=st.integers(1024, 2048))
def test_the_chunks_of_a_file_cover_it_once(size: int, chunk: int) -> None:
    spans = [chunk_span(n, size, chunk) for n in range(chunk_count(size, chunk))]
    assert [a for a, _ in spans] == [0, *[b for _, b in spans[:-1]]]
    assert spans[-1][1] == size
    assert all(0 < b - a <= chunk for a, b in spans)
    with pytest.raises(ValueError, match=r"^chunk \d+ of \d+$"):
        chunk_span(len(spans), size, chunk)


def test_a_chunk_has_just_its_length() -> None:
    sound = make_exam({"AV": bytes(2500)}).sites[0].sound
    check_chunk(sound, 2, bytes(452))
    for n, length in [(2, 451), (2, 1024), (0, 1023), (3, 1), (-1, 1024)]:
        with pytest.raises(BadMessage):
            check_chunk(sound, n, bytes(length))


@given(chunks=st.integers(1, 300), data=st.data())
def test_a_bitmap_comes_back(chunks: int, data: st.DataObject) -> None:
    missing = sorted(data.draw(st.sets(st.integers(0, chunks - 1))))
    text = bitmap(missing, chunks)
    assert missing_chunks(text, chunks) == missing


@pytest.mark.parametrize(("text", "chunks"), [("AAAA", 8), ("!!!!", 24), ("/w==", 7), ("", 1), ("AA", 8)])
def test_a_wrong_bitmap_is_refused(text: str, chunks: int) -> None:
    with pytest.raises(BadMessage, match="bitmap"):
        missing_chunks(text, chunks)


def test_a_receipt_says_one_thing() -> None:
    stored = json.loads(encode(Receipt.of_stored(EXAM.id, HASH)))
    for damage in ({"missing": {"AV": "AA=="}}, {"status": "missing"}, {"status": "refused"}):
        with pytest.raises(BadMessage):
            topics.read(Receipt, json.dumps(stored | damage).encode())
    assert topics.read(Receipt, encode(Receipt.of_refused(EXAM.id, HASH, "why " * 200))).why is not None


def test_the_schema_says_null_for_unknown_and_not_zero() -> None:
    value = json.loads(encode(EXAM))
    value["verdict"]["probability"] = None
    validator("exam").validate(value)
    value["verdict"]["probability"] = "unknown"
    with pytest.raises(jsonschema.ValidationError):
        validator("exam").validate(value)


def test_the_schemas_are_printed_by_the_module(tmp_path: Path) -> None:
    import subprocess
    import sys

    subprocess.run(
        [sys.executable, "-m", "device.contract.schemas", str(tmp_path)], check=True, capture_output=True
    )
    assert {p.name for p in tmp_path.iterdir()} == set(schemas())


def test_a_message_may_be_as_large_as_its_limit_and_no_larger() -> None:
    payload = encode(State(True, "0.3.0", "0.3.0", "running", "boot"))
    assert decode(State, payload, len(payload)).online
    with pytest.raises(BadMessage, match=f"{len(payload)} bytes; at most {len(payload) - 1}"):
        decode(State, payload, len(payload) - 1)
