"""Tuned numbers at other values: which, in what process, and what is told of their effect."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.evaluation.leave_one_out.change import Change, changes_of, numbers
from services.evaluation.leave_one_out.effects import ChangeEffect, Effect, effect_of
from services.evaluation.leave_one_out.kept import FILE, KeptOutcomes
from services.evaluation.leave_one_out.part import chosen_numbers
from services.evaluation.leave_one_out.report import effects_table
from services.evaluation.leave_one_out.trials import Outcome
from shared.errors import ConfigError
from shared.tuning import TunedNumber

HALVED = Change(module="services.planner.tuning", name="MOST_TRIED", value=3)
SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=20)
_READ = """
from services.evaluation.leave_one_out.change import Change, begin
{before}
begin([Change(module="services.planner.tuning", name="SILENCE_LIMIT_S", value=1.25)], {kernels!r})
from services.planner.state import attached_engines
print(attached_engines.SILENCE_LIMIT_S)
"""


def in_a_process(kernels: Path, *, before: str = "") -> subprocess.CompletedProcess[str]:
    script = _READ.format(before=before, kernels=str(kernels))
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize("number", numbers(), ids=lambda one: one.name)
def test_every_number_has_a_change_within_its_range(number: TunedNumber) -> None:
    values = [one.value for one in changes_of(number)]
    assert values
    assert number.value not in values
    assert all(number.about.low <= value <= number.about.high for value in values)


def test_a_module_reads_the_changed_number(tmp_path: Path) -> None:
    assert in_a_process(tmp_path).stdout == "1.25\n"


def test_a_change_that_comes_too_late_is_an_error(tmp_path: Path) -> None:
    late = in_a_process(tmp_path, before="import services.planner.state.attached_engines")
    assert "has read SILENCE_LIMIT_S before it changed" in late.stderr


def test_an_unknown_number_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="SILENCE_LIMIT_S"):
        chosen_numbers(["SILENCE_LIMIT"])


@given(SHARES, st.floats(-0.5, 0.5))
def test_the_effect_of_the_same_gain_on_all_loads_is_that_gain(
    unchanged: list[float], gain: float
) -> None:
    effect = effect_of([one + gain for one in unchanged], unchanged)
    assert effect.mean == pytest.approx(100 * gain, abs=1e-9)
    assert effect.error == pytest.approx(0, abs=1e-9)


@given(SHARES)
def test_what_changes_nothing_does_not_tell(shares: list[float]) -> None:
    assert not effect_of(shares, shares).is_telling


def test_one_load_alone_tells_nothing() -> None:
    assert not effect_of([0.9], [0.1]).is_telling


def test_an_outcome_is_found_again_and_not_for_another_change(tmp_path: Path) -> None:
    key = "Coder, seed 1"
    kept = KeptOutcomes(tmp_path, older=False)
    kept.add(Outcome(key=key, change=str(HALVED), kept=0.75))
    with (tmp_path / FILE).open("a") as file:
        file.write('{"version": "')  # cut by a kill
    again = KeptOutcomes(tmp_path, older=False)
    assert again.find(key, HALVED) == 0.75
    assert again.find(key, None) is None


def test_outcomes_of_other_code_count_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(
        '{"version": "other", "outcome": {"key": "k", "change": "", "kept": 0.5}}\n'
    )
    assert KeptOutcomes(tmp_path, older=False).find("k", None) is None
    assert KeptOutcomes(tmp_path, older=True).find("k", None) == 0.5


def test_the_table_names_numbers_of_which_no_change_tells() -> None:
    loud = Effect(mean=-2.0, error=0.5, least=-6.0, loads=24)
    quiet = Effect(mean=0.1, error=0.2, least=-0.5, loads=32)
    effects = [
        ChangeEffect(number="LOUD", was=2, value=1, applications=loud, drawn=quiet),
        ChangeEffect(number="LOUD", was=2, value=4, applications=quiet, drawn=quiet),
        ChangeEffect(number="STILL", was=8, value=4, applications=quiet, drawn=quiet),
    ]
    text = effects_table(effects)
    assert "| `LOUD` | 2 | 1 | **-2.00** ± 0.50 | -6.0 |" in text
    assert text.endswith(
        "Within two standard errors in both changes: 1 (at most 0.1 points): `STILL`."
    )
