"""An answer with a deadline for each token needs a slower pace where it may start late."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.admission.feasibility import EngineWhatIf
from services.planner.admission.mean_paces import with_mean_paces
from services.planner.estimators.kv_demand import KvRanks
from services.planner.estimators.kv_forecast import Classes
from services.planner.estimators.survival import BIN_TOKENS, Survival
from shared.batch_time.table import FloatArray
from shared.scheduling.rows import DEADLINE, TPOT, new_row
from tests.unit.planner.world import TABLE, World

NOW = 10.0
TOKENS = 160  # of each answer
PACE_S = 0.1
FULL_S = TABLE.decodes_s(20, 20 * 100)  # a pace that about twenty decodes fill


def answers_of(tokens: int) -> Survival:
    answers = Survival()
    for key in range(40):
        answers.ends("short", float(key), tokens)
    return answers


CLASSES = Classes(answers_of(TOKENS), KvRanks())


def by_deadlines(lead_s: float, produced: float = 0.0, left: float = 1000.0) -> FloatArray:
    """A row whose next token is due so much later than a pace from now."""
    due_s = NOW + PACE_S + lead_s
    return new_row(
        tokens=100, produced=produced, left=left, due_s=due_s, tpot_s=PACE_S, grace_s=math.inf
    )


def paced(row: FloatArray, name: str | None = "short") -> float:
    indices = CLASSES.indices([name])
    return float(with_mean_paces(row[None], indices, CLASSES.later_tokens, NOW)[0, TPOT])


@given(st.floats(0.0, 100.0), st.integers(0, TOKENS // BIN_TOKENS - 1))
def test_at_its_mean_pace_the_last_token_comes_when_it_is_due(lead_s: float, bins: int) -> None:
    row = by_deadlines(lead_s, produced=bins * BIN_TOKENS)
    later = CLASSES.later_tokens[0, bins]

    last_due_s = row[DEADLINE] + (later - 1) * PACE_S

    assert NOW + later * paced(row) == pytest.approx(last_due_s)


@pytest.mark.parametrize("produced", [0, 32, 128])
def test_answers_that_all_have_one_length_have_the_rest_of_it_left(produced: int) -> None:
    left = TOKENS - produced

    assert left - BIN_TOKENS / 2 <= CLASSES.later_tokens[0, produced // BIN_TOKENS] <= left


def test_beyond_the_longest_answer_a_token_is_always_left() -> None:
    assert CLASSES.later_tokens.min() >= 1.0
    assert paced(by_deadlines(1.0, produced=1e9)) <= PACE_S + 1.0


def test_an_answer_that_ends_within_a_few_tokens_spreads_its_lead_over_these() -> None:
    assert paced(by_deadlines(1.0, left=5.0)) == pytest.approx(PACE_S + 1.0 / 5)


def test_a_request_of_no_known_class_may_produce_all_that_it_asked_for() -> None:
    assert paced(by_deadlines(1.0), None) == pytest.approx(PACE_S + 1.0 / 1000)


def test_what_is_late_has_a_mean_pace_to_keep_or_has_no_target_keeps_its_tpot() -> None:
    by_mean = new_row(tokens=100, left=50, due_s=NOW + 9.0, tpot_s=PACE_S, grace_s=0.5)
    endless = new_row(tokens=100, left=50, due_s=math.inf, tpot_s=PACE_S, grace_s=math.inf)
    no_pace = new_row(tokens=100, left=50, due_s=NOW + 9.0, tpot_s=math.inf)

    assert paced(by_deadlines(-1.0)) == PACE_S
    assert paced(by_mean) == PACE_S
    assert paced(endless) == PACE_S
    assert paced(no_pace) == math.inf


def taken(due_s: float, tokens: int) -> int:
    """How many answers of about so many tokens, with their first one due then, an engine takes."""
    classes = Classes(answers_of(tokens), KvRanks())
    row = new_row(tokens=100, left=4000, due_s=due_s, tpot_s=FULL_S, grace_s=math.inf)
    engine = World.of(1).engines[0].state
    nobody, none = np.empty((0, len(row))), classes.indices([])
    what_if = EngineWhatIf(engine, TABLE, 0.0, classes, nobody, none, delivery_s=0.0)
    while what_if.quick_no(row[None], ["short"]) is None:
        what_if.give(row[None], ["short"])
    return len(what_if.rows)


def test_of_answers_that_may_start_late_an_engine_takes_more_the_shorter_they_are() -> None:
    soon, late = FULL_S, 20 * FULL_S

    assert taken(late, 32) >= 1.5 * taken(soon, 32)
    assert taken(late, 3200) <= taken(soon, 3200) + 1
