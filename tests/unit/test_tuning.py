"""The tables of tuned numbers."""

import re
from pathlib import Path

import pytest

from deploy.reference import TUNED
from shared.tuning import TunedNumber, tuned_numbers

ROOT = Path(__file__).parents[2]
ALL = [one for module in TUNED.values() for one in tuned_numbers(module)]


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_a_tuned_number_is_within_its_range_and_says_why(one: TunedNumber) -> None:
    about = one.about

    assert about.low <= one.value <= about.high
    assert about.low < about.high
    assert about.unit
    assert about.why.endswith(".")
    assert not about.page or (ROOT / "docs" / about.page).is_file()


def test_every_number_of_a_table_is_used() -> None:
    code = "\n".join(
        path.read_text()
        for folder in ("services/planner", "shared")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "tuning.py"
    )
    words = set(re.findall(r"\b[A-Z][A-Z_]+\b", code))

    assert {one.name for one in ALL} <= words


def test_no_number_has_the_name_of_another() -> None:
    names = [one.name for one in ALL]

    assert len(set(names)) == len(names)
