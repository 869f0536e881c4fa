from dataclasses import replace
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.deadline_line import DeadlineLine
from services.gateway.report import attained, decision_ids, met, slo_report
from services.gateway.scope import RequestScope
from services.gateway.stages import stage_progress
from shared.requests import Admission, Pacing, Reason, SloTargets, Stage
from tests.unit.gateway.http_fakes import CHAT, PLACED, add_sequence, give_tokens, request_scope

times = st.floats(min_value=10.0, max_value=20.0)
BY_DEADLINES = replace(PLACED, ttft_s=0.5, tpot_s=0.05, pacing=Pacing.DEADLINES)


def served(*first_at_s: float) -> RequestScope:
    """A request of the class chat (500 ms, 50 ms per token) with a sequence per first token."""
    scope = request_scope()
    for at_s in first_at_s:
        give_tokens(add_sequence(scope), at_s, at_s + 0.1)
    return scope


def read_along(*came_at_s: float, pace_s: float = 0.05) -> RequestScope:
    """As `served`, by deadlines: one sequence, whose tokens came so long after the arrival."""
    scope = request_scope(replace(CHAT, pacing=Pacing.DEADLINES))
    line = DeadlineLine(0.5)
    for at_s in came_at_s:
        line.produced(at_s, pace_s)
    record = add_sequence(scope, placement=BY_DEADLINES, line=line)
    if came_at_s:
        give_tokens(record, 10 + came_at_s[0], 10 + came_at_s[-1], len(came_at_s))
    return scope


@given(st.lists(times, min_size=1, max_size=4))
def test_a_request_meets_its_targets_when_its_worst_sequence_does(first_at_s: list[float]) -> None:
    report = slo_report(served(*first_at_s))

    worst_s = max(first_at_s) - 10.0
    assert abs(report["achieved"]["ttft_ms"] - worst_s * 1000) < 0.01
    assert report["met"] == (worst_s <= 0.5)


def test_a_pace_above_the_target_is_a_miss() -> None:
    scope = request_scope()
    give_tokens(add_sequence(scope), 10.1, 11.1, tokens=11)

    report = slo_report(scope)

    assert (report["achieved"]["tpot_ms"], report["met"]) == (100.0, False)


@pytest.mark.parametrize(("thinking_tpot_s", "met"), [(0.05, True), (0.005, False)])
def test_each_stage_is_judged_by_its_own_pace(thinking_tpot_s: float, met: bool) -> None:
    stages = (Stage(name="thinking", tpot_s=thinking_tpot_s), Stage(name="answer", tpot_s=1.0))
    scope = request_scope(SloTargets(stages=stages))
    progress = stage_progress(stages, {"thinking": (7,)}, [])
    assert progress is not None
    for token, at_s in ((1, 10.1), (7, 10.12), (2, 10.62)):
        progress.produced([token], at_s)
    give_tokens(add_sequence(scope, stages=progress), 10.1, 10.62, tokens=3)

    report = slo_report(scope)

    assert report["met"] is met
    assert report["targets"]["stages"] == [
        {"name": "thinking", "tpot_ms": thinking_tpot_s * 1000},
        {"name": "answer", "tpot_ms": 1000.0},
    ]
    assert report["achieved"]["stages"] == [
        {"name": "thinking", "output_tokens": 2, "tpot_ms": 20.0},
        {"name": "answer", "output_tokens": 1, "tpot_ms": 500.0},
    ]


def test_a_slowdown_is_judged_by_what_the_planner_made_of_it() -> None:
    scope = request_scope(SloTargets(ttft_slowdown=3.0))
    give_tokens(add_sequence(scope, placement=replace(PLACED, ttft_s=0.05)))

    report = slo_report(scope)

    assert report["targets"] == {"ttft_ms": 50.0, "tpot_ms": None, "ttft_slowdown": 3.0}
    assert report["met"] is False


def test_nothing_asked_is_neither_met_nor_missed() -> None:
    scope = request_scope(SloTargets())
    give_tokens(add_sequence(scope), 99.0, 999.0)

    assert met(scope) is None
    assert attained(scope) is None


def test_without_a_token_every_target_is_missed() -> None:
    scope = request_scope(SloTargets(tpot_s=0.05))
    assert met(scope) is False
    add_sequence(scope)

    assert met(scope) is False


def test_one_token_has_no_pace_to_miss() -> None:
    scope = request_scope(SloTargets(tpot_s=0.001))
    give_tokens(add_sequence(scope), tokens=1)

    assert met(scope) is True


def test_best_effort_may_be_met_but_is_not_attained() -> None:
    scope = request_scope()
    best_effort = replace(PLACED, admission=Admission.BEST_EFFORT, reason=Reason.PLANNER_AWAY)
    give_tokens(add_sequence(scope, placement=best_effort))

    assert met(scope) is True
    assert attained(scope) is False


