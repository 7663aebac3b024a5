"""A site's ECG on its way: wire, outbox, store, page. What an exam without one was, it still is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from device.contract import topics
from device.contract.chunks import Receipt
from device.contract.codec import BadMessage, encode
from device.contract.exam import EcgTrack, Exam, SoundFile, files_of
from device.contract.live import LiveEcg
from device.contract.topics import Address, parse_topic
from device.contract.vocabulary import chunk_count, chunk_span, ecg_name, is_ecg
from device.errors import StethopiError
from device.storage.outbox import Outbox
from host.dashboard.app import create_app
from host.dashboard.live import Hub, page_message
from host.store.arrivals import Arrivals
from host.store.store import Store
from tests.device.exams import make_exam
from tests.device.leads import beating
from tests.host.arrivals import beats, flac, topic
from tests.wire_schemas import check_published, validator

OFF = (1440, 1800)


def with_ecg(gaps: tuple[tuple[int, int], ...] = (OFF,)) -> tuple[Exam, dict[str, bytes], np.ndarray]:
    """An exam with one site of 10 s of sound and its ECG; the files; the ECG in mV."""
    x, _ = beating(10.0, 360, 0.005)
    for a, b in gaps:
        x[a:b] = 0.0
    ecg = flac(x / 5, 360)
    sound = flac(beats(10.0))
    exam = make_exam({"AV": sound})
    track = EcgTrack(
        rate_hz=360,
        true_rate_hz=360.036,
        start_s=-0.0125,
        spread_ms=0.4,
        samples=len(x),
        clipped=(),
        gaps=gaps,
        reasons=("lead off",) if gaps else (),
        sound=SoundFile(
            "AV-ecg.flac", len(ecg), hashlib.sha256(ecg).hexdigest(), 1024, chunk_count(len(ecg), 1024)
        ),
    )
    exam = replace(exam, sites=(replace(exam.sites[0], ecg=track),), ecg_source="AD8232")
    return exam, {"AV": sound, "AV.ecg": ecg}, x


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as made:
        yield made


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    with TestClient(create_app(store, Hub()), base_url="http://127.0.0.1:8080") as made:
        yield made


def deliver(store: Store, exam: Exam, files: dict[str, bytes], names: tuple[str, ...]) -> Any:
    arrival = None
    for name in names:
        sound = files_of(exam)[name]
        for n in range(sound.chunks):
            first, past = chunk_span(n, sound.size, sound.chunk_size)
            arrival = Arrivals(store).put_chunk(topic(exam, name, n), files[name][first:past])
    return arrival


# ---- wire


def test_an_exam_with_an_ecg_fits_its_schema_and_comes_back() -> None:
    exam, _, _ = with_ecg()
    payload = encode(exam)
    validator("exam").validate(json.loads(payload))
    assert topics.read(Exam, payload) == exam
    assert list(files_of(exam)) == ["AV", "AV.ecg"]


def test_an_exam_of_before_the_ecg_stays_valid() -> None:
    old = json.loads(encode(make_exam()))
    del old["ecg_source"]
    for site in old["sites"]:
        del site["ecg"]
    validator("exam").validate(old)
    read = topics.read(Exam, json.dumps(old).encode())
    assert read.ecg_source is None and read.sites[0].ecg is None and list(files_of(read)) == ["AV"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gaps": ((3500, 3700),)}, "a span lies outside"),
        ({"reasons": ("bored",)}, "none of"),
        ({"true_rate_hz": 1.0}, "25"),
    ],
)
def test_an_ecg_that_cannot_be_is_refused(change: dict[str, Any], said: str) -> None:
    exam, _, _ = with_ecg()
    site = exam.sites[0]
    assert site.ecg is not None
    broken = replace(exam, sites=(replace(site, ecg=replace(site.ecg, **change)),))
    with pytest.raises(BadMessage, match=said):
        encode(broken)


def test_topics_of_an_ecgs_pieces() -> None:
    exam, _, _ = with_ecg()
    address = Address(exam.fleet, exam.device)
    parsed = check_published(address.sound(exam.id, ecg_name("AV-2"), 3), b"x")
    assert (parsed.site, parsed.chunk, parsed.kind) == ("AV-2.ecg", 3, "sound")
    assert is_ecg("AV.ecg") and not is_ecg("AV")
    for bad in ("AV.ecg.ecg", ".ecg", "AV.eeg", "AV/ecg"):
        with pytest.raises(BadMessage):
            parse_topic(f"{address.root}/exam/{exam.id}/sound/{bad}/0")


def test_a_live_ecg_fits_its_schema() -> None:
    live = LiveEcg(360, 360, 2000.25, (1, 2), (), ((0, 1),), (), "lead off", make_exam().id)
    check_published(Address("f", "d").live("ecg"), encode(live))
    told = page_message({"type": "live", "device": "f/d", "message": live})
    assert (told["type"], told["t"], told["lead"], told["gaps"]) == ("ecg", 1.000125, "lead off", ((0, 1),))
    word = LiveEcg(0, 360, None, (), (), (), (), "gone")
    check_published(Address("f", "d").live("ecg"), encode(word))
    assert page_message({"type": "live", "device": "f/d", "message": word})["t"] is None


# ---- outbox


def test_the_outbox_holds_both_files_and_gives_both(tmp_path: Path) -> None:
    exam, files, _ = with_ecg()
    box = Outbox(tmp_path / "outbox")
    paths = {}
    for name, data in files.items():
        paths[name] = box.sounds / files_of(exam)[name].file
        paths[name].write_bytes(data)
    with pytest.raises(StethopiError, match="the sound of AV.ecg is not there"):
        box.put(exam, {"AV": paths["AV"]})
    box.put(exam, paths)
    parcel = box.claim()
    assert parcel is not None
    assert {s.site: s.path.read_bytes() for s in parcel.sounds} == files
    assert box.backlog().bytes == sum(map(len, files.values()))
    box.close()
    # a torn ECG is told as a torn sound is: half of an exam is none
    paths["AV.ecg"].write_bytes(b"torn")
    box = Outbox(tmp_path / "outbox")
    assert box.state(exam.id) == "torn" and "AV-ecg.flac has 4 bytes" in box.found[-1]
    box.close()


# ---- store and page


def test_an_exam_is_complete_when_its_ecg_is(store: Store, client: TestClient) -> None:
    exam, files, _ = with_ecg()
    assert Arrivals(store).put_result(topic(exam), encode(exam)).receipt is None
    arrival = deliver(store, exam, files, ("AV",))
    assert not arrival.complete
    asked = Arrivals(store).look_again(exam.id).receipt
    assert asked is not None and asked.status == "missing" and set(asked.missing or {}) == {"AV.ecg"}
    topics.read(Receipt, encode(asked))
    brief = client.get("/api/exams").json()["exams"][0]
    pieces = sum(sound.chunks for sound in files_of(exam).values())
    (site,) = brief["sites"]
    assert brief["status"] == "partial" and not site["complete"] and site["have"] < site["chunks"] == pieces
    assert client.get(f"/api/exams/{exam.id}/sites/AV/ecg").status_code == 404
    arrival = deliver(store, exam, files, ("AV.ecg",))
    assert arrival.complete and arrival.receipt is not None and arrival.receipt.status == "stored"
    path = store.folder / "sounds" / exam.id / "AV.ecg.flac"
    assert path.read_bytes() == files["AV.ecg"]
    assert client.get("/api/exams").json()["exams"][0]["sites"][0]["complete"]


def test_pieces_that_come_before_their_result_are_kept(store: Store) -> None:
    exam, files, _ = with_ecg()
    deliver(store, exam, files, ("AV.ecg", "AV"))
    assert Arrivals(store).put_result(topic(exam), encode(exam)).complete


def test_the_page_gets_the_ecg_on_the_sounds_time(store: Store, client: TestClient) -> None:
    exam, files, x = with_ecg()
    Arrivals(store).put_result(topic(exam), encode(exam))
    deliver(store, exam, files, ("AV", "AV.ecg"))
    full = client.get(f"/api/exams/{exam.id}").json()
    assert full["ecg_source"] == "AD8232"
    assert full["sites"][0]["ecg"]["gap_seconds"] == pytest.approx(360 / 360.036)
    at = f"/api/exams/{exam.id}/sites/AV/ecg"
    about = client.get(at).json()
    assert (about["rate_hz"], about["start_s"], about["samples"]) == (360.036, -0.0125, 3600)
    assert about["drift_ppm"] == pytest.approx(100) and about["reasons"] == ["lead off"]
    assert about["gaps"] == [[pytest.approx(3.98710), pytest.approx(4.98700)]]
    assert about["clean_gaps"][0][1] == pytest.approx(4.987 + 0.3, abs=0.001)
    tops = [n for n in range(5, 3595) if x[n] > 0.6 and x[n] == x[n - 5 : n + 6].max()]
    wanted = [-0.0125 + n / 360.036 for n in tops]
    found = np.array(about["r_peaks"])
    assert len(found) >= len(wanted) - 1
    assert all(np.min(np.abs(np.array(wanted) - at_s)) < 0.012 for at_s in found)
    raw = np.frombuffer(client.get(f"{at}/raw").content, "<i2").astype(float) * 5 / 32767
    np.testing.assert_allclose(raw, x, atol=2e-4)
    assert client.get(f"{at}/clean").status_code == (200 if about["clean"] else 404)
    assert client.get(f"{at}/loud").status_code == 404
    assert client.get(f"/sounds/{exam.id}/AV.ecg.flac").content == files["AV.ecg"]


def test_an_exam_without_an_ecg_says_so(store: Store, client: TestClient) -> None:
    sound = flac(beats())
    exam = make_exam({"AV": sound})
    Arrivals(store).put_result(topic(exam), encode(exam))
    deliver(store, exam, {"AV": sound}, ("AV",))
    full = client.get(f"/api/exams/{exam.id}").json()
    assert full["ecg_source"] is None and full["sites"][0]["ecg"] is None
    answer = client.get(f"/api/exams/{exam.id}/sites/AV/ecg")
    assert answer.status_code == 404 and answer.json()["error"] == "no ECG was heard at this site"
