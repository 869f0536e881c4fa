import math

import numpy as np
import pytest

from shared.batch_time import ADDITIVE, StepCurve, StepTable
from shared.engine.request_rows import RequestRows, row_of
from shared.scheduling.former import StepFormer
from shared.scheduling.rows import (
    AVAILABLE,
    BEST_EFFORT,
    COMPUTED,
    DUE,
    KEY,
    KIND,
    LEFT,
    PLAIN,
    PRODUCED,
    PROMISED,
    RESIDENT,
    TOTAL,
    TPOT,
    TTFT,
)
from shared.scheduling.terms import StageTerms, Terms

TABLE = StepTable.of(StepCurve(form=ADDITIVE, coefficients=(0.05, 0.001, 0.002, 0.0)))


def make_rows(max_resident: int = 8) -> RequestRows[str]:
    former = StepFormer(TABLE, max_tokens=512, block_tokens=16, max_resident=max_resident)
    return RequestRows(former)


def add(rows: RequestRows[str], name: str, terms: Terms, tokens: int = 40, left: int = 5) -> None:
    rows.add(name, name.upper(), terms, row_of(terms, tokens=tokens, left=left))


def test_a_promise_becomes_a_row() -> None:
    terms = Terms(
        arrived_at_s=10.0, first_token_due_s=12.0, tpot_s=0.1, decision_id="d-ab12-77", stages=()
    )

    row = row_of(terms, tokens=40, left=5)

    assert (row[DUE], row[TPOT], row[TTFT], row[KIND]) == (12.0, 0.1, 2.0, PROMISED)
    assert (row[TOTAL], row[LEFT], row[PRODUCED], row[KEY]) == (40, 5, 0, 77)


@pytest.mark.parametrize(
    ("terms", "kind"),
    [
        (Terms(), PLAIN),
        (Terms(best_effort=True, first_token_due_s=1.0), BEST_EFFORT),
        (Terms(tpot_s=0.1), PROMISED),
        (Terms(stages=(StageTerms(tpot_s=0.2),)), PROMISED),
    ],
)
def test_what_was_asked_says_what_kind_a_request_is(terms: Terms, kind: float) -> None:
    assert row_of(terms, tokens=1, left=1)[KIND] == kind


def test_of_those_that_asked_for_nothing_the_urgent_and_then_the_older_come_first() -> None:
    def place_s(came_s: float, priority: int = 0) -> float:
        return float(row_of(Terms(), tokens=1, left=1, came_s=came_s, priority=priority)[AVAILABLE])

    assert place_s(100, priority=-1) < place_s(5) < place_s(6) < place_s(5, priority=1)
    assert place_s(100, priority=9999) < 0
    assert place_s(math.inf) == math.inf


def test_a_row_runs_ahead_of_a_step_and_is_put_right_when_it_ends() -> None:
    rows = make_rows()
    add(rows, "a", Terms(first_token_due_s=1.0, tpot_s=0.1))

    flight = rows.take_off(rows.former.form(0.0), ends_s=0.09)
    row = rows.row("a")
    assert (row[COMPUTED], row[TOTAL], row[PRODUCED], row[LEFT]) == (40, 41, 1, 4)
    assert row[RESIDENT] == 1
    assert row[DUE] == pytest.approx(0.19)

    late = rows.land(flight, now=0.12)
    assert row[DUE] == pytest.approx(0.22)
    assert late.tokens == 0


def test_later_tokens_keep_the_line_of_the_first() -> None:
    rows = make_rows()
    add(rows, "a", Terms(first_token_due_s=1.0, tpot_s=0.1))
    rows.land(rows.take_off(rows.former.form(0.0), ends_s=0.1), now=0.1)

    rows.land(rows.take_off(rows.former.form(0.1), ends_s=0.15), now=0.17)

    assert rows.row("a")[DUE] == pytest.approx(0.3)


def test_a_late_token_is_told_with_how_late_it_was() -> None:
    rows = make_rows()
    add(rows, "a", Terms(first_token_due_s=1.0, tpot_s=0.1))
    add(rows, "b", Terms())

    late = rows.land(rows.take_off(rows.former.form(0.0), ends_s=0.1), now=1.5)

    assert late.tokens == 1
    assert late.worst_s == pytest.approx(0.5)