def test_the_report_says_where_and_why() -> None:
    report = slo_report(served(10.1))

    assert report == {
        "class": "chat",
        "targets": {"ttft_ms": 500.0, "tpot_ms": 50.0},
        "achieved": {"ttft_ms": 100.0, "tpot_ms": 10.0},
        "met": True,
        "admission": "admitted",
        "reason": "none",
        "way": "disaggregated",
        "engines": {"prefill": "prefill-0", "decode": "decode-0"},
        "decision_id": "d-1",
        "predicted": {"ttft_ms": 200.0, "tpot_ms": 20.0},
        "recomputed": False,
    }


def test_several_sequences_list_their_decisions_once_each() -> None:
    scope = request_scope()
    for decision_id in ("a", "b", "a"):
        give_tokens(add_sequence(scope, placement=replace(PLACED, decision_id=decision_id)))

    assert slo_report(scope)["decision_ids"] == decision_ids(scope) == ["a", "b"]


def test_a_request_that_was_never_placed_still_has_its_report() -> None:
    report = slo_report(request_scope())

    assert (report["decision_id"], report["met"]) == (None, False)


def test_a_round_without_targets_shows_those_of_its_session() -> None:
    scope = request_scope(SloTargets(), session_id="s")
    placed = replace(PLACED, ttft_s=0.5, tpot_s=0.001)
    give_tokens(add_sequence(scope, placement=placed))

    report = slo_report(scope)

    assert report["targets"] == {"ttft_ms": 500.0, "tpot_ms": 1.0}
    assert (report["met"], attained(scope)) == (False, False)


def test_by_deadlines_a_late_begin_and_a_pause_are_a_miss_though_the_mean_is_kept() -> None:
    rest = [0.7 + 0.02 * n for n in range(10)]

    report = slo_report(read_along(0.48, *rest))

    assert report["achieved"] == {"ttft_ms": 480.0, "tpot_ms": 40.0, "worst_lateness": 1.273}
    assert report["met"] is False


def test_by_deadlines_an_early_begin_lets_an_answer_slow_down_though_the_mean_is_not_kept() -> None:
    report = slo_report(read_along(*(0.1 + 0.08 * n for n in range(11))))

    assert report["achieved"] == {"ttft_ms": 100.0, "tpot_ms": 80.0, "worst_lateness": 0.9}
    assert report["met"] is True


@given(st.lists(st.integers(0, 64).map(lambda pause: pause / 128), min_size=1, max_size=20))
def test_by_deadlines_an_answer_is_met_when_no_token_comes_after_it_was_due(
    pauses_s: list[float],
) -> None:
    came_at_s = list(accumulate(pauses_s))

    in_time = all(at_s <= 0.5 + n * 0.125 for n, at_s in enumerate(came_at_s))
    assert met(read_along(*came_at_s, pace_s=0.125)) is in_time


def test_by_deadlines_the_first_token_is_judged_as_well() -> None:
    report = slo_report(read_along(0.6))

    assert (report["achieved"]["worst_lateness"], report["met"]) == (1.2, False)


def test_by_deadlines_no_token_has_no_lateness_and_is_a_miss() -> None:
    report = slo_report(read_along())

    assert (report["achieved"]["worst_lateness"], report["met"]) == (None, False)


def test_by_deadlines_stages_are_told_but_not_judged_by_their_means() -> None:
    stages = (Stage(name="answer", tpot_s=0.05),)
    progress = stage_progress(stages, {}, [])
    assert progress is not None
    for at_s in (10.1, 10.5):
        progress.produced([1], at_s)
    scope = read_along(0.1, 0.5)
    scope.sequences["s-0"].stages = progress

    report = slo_report(scope)

    assert report["achieved"]["stages"][0]["tpot_ms"] == 400.0
    assert report["met"] is True


@pytest.mark.parametrize("asked", list(Pacing))
@pytest.mark.parametrize("in_force", list(Pacing))
def test_deadlines_are_told_where_they_are_asked_for_or_in_force(
    asked: Pacing, in_force: Pacing
) -> None:
    scope = request_scope(replace(CHAT, pacing=asked))
    give_tokens(add_sequence(scope, placement=replace(PLACED, pacing=in_force)))

    told = slo_report(scope)["targets"].get("pacing")

    assert told == ("deadlines" if Pacing.DEADLINES in (asked, in_force) else None)


def test_a_round_without_targets_has_the_pacing_of_its_session() -> None:
    scope = request_scope(SloTargets(), session_id="s")
    add_sequence(scope, placement=BY_DEADLINES)

    assert scope.targets_in_force.pacing is Pacing.DEADLINES
