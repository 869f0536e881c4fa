"""Every decision is handed out once: with its outcome and its steps, or as one that is lost."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.planner.state.decision_records import DecisionRecords
from shared.batch_time import BatchTimeModel, StepTable
from shared.requests import (
    Admission,
    EngineRef,
    Explanation,
    Outcome,
    Placement,
    PlacementMode,
    Reason,
)
from tests.unit.planner.builders import COST, make_query, make_report

TABLE = BatchTimeModel(COST).table
P, D = (EngineRef(name=name, engine_id=name, address=name) for name in ("p0", "d0"))
TABLES: dict[str, StepTable | None] = {"p0": TABLE, "d0": TABLE}


def decision(decision_id: str = "d-1", **placement: Any) -> Explanation:
    """Made at 10 s, of a request that came at 9.5 s, unless changed."""
    fields: dict[str, Any] = {
        "admission": Admission.ADMITTED,
        "reason": Reason.NONE,
        "decode": D,
    }
    return Explanation(
        query=make_query(waited_s=0.5),
        placement=Placement(decision_id=decision_id, **(fields | placement)),
        decided_at_epoch_s=0.0,
    )


def outcome(decision_id: str = "d-1") -> Outcome:
    """First token at 11 s, the other four within 2 s."""
    return Outcome(
        decision_id=decision_id,
        request_id="r1",
        finished="length",
        output_tokens=5,
        ttft_s=1.5,
        tpot_s=0.5,
    )


def steps(ledger: DecisionRecords, engine: str) -> None:
    """One every 0.1 s from 10.05 to 14.95 s."""
    for number in range(50):
        at_s = 10.05 + number / 10
        report = make_report(ended_at_s=at_s, duration_s=0.1, decode_tokens=1, running=1)
        ledger.reported(engine, [report], at_s)


def test_an_end_is_handed_out_with_the_steps_before_and_after_the_first_token() -> None:
    ledger = DecisionRecords()
    ledger.decided(decision(way=PlacementMode.DISAGGREGATED, prefill=P), TABLES, 10.0)
    steps(ledger, "p0")
    steps(ledger, "d0")
    ledger.settled(outcome(), 13.1)

    assert ledger.ended(13.2) == []  # its last step may not have been told of yet
    (ended,) = ledger.ended(14.0)

    assert ended.outcome == outcome()
    assert ended.before_first is not None
    assert ended.after_first is not None
    assert (ended.before_first.engine, ended.before_first.steps) == ("p0", 10)
    assert (ended.after_first.engine, ended.after_first.steps) == ("d0", 20)
    assert ledger.ended(15.0) == []


def test_what_runs_after_a_first_token_was_due_is_not_laid_to_its_being_late() -> None:
    ledger = DecisionRecords()
    ledger.decided(decision(ttft_s=1.0), TABLES, 10.0)
    steps(ledger, "d0")
    ledger.settled(outcome(), 13.1)

    (ended,) = ledger.ended(14.0)

    assert ended.before_first is not None
    assert ended.after_first is not None
    assert (ended.before_first.steps, ended.after_first.steps) == (5, 20)


def test_a_refusal_has_ended_when_it_is_made() -> None:
    ledger = DecisionRecords()
    refused = decision(admission=Admission.REFUSED, decode=None)

    ledger.decided(refused, {}, 10.0)

    assert ledger.ended(10.0) == [refused]
    assert ledger.all_that_is_left() == []


def test_a_decision_that_was_deferred_first_is_handed_out_once() -> None:
    ledger = DecisionRecords()
    ledger.decided(decision(admission=Admission.DEFERRED, decode=None), {}, 10.0)
    ledger.decided(decision(), TABLES, 10.5)
    ledger.settled(outcome(), 13.0)

    assert [one.placement.admission for one in ledger.all_that_is_left()] == [Admission.ADMITTED]


def test_a_decision_without_a_report_is_given_up_without_an_outcome() -> None:
    ledger = DecisionRecords(most_open=2)
    for number in range(3):
        ledger.decided(decision(f"d-{number}"), TABLES, 10.0)

    (lost,) = ledger.ended(11.0)

    assert (lost.placement.decision_id, lost.outcome) == ("d-0", None)
    left = ledger.all_that_is_left()
    assert [one.placement.decision_id for one in left] == ["d-1", "d-2"]


def test_an_engine_that_leaves_takes_nothing_along_of_what_has_ended() -> None:
    ledger = DecisionRecords()
    ledger.decided(decision(), TABLES, 10.0)
    steps(ledger, "d0")
    ledger.settled(outcome(), 13.0)
    ledger.left("d0")

    (ended,) = ledger.ended(13.0)

    assert ended.before_first is not None


def test_an_engine_that_came_back_says_nothing_of_the_one_before() -> None:
    ledger = DecisionRecords()
    ledger.decided(decision(), TABLES, 10.0)
    steps(ledger, "d0")
    ledger.left("d0")
    ledger.settled(outcome(), 13.0)

    (ended,) = ledger.ended(14.0)

    assert (ended.before_first, ended.after_first) == (None, None)


EVENTS = st.lists(
    st.tuples(st.sampled_from(["decide", "refuse", "settle", "take"]), st.integers(0, 9))
)


@given(events=EVENTS)
def test_no_decision_is_dropped_and_none_comes_twice(events: list[tuple[str, int]]) -> None:
    ledger, made, taken = DecisionRecords(most_open=3), list[str](), list[str]()
    for at_s, (what, number) in enumerate(events):
        now = float(at_s)
        if what == "take":
            taken += [one.placement.decision_id for one in ledger.ended(now)]
        elif what == "settle":
            ledger.settled(outcome(made[number % len(made)] if made else "d-x"), now)
        else:
            made.append(f"d-{len(made)}")
            admission = Admission.REFUSED if what == "refuse" else Admission.ADMITTED
            ledger.decided(decision(made[-1], admission=admission), TABLES, now)
    taken += [one.placement.decision_id for one in ledger.all_that_is_left()]

    assert sorted(taken) == sorted(made)