def test_a_step_that_became_another_one_is_told_by_how_its_requests_stand() -> None:
    rows = make_rows()
    add(rows, "a", Terms(), tokens=40)
    add(rows, "b", Terms(), tokens=100)

    rows.take_off_as(["a", "b"], [40, 64], [41, 100], [True, False], ends_s=0.1)

    assert (rows.row("a")[COMPUTED], rows.row("a")[PRODUCED]) == (40, 1)
    assert (rows.row("b")[COMPUTED], rows.row("b")[PRODUCED]) == (64, 0)
    assert rows.queued_prefill_tokens == 36


def test_a_request_that_left_while_its_step_ran_does_not_touch_who_sits_there_now() -> None:
    rows = make_rows()
    add(rows, "a", Terms(first_token_due_s=1.0, tpot_s=0.1))
    flight = rows.take_off(rows.former.form(0.0), ends_s=0.1)
    rows.remove("a")
    add(rows, "b", Terms(first_token_due_s=9.0, tpot_s=0.1))

    late = rows.land(flight, now=5.0)

    assert rows.row("b")[DUE] == 9.0
    assert late.tokens == 0


def test_an_evicted_request_keeps_its_promise() -> None:
    rows = make_rows()
    add(rows, "a", Terms(first_token_due_s=1.0, tpot_s=0.1))
    rows.land(rows.take_off(rows.former.form(0.0), ends_s=0.1), now=0.1)
    due_s = rows.row("a")[DUE]

    rows.evicted("a", lost_tokens=0)

    row = rows.row("a")
    assert (row[COMPUTED], row[TOTAL], row[RESIDENT]) == (0, 41, 0)
    assert row[DUE] == due_s


def test_a_token_that_is_dropped_with_its_kv_is_due_again() -> None:
    rows = make_rows()
    add(rows, "a", Terms(first_token_due_s=1.0, tpot_s=0.1))
    rows.land(rows.take_off(rows.former.form(0.0), ends_s=0.1), now=0.1)
    before = rows.row("a").copy()
    rows.take_off(rows.former.form(0.1), ends_s=0.2)

    rows.evicted("a", lost_tokens=1)

    row = rows.row("a")
    for column in (TOTAL, PRODUCED, LEFT, DUE):
        assert row[column] == pytest.approx(before[column])


def test_accepted_drafts_move_the_deadline_by_as_many_paces() -> None:
    rows = make_rows()
    add(rows, "a", Terms(first_token_due_s=1.0, tpot_s=0.1))
    rows.land(rows.take_off(rows.former.form(0.0), ends_s=0.1), now=0.1)

    rows.correct("a", more=2, computed=42, total=43)

    row = rows.row("a")
    assert row[DUE] == pytest.approx(0.4)
    assert (row[PRODUCED], row[LEFT]) == (3, 2)


def test_the_token_that_ends_a_stage_changes_the_pace_from_now_on() -> None:
    rows = make_rows()
    stages = (StageTerms(tpot_s=0.1, end_token_ids=(7,)), StageTerms(tpot_s=0.5))
    add(rows, "a", Terms(first_token_due_s=1.0, stages=stages))
    rows.land(rows.take_off(rows.former.form(0.0), ends_s=0.1), now=0.1)
    assert rows.staged == {"a"}

    rows.produced("a", [3], ahead=0, now=0.2)
    assert rows.row("a")[TPOT] == 0.1

    rows.produced("a", [7], ahead=1, now=0.3)
    assert rows.row("a")[TPOT] == 0.5
    assert rows.row("a")[DUE] == pytest.approx(1.3)
    assert rows.staged == frozenset()


def test_requests_come_back_in_the_order_of_their_slots() -> None:
    rows = make_rows(max_resident=100)
    names = [f"r{n}" for n in range(90)]
    for name in names:
        add(rows, name, Terms())

    assert rows.of_slots(np.array([89, 0, 7])) == ["R89", "R0", "R7"]
    assert len(rows.rows) == 90
    rows.remove("r7")
    assert len(rows.rows) == 89
    assert "r7" not in rows
