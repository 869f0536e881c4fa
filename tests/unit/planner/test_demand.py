"""What a request asks of engines, by what its pace promises."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.requests import Pacing, SloTargets
from shared.scheduling.rows import DEADLINE, GRACE, TPOT
from tests.unit.planner.builders import make_cluster, make_query

NOW_S = 50.0
seconds = st.floats(0.01, 20.0)


@given(ttft_s=seconds, tpot_s=seconds, first_after_s=seconds, moved_s=seconds)
def test_by_deadlines_the_second_token_is_due_by_when_the_first_was_wherever_it_comes_from(
    ttft_s: float, tpot_s: float, first_after_s: float, moved_s: float
) -> None:
    targets = SloTargets(ttft_s=ttft_s, tpot_s=tpot_s, pacing=Pacing.DEADLINES)
    demand = make_cluster().demand(make_query(targets=targets), ttft_s, NOW_S)

    whole = demand.whole(0, NOW_S)
    first_s = NOW_S + first_after_s
    answer = demand.answer_only(first_s, first_s + moved_s)

    assert whole[GRACE] == math.inf
    assert whole[TPOT] == answer[TPOT] == tpot_s
    assert answer[DEADLINE] == pytest.approx(whole[DEADLINE] + tpot_s)


def test_without_a_start_there_are_no_deadlines() -> None:
    targets = SloTargets(tpot_s=0.1, pacing=Pacing.DEADLINES)

    demand = make_cluster().demand(make_query(targets=targets), math.inf, NOW_S)

    assert not demand.grace.by_deadlines
