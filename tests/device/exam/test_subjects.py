"""Codes for those who are examined: the check character, the list that is worked off, power cuts included."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.contract.vocabulary import is_subject_code
from device.errors import BadInput
from device.exam.subjects import ALPHABET, SubjectList, Subjects, check_character, code, codes, is_whole

BODY = st.text(ALPHABET, min_size=1, max_size=12)


def test_the_check_character_is_the_standards() -> None:
    """The example of ISO/IEC 7064 for MOD 37,36, as the Global Release Identifier uses it."""
    assert check_character("A12425GABC1234002") == "M"


@settings(deadline=None)
@given(BODY, st.data())
def test_every_single_wrong_character_is_found(body: str, data: st.DataObject) -> None:
    whole = body + check_character(body)
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.sampled_from([c for c in ALPHABET if c != whole[at]]))
    assert is_whole(whole) and not is_whole(whole[:at] + other + whole[at + 1 :])


def test_nearly_every_swap_of_neighbours_is_found() -> None:
    missed, swaps = 0, 0
    for number in range(0, 10_000, 7):
        whole = code("V3", number).replace("-", "")
        for at in range(len(whole) - 1):
            swapped = whole[:at] + whole[at + 1] + whole[at] + whole[at + 2 :]
            swaps += swapped != whole
            missed += swapped != whole and is_whole(swapped)
    assert swaps > 5000 and missed / swaps < 0.01


def test_codes_fit_the_wire_and_are_all_different() -> None:
    made = codes("V3", 1, 500)
    assert len(set(made)) == 500 and made[41].startswith("V3-0042-")
    assert all(is_subject_code(one) and is_whole(one) for one in made)
    for prefix, first, count, words in (
        ("v3", 1, 5, "must be up to 8 capitals and digits"),
        ("V3", 1, 0, "give 1 to 10000 codes"),
        ("V3", -1, 5, "from 0 to 999999"),
    ):
        with pytest.raises(BadInput, match=words):
            codes(prefix, first, count)


def listed(folder: Path, text: str = "A-1\nA-2 # Friday\n\n# a line\nA-3\n") -> SubjectList:
    (folder / "codes.txt").write_text(text)
    return SubjectList(folder / "codes.txt", folder / "state" / "subjects.json")


def test_the_list_is_worked_off_and_the_place_outlives_the_program(tmp_path: Path) -> None:
    first = listed(tmp_path)
    assert (first.next, first.left, first.take()) == ("A-1", 3, "A-1")
    again = listed(tmp_path)
    assert again.take() == "A-2"
    again.give_back("A-2")
    assert listed(tmp_path).next == "A-2"
    again.give_back("A-1")  # the last taken but one: it stays used up, or nobody would know whose it is
    assert listed(tmp_path).next == "A-1"
    for expected in ("A-1", "A-2", "A-3", None, None):
        assert listed(tmp_path).take() == expected


def test_a_code_that_was_given_by_hand_moves_the_place(tmp_path: Path) -> None:
    first = listed(tmp_path)
    first.use("A-2")
    first.use("not in it")
    assert first.next == listed(tmp_path).next == "A-3"


def test_what_is_not_known_is_given_to_nobody(tmp_path: Path) -> None:
    """A memory that is torn: rather no code than one that two people have."""
    first = listed(tmp_path)
    first.take()
    (tmp_path / "state" / "subjects.json").write_text('{"la')
    assert listed(tmp_path).take() is None
    (tmp_path / "state" / "subjects.json").unlink()
    assert listed(tmp_path).next == "A-1"


def test_a_new_list_begins_at_its_top(tmp_path: Path) -> None:
    listed(tmp_path).take()
    assert listed(tmp_path, "B-1\nB-2\n").next == "B-1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "A-1\nMary Smith\n",
            r"codes.txt: line 2: 'Mary Smith' is no subject code; use letters.*never a name",
        ),
        ("A-1\nA-1\n", r"codes.txt: line 2: A-1 stands there twice; remove one"),
    ],
)
def test_a_wrong_list_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        listed(tmp_path, text)
    with pytest.raises(BadInput, match=r"none: the list of subject codes cannot be read .*stethopi subjects"):
        SubjectList(tmp_path / "none", tmp_path / "m")


def test_whose_exam_the_next_one_is(tmp_path: Path) -> None:
    subjects = Subjects(listed(tmp_path))
    assert [subjects.take(), subjects.take(again=True), subjects.take()] == ["A-1", "A-1", "A-2"]
    subjects.cancelled("A-2")
    assert subjects.read("a-3") == "A-3" and subjects.read("2") == "A-2" and subjects.read("9") is None
    subjects.choose("A-3")
    assert [subjects.take(), subjects.take(), subjects.take()] == ["A-3", None, None]
    assert Subjects().take() is None and Subjects().take(again=True) is None
