"""Nobody is judged by a model that learned from him, in any protocol but the leaky one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device.errors import BadInput
from training.data.recordings import Recording
from training.screening.protocols import PROTOCOLS, Unit, deciding, judged, matching, presented, units


def recordings(seed: int) -> list[Recording]:
    """Sources, folds and labels by chance; groups of one to five recordings that share source and fold."""
    rng = np.random.default_rng(seed)
    found = []
    for g in range(120):
        database = ["a", "b", "c", "d", "e", "f", "circor"][int(rng.integers(7))]
        fold = int(rng.integers(5))
        basis = {"subject_basis": "unknown"} if database == "e" and rng.random() < 0.2 else {}
        for k in range(int(rng.integers(1, 6))):
            found.append(
                Recording(
                    record=f"{g}_{k}",
                    database=database,
                    path=Path(f"{g}_{k}.flac"),
                    group=f"g{g}",
                    fold=fold,
                    label=["normal", "abnormal"][int(rng.integers(2))],
                    quality="good",
                    seconds=8.0,
                    murmur_here=["yes", "no"][int(rng.integers(2))] if database == "circor" else None,
                    meta=basis,
                )
            )
    return found


@pytest.mark.parametrize("seed", range(5))
def test_no_group_crosses_but_where_it_is_called_leaky(seed: int) -> None:
    everything = recordings(seed)
    names = {r.database for r in everything}
    seen = set()
    for unit in units(["m"], names):
        seen.add(unit.protocol)
        shown = presented(unit, everything, seed)
        taught = {r.group for r in shown if r.fold >= 2}
        decide = {r.group for r in deciding(unit, everything, seed)}
        test = {r.group for r in judged(unit, everything)}
        assert taught and decide and test
        if unit.protocol == "leaky":
            assert test <= taught
        else:
            assert not taught & test and not decide & test and not taught & decide
    assert seen == set(PROTOCOLS)


def test_a_source_left_out_is_neither_taught_nor_decides() -> None:
    everything = recordings(7)
    unit = Unit("m", "left-out", "f")
    shown = presented(unit, everything)
    assert {r.database for r in shown if r.fold >= 1} == {"a", "b", "c", "d", "e", "circor"}
    assert {r.database for r in judged(unit, everything)} == {"f"}
    assert {r.fold for r in judged(unit, everything)} == {0, 1, 2, 3, 4}


def test_every_recording_is_judged_once_in_five_folds() -> None:
    everything = recordings(8)
    found = [r.record for k in range(5) for r in judged(Unit("m", "folds", str(k)), everything)]
    assert sorted(found) == sorted(r.record for r in everything if r.reportable)


def test_the_unknown_subjects_are_never_judged_and_never_decide() -> None:
    everything = recordings(9)
    assert any(not r.reportable for r in everything)
    for unit in units(["m"], {r.database for r in everything}):
        assert all(r.reportable for r in judged(unit, everything))
        assert all(r.reportable for r in deciding(unit, everything))


def test_shuffling_deals_labels_within_a_source_and_leaves_the_judged_alone() -> None:
    everything = recordings(3)
    unit = Unit("m", "shuffled", "0")
    shown = presented(unit, everything)
    changed = [r.label != s.label for r, s in zip(everything, shown, strict=True)]
    assert sum(changed) > 50
    assert not any(c for c, r in zip(changed, everything, strict=True) if r.fold == 0)
    for database in "abcdef":
        rows = [k for k, r in enumerate(everything) if r.database == database and r.fold in (2, 3, 4)]
        before, after = ([x[k].label for k in rows].count("abnormal") for x in (everything, shown))
        assert before == after
    again = presented(unit, everything)
    assert [r.label for r in shown] == [r.label for r in again]
    assert [r.label for r in presented(unit, everything, 2)] != [r.label for r in again]


def test_units_are_named_by_patterns() -> None:
    everything = units(["ours", "cnn1d"], {"a", "e", "f", "circor"})
    assert [u.name for u in matching(["ours/left-out/*"], everything)] == [
        f"ours/left-out/{s}" for s in ("a", "f", "circor", "e")
    ]
    assert matching(["all"], everything) == everything
    assert {u.model for u in matching(["cnn1d"], everything)} == {"cnn1d"}
    with pytest.raises(BadInput, match="--train ours/folds/7: fits no unit.*ours, cnn1d"):
        matching(["ours/folds/7"], everything)
