"""The whole application: its pages, and what must not get through."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from device.contract.exam import Finding
from host.store.store import Store
from tests.host.arrivals import beats, flac, put


def test_pages_hold_no_inline_script_and_name_nothing_foreign(client: TestClient, store: Store) -> None:
    exam = put(store, {"AV": flac(beats())})
    for path in ("/", f"/exams/{exam.id}", "/licences", "/no/such/page"):
        text = client.get(path).text
        for tag in text.split("<script")[1:]:
            assert ' src="/static/' in tag.split(">", 1)[0] and tag.split(">", 1)[1].startswith("</script>")
        assert "style=" not in text and "onclick" not in text
        assert "//" not in text.replace("http://scripts.sil.org", "").replace(
            "https://github.com", ""
        ).replace("https://openfontlicense.org", "")
        assert "It screens; it does not diagnose. Not a medical device." in text


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2f..%2fstore.py",
        "/sounds/{id}/..%2f..%2fexams.sqlite",
        "/sounds/{id}/..%2fAV.flac",
        "/sounds/{id}/AV/..%2fraw.wav",
        "/sounds/{id}/AV/secret.wav",
        "/sounds/{id}/TV.flac",
        "/sounds/..%2f..%2f/AV.flac",
        "/api/exams/{id}/sites/AV/dirty",
        "/api/exams/{id}/sites/..%2fAV/raw",
        "/api/exams/not-a-uuid",
        "/exams.sqlite",
    ],
)
def test_paths_lead_nowhere_else(client: TestClient, store: Store, path: str) -> None:
    exam = put(store, {"AV": flac(beats())})
    answer = client.get(path.replace("{id}", exam.id))
    assert answer.status_code == 404
    assert b"SQLite" not in answer.content and b"import " not in answer.content


def test_nothing_can_be_changed(client: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, "/api/exams").status_code == 405


def test_what_a_device_writes_is_data_never_markup(client: TestClient, store: Store) -> None:
    evil = "<script>alert(1)</script>"
    verdict = Finding("unsure", None, None, (evil,))
    exam = put(store, {"AV": flac(beats())}, verdict=verdict, bundle=evil, source=evil)
    page = client.get(f"/exams/{exam.id}")
    assert evil not in page.text and page.headers["content-type"].startswith("text/html")
    answer = client.get(f"/api/exams/{exam.id}")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["reasons"] == [evil]


def test_scripts_build_elements_and_never_parse_markup() -> None:
    folder = Path(__file__).resolve().parents[3] / "host" / "dashboard" / "static" / "js"
    for path in folder.glob("*.js"):
        text = path.read_text("utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "https://"):
            assert word not in text, f"{path.name}: {word}"
