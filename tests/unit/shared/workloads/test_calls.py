"""Laws of calls, programs and loads."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.requests import OnRefuse, Stage
from shared.workloads.calls import (
    Call,
    Load,
    Program,
    StageLoad,
    at_rate,
    rate,
    requests,
    total_tokens,
)
from shared.workloads.summary import gap_cv, summary

ANSWER = StageLoad(name="answer", output_tokens=20, tpot_s=0.1)
CALL = Call(
    class_name="chat",
    prompt_tokens=100,
    stages=(ANSWER,),
    max_output_tokens=64,
    ttft_slowdown=5.0,
    value=2.0,
)


def load_at(*times_s: float) -> Load:
    return tuple(
        Program(program_id=f"p{number}", application="chat", arrives_s=time_s, calls=(CALL,))
        for number, time_s in enumerate(times_s)
    )


def test_a_call_of_one_stage_asks_for_one_pace() -> None:
    targets = CALL.targets(OnRefuse.REFUSE)
    assert (targets.class_name, targets.tpot_s, targets.stages) == ("chat", 0.1, ())
    assert (targets.ttft_slowdown, targets.value) == (5.0, 2.0)
    assert targets.on_refuse is OnRefuse.REFUSE


def test_a_call_of_two_stages_asks_for_a_pace_in_each() -> None:
    thinking = StageLoad(name="thinking", output_tokens=30, tpot_s=0.05)
    call = replace(CALL, stages=(thinking, ANSWER))
    targets = call.targets()
    assert targets.stages == (Stage(name="thinking", tpot_s=0.05), Stage(name="answer", tpot_s=0.1))
    assert targets.tpot_s is None
    assert call.output_tokens == 50


@pytest.mark.parametrize(
    "wrong",
    [
        {"stages": ()},
        {"max_output_tokens": 19},
        {"prefix_tokens": 101},
        {"prompt_tokens": 0},
        {"stages": (replace(ANSWER, output_tokens=0),)},
    ],
)
def test_a_call_that_cannot_be_is_not_made(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\d|stage"):
        replace(CALL, **wrong)  # type: ignore[arg-type]  # what is wrong is the point


def test_a_program_has_calls() -> None:
    with pytest.raises(ValueError, match="p1 has no call"):
        Program(program_id="p1", application="chat", arrives_s=0.0, calls=())


@given(
    st.lists(st.floats(0, 1e5), min_size=2, max_size=20).filter(
        lambda one: max(one) > min(one) + 1
    ),
    st.floats(0.01, 100),
)
def test_a_stretched_load_has_the_rate_and_its_gaps_in_proportion(
    times_s: list[float], wanted: float
) -> None:
    load = load_at(*sorted(times_s))
    stretched = at_rate(load, wanted)
    assert rate(stretched) == pytest.approx(wanted)
    assert stretched[0].arrives_s == 0.0
    assert [one.calls for one in stretched] == [one.calls for one in load]
    assert gap_cv(stretched) == pytest.approx(gap_cv(load), abs=1e-6)
    assert all(left.arrives_s <= right.arrives_s for left, right in pairwise(stretched))


def test_a_load_without_span_has_no_rate_and_cannot_be_stretched() -> None:
    assert rate(load_at(1.0, 1.0)) == 0.0
    with pytest.raises(ValueError, match="all come at once"):
        at_rate(load_at(1.0, 1.0), 2.0)
    with pytest.raises(ValueError, match="above 0"):
        at_rate(load_at(1.0, 2.0), 0.0)


def test_one_program_comes_at_once_at_any_rate() -> None:
    assert at_rate(load_at(7.0), 3.0) == load_at(0.0)


def test_tokens_that_were_computed_before_are_not_counted_again() -> None:
    later = replace(CALL, prompt_tokens=150, prefix_tokens=120)
    load = (replace(load_at(0.0)[0], calls=(CALL, later)),)
    assert requests(load) == 2
    assert total_tokens(load) == 100 + 20 + 30 + 20


def test_a_summary_tells_what_is_in_a_load() -> None:
    found = summary(load_at(0.0, 1.0, 4.0))
    assert (found.programs, found.calls, found.span_s) == (3, 3, 4.0)
    assert found.programs_per_s == 0.5
    assert found.gap_cv == pytest.approx(0.5)  # gaps of 1 and 3
    assert found.prompt_tokens.p99 == 100
    assert found.calls_by_class == {"chat": 3}
    assert "3 programs" in str(found)


def test_a_load_without_programs_has_no_summary() -> None:
    with pytest.raises(ValueError, match="at least one"):
        summary(())
