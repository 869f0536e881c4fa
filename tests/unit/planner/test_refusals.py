from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from services.planner.estimators.refusals import Refusals
from shared.requests import OnRefuse, SloTargets
from tests.unit.planner.builders import (
    LONG_AFTER_S,
    make_cluster,
    make_engine,
    make_query,
    make_report,
    place,
)

GAPS_S = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=30)


def refused_at(times_s: list[float], name: str = "chat") -> Refusals:
    refusals = Refusals()
    for time_s in times_s:
        refusals.refused(name, time_s)
    return refusals


@given(gaps_s=GAPS_S)
def test_the_end_of_an_overload_is_twice_as_far_as_its_first_refusal(gaps_s: list[float]) -> None:
    times_s = list(accumulate(gaps_s))

    over_in_s = refused_at(times_s).over_in_s("chat", times_s[-1])

    assert over_in_s == min(60.0, 2.0 * (times_s[-1] - times_s[0]))


@given(gaps_s=GAPS_S)
def test_an_overload_is_over_when_it_refused_none_for_as_long_as_it_lasted(
    gaps_s: list[float],
) -> None:
    times_s = list(accumulate(gaps_s))
    later_s = times_s[-1] + 1.001 * max(5.0, times_s[-1] - times_s[0])
    refusals = refused_at(times_s)

    refusals.refused("chat", later_s)

    assert refusals.over_in_s("chat", later_s) == 0.0


def test_a_class_that_is_promised_as_much_as_it_is_refused_is_not_overloaded() -> None:
    refusals = refused_at([1.0, 2.0, 3.0])

    refusals.promised("chat")
    refusals.promised("chat")
    still_s = refusals.over_in_s("chat", 3.0)
    refusals.promised("chat")

    assert (still_s, refusals.over_in_s("chat", 3.0)) == (4.0, 0.0)


def test_promises_of_calm_times_do_not_count_against_an_overload() -> None:
    refusals = Refusals()
    for _ in range(100):
        refusals.promised("chat")

    refusals.refused("chat", 5.0)

    assert refusals.over_in_s("chat", 5.5) == 1.0


def test_an_overload_is_one_of_its_class() -> None:
    refusals = refused_at([1.0, 2.0], "chat")

    assert refusals.over_in_s("code", 2.0) == 0.0


def test_no_client_is_sent_away_for_longer_than_a_minute() -> None:
    refusals = refused_at([float(second) for second in range(300)])

    assert refusals.over_in_s("chat", 299.0) == 60.0


def test_load_and_promises_are_learnt_from_every_decision() -> None:
    state = make_cluster(make_engine())
    state.engines["d0"].report = make_report(waiting=3, queued_prefill_tokens=1024)
    late = make_query("late", targets=SloTargets(ttft_s=0.8, on_refuse=OnRefuse.REFUSE))
    never = make_query("never", prompt_tokens=10**6)
    early = make_query("early", targets=SloTargets(ttft_s=80.0))
    name = late.targets.class_name

    place(state, never, LONG_AFTER_S)
    place(state, late, LONG_AFTER_S + 1)
    before_s = state.refusals.over_in_s(name, LONG_AFTER_S + 2)
    place(state, early, LONG_AFTER_S + 2)

    assert (before_s, state.refusals.over_in_s(name, LONG_AFTER_S + 2)) == (2.0, 0.0)
