"""Variants on sources left out: what is chosen where, and the energy baseline against sounds made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.train


def test_the_shipped_variants_are_understood() -> None:
    from training.benchmarks.cross_domain import JUDGED_SOURCES, variants

    known = variants()
    assert known["short"].recipe.steps == known["narrow"].recipe.steps
    assert known["murmurs"].alone and known["murmurs"].sources == ("a", "f", "b", "e")
    assert [known["murmurs"].of(s) for s in ("a", "circor", "e")] == ["murmurs", "short", "murmurs"]
    assert [known["lighter"].of(s) for s in ("a", "circor", "e")] == ["lighter", "short", None]
    assert not known["short"].alone and known["short"].sources == JUDGED_SOURCES
    assert known["taught"].taught and known["taught"].sources == JUDGED_SOURCES and not known["short"].taught
    assert all(v.without_circor is None or v.without_circor in known for v in known.values())


def test_no_source_chooses_the_way_it_is_judged_itself() -> None:
    from training.benchmarks.cross_domain import nested

    def found(a: float, f: float, circor: float) -> dict[str, Any]:
        return {s: {"auc": {"value": v}} for s, v in (("a", a), ("f", f), ("circor", circor))}

    table = {"lucky on a": found(0.9, 0.5, 0.5), "even": found(0.6, 0.7, 0.8), "part": {"a": {}}}
    chosen = nested(table)
    # a's luck decides for the others and never for a
    assert chosen["a"]["way"] == "even" and chosen["a"]["auc"]["value"] == 0.6
    assert chosen["f"]["way"] == chosen["circor"]["way"] == "lucky on a"
    assert nested({"part": {"a": {}}}) == {}


def test_the_energy_baseline_reads_a_murmur_in_systole() -> None:
    from models.classifier import STATES
    from training.benchmarks.cross_domain import phases

    rng = np.random.default_rng(3)
    states = np.tile(np.repeat(np.arange(4), (5, 10, 5, 20)), 10)
    power = rng.standard_gamma(3.0, (len(states), 32)).astype(np.float32)
    power[(states == STATES.index("S1")) | (states == STATES.index("S2"))] *= 100.0
    quiet = phases(power, states, 20)
    louder = power.copy()
    louder[states == STATES.index("systole"), 8:12] *= 20.0
    change = phases(louder, states, 20) - quiet
    assert change[8:12] == pytest.approx(np.log(20.0), abs=0.01)
    assert np.abs(np.delete(change, range(8, 12))).max() < 0.01
    # neither gain nor a fixed filter is read
    coloured = 7.0 * power * np.linspace(0.5, 3.0, 32, dtype=np.float32)
    assert phases(coloured, states, 20) == pytest.approx(quiet, abs=0.01)
    assert np.isnan(phases(power, np.full(len(states), 255), 20)).all()


def test_an_unknown_variant_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from training.benchmarks.cross_domain import main

    assert main(["run", "--data", "nowhere", "wide"]) == 2
    assert "wide: no such variant; cross-domain.toml has short" in capsys.readouterr().err
