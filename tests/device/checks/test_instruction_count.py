"""What a second of sound costs: within the budget of DESIGN §2, and no dearer than what was committed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from device.checks import bench
from device.checks import instruction_count as cost
from device.cli import main
from device.errors import BadInput
from device.inference import bundle

ROOT = Path(__file__).resolve().parent.parent.parent.parent
COMMITTED = ROOT / "docs" / "results" / "device.json"
REMEDY = (
    "where it is meant, measure anew: stethopi-device bench --instructions --write docs/results/device.json"
)


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return bench.measure(6.0)


def test_all_stages_stay_within_the_budget(measured: dict[str, Any]) -> None:
    mac = measured["mac_per_s"]
    assert mac["all"] == sum(mac[stage] for stage in cost.STAGES) <= bench.MOST_MAC_PER_S
    assert mac["denoise"] <= 30e6 and mac["classify"] <= 11e6 and mac["rhythm"] <= 5e6
    assert {stage["stage"] for stage in measured["stages"]} == set(cost.STAGES)


@pytest.mark.process
def test_the_daemon_is_small(measured: dict[str, Any]) -> None:
    """With both models, uplink and one exam behind it; and it tells systemd that it is ready."""
    assert measured["daemon"]["memory_mb"] <= bench.MOST_MEMORY_MB
    assert measured["daemon"]["start_s"] > 0


@pytest.mark.process
def test_no_stage_has_become_dearer() -> None:
    """Counted by callgrind, so it is the same on a busy machine. Compared with the same Python and
    interpreter only; stages that run a model only where it is the bundle that was measured."""
    committed = json.loads(COMMITTED.read_text())["figures"]
    kind = bench._kind(cost.where())
    entry = next((found for where, found in committed.items() if bench._kind(where) == kind), None)
    assert entry is not None, f"{COMMITTED} holds no figures of {cost.where()}; {REMEDY}"
    found = cost.instructions(1)
    assert sum(found.values()) > 10e6
    same_bundle = bundle.load().version == entry["bundle"]
    for stage, count in found.items():
        if same_bundle or stage in ("decimate", "rhythm"):
            most = (1 + cost.ALARM) * entry["instructions"][stage]
            assert count <= most, (
                f"{stage}: {count / 1e6:.1f} million instructions for a second of sound, "
                f"{100 * (count / entry['instructions'][stage] - 1):.0f} % more than committed; {REMEDY}"
            )


def test_figures_of_several_machines_stand_in_one_file(measured: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "device.json"
    bench.write(measured, path)
    old = {**measured, "where": "python 3.99, ai-edge-litert 1.0, numpy 3.0, x86_64"}
    new = {**measured, "where": "python 3.99, ai-edge-litert 1.1, numpy 3.1, x86_64"}
    bench.write(old, path)
    assert len(json.loads(path.read_text())["figures"]) == 2
    bench.write(new, path)
    whole = json.loads(path.read_text())
    assert sorted(whole["figures"]) == sorted([measured["where"], new["where"]])


def test_a_file_of_something_else_is_left_alone(measured: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes")
    with pytest.raises(BadInput, match="holds no figures of a bench"):
        bench.write(measured, path)
    assert path.read_text() == "my notes"
    with pytest.raises(BadInput, match="cannot be written"):
        bench.write(measured, tmp_path / "nowhere" / "device.json")


def test_without_valgrind_the_remedy_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert cost.main([]) == 1
    assert "apt-get install -y valgrind" in capsys.readouterr().err


def test_the_table_names_every_stage(measured: dict[str, Any]) -> None:
    text = bench.table({**measured, "instructions": dict.fromkeys(cost.STAGES, 2_000_000)})
    for stage in cost.STAGES:
        assert f"\n{stage}" in text
    assert "\nall" in text and "10.0" in text and "daemon ready after" in text
    assert main(["bench", "--rate", "50"]) == 2
