import math
from itertools import count

import numpy as np
import pytest

from shared.batch_time import ADDITIVE, StepCurve, StepTable
from shared.engine.aging import WAIT_S
from shared.engine.new_rows import row_of
from shared.engine.request_rows import RequestRows
from shared.scheduling.former import StepFormer
from shared.scheduling.rows import (
    AVAILABLE,
    COMPUTED,
    DEADLINE,
    GENERATED,
    REMAINING,
    RESIDENT,
    TOTAL,
    TPOT,
)
from shared.scheduling.terms import StageTerms, Terms

TABLE = StepTable.of(StepCurve(form=ADDITIVE, coefficients=(0.05, 0.001, 0.002, 0.0)))


def make_rows(max_resident: int = 8) -> RequestRows[str]:
    former = StepFormer(TABLE, max_tokens=512, block_tokens=16, max_resident=max_resident)
    return RequestRows(former)


def add(rows: RequestRows[str], name: str, terms: Terms, tokens: int = 40, left: int = 5) -> None:
    rows.add(name, name.upper(), terms, row_of(terms, tokens=tokens, left=left))


def test_a_row_runs_ahead_of_a_step_and_is_put_right_when_it_ends() -> None:
    rows = make_rows()
    add(rows, "a", Terms(first_token_due_s=1.0, tpot_s=0.1))

    flight = rows.take_off(rows.former.form(0.0), ends_s=0.09)
    row = rows.row("a")
    assert (row[COMPUTED], row[TOTAL], row[GENERATED], row[REMAINING]) == (40, 41, 1, 4)
    assert row[RESIDENT] == 1
    assert row[DEADLINE] == pytest.approx(0.19)

    late = rows.land(flight, now=0.12)
    assert row[DEADLINE] == pytest.approx(0.22)
    assert late.tokens == 0


def test_best_effort_beside_a_queue_without_end_waits_no_longer_than_its_turn() -> None:
    rows = make_rows(max_resident=8)
    names = (f"plain {at}" for at in count())
    plain: list[str] = []
    for name in ("first", "second"):
        add(rows, name, Terms(best_effort=True), tokens=2000, left=2)
        rows.wait(name, 0.0)
    began_s: dict[str, float] = {}
    now = 0.0
    while now < 3 * WAIT_S and len(began_s) < 2:
        while len(plain) < 16:  # twice as many as have a place
            plain.append(next(names))
            add(rows, plain[-1], Terms(), left=10)
        rows.age(now)
        flight = rows.take_off(rows.former.form(now), ends_s=now + 0.1)
        now += 0.1
        rows.land(flight, now)
        for name in ("first", "second"):
            if name in rows and rows.row(name)[GENERATED]:
                began_s.setdefault(name, now)
        for name in [one for one in (*plain, "first", "second") if one in rows]:
            if rows.row(name)[REMAINING] == 0:
                rows.remove(name)
        plain = [one for one in plain if one in rows]

    assert WAIT_S <= began_s["first"] < began_s["second"] < WAIT_S + 4.0


def test_later_tokens_keep_the_line_of_the_first() -> None:
    rows = make_rows()
    add(rows, "a", Terms(first_token_due_s=1.0, tpot_s=0.1))
    rows.land(rows.take_off(rows.former.form(0.0), ends_s=0.1), now=0.1)

    rows.land(rows.take_off(rows.former.form(0.1), ends_s=0.15), now=0.17)

    assert rows.row("a")[DEADLINE] == pytest.approx(0.3)


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

    assert (rows.row("a")[COMPUTED], rows.row("a")[GENERATED]) == (40, 1)
    assert (rows.row("b")[COMPUTED], rows.row("b")[GENERATED]) == (64, 0)
    assert rows.queued_prefill_tokens == 36


def test_a_request_that_left_while_its_step_ran_does_not_touch_who_sits_there_now() -> None:
    rows = make_rows()
    add(rows, "a", Terms(first_token_due_s=1.0, tpot_s=0.1))
    flight = rows.take_off(rows.former.form(0.0), ends_s=0.1)
    rows.remove("a")
    add(rows, "b", Terms(first_token_due_s=9.0, tpot_s=0.1))

    late = rows.land(flight, now=5.0)

    assert rows.row("b")[DEADLINE] == 9.0
    assert late.tokens == 0


def test_an_evicted_request_keeps_its_promise() -> None:
    rows = make_rows()
    add(rows, "a", Terms(first_token_due_s=1.0, tpot_s=0.1))
    rows.land(rows.take_off(rows.former.form(0.0), ends_s=0.1), now=0.1)
    due_s = rows.row("a")[DEADLINE]

    rows.evicted("a", lost_tokens=0)

    row = rows.row("a")
    assert (row[COMPUTED], row[TOTAL], row[RESIDENT]) == (0, 41, 0)
    assert row[DEADLINE] == due_s


def test_a_token_that_is_dropped_with_its_kv_is_due_again() -> None:
    rows = make_rows()
    add(rows, "a", Terms(first_token_due_s=1.0, tpot_s=0.1))
    rows.land(rows.take_off(rows.former.form(0.0), ends_s=0.1), now=0.1)
    before = rows.row("a").copy()
    rows.take_off(rows.former.form(0.1), ends_s=0.2)

    rows.evicted("a", lost_tokens=1)

    row = rows.row("a")
    for column in (TOTAL, GENERATED, REMAINING, DEADLINE):
        assert row[column] == pytest.approx(before[column])


def test_accepted_drafts_move_the_deadline_by_as_many_paces() -> None:
    rows = make_rows()
    add(rows, "a", Terms(first_token_due_s=1.0, tpot_s=0.1))
    rows.land(rows.take_off(rows.former.form(0.0), ends_s=0.1), now=0.1)

    rows.correct("a", more=2, computed=42, total=43)

    row = rows.row("a")
    assert row[DEADLINE] == pytest.approx(0.4)
    assert (row[GENERATED], row[REMAINING]) == (3, 2)


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
    assert rows.row("a")[DEADLINE] == pytest.approx(1.3)
    assert rows.staged == frozenset()


def test_by_deadlines_a_new_stage_goes_on_from_where_the_one_before_was_due() -> None:
    rows = make_rows()
    stages = (StageTerms(tpot_s=0.1, end_token_ids=(7,)), StageTerms(tpot_s=0.5))
    add(rows, "a", Terms(first_token_due_s=1.0, stages=stages, grace_s=math.inf))
    rows.land(rows.take_off(rows.former.form(0.0), ends_s=0.1), now=0.1)
    assert rows.row("a")[DEADLINE] == pytest.approx(1.1)  # not by when the first one came

    rows.produced("a", [7], ahead=0, now=0.3)

    assert rows.row("a")[DEADLINE] == pytest.approx(1.5)


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


def test_a_step_of_vllms_own_leaves_the_rows_that_the_same_planned_step_would() -> None:
    planned, free = make_rows(), make_rows()
    for rows in (planned, free):
        add(rows, "a", Terms(), tokens=40)
        add(rows, "b", Terms(), tokens=600)
        add(rows, "c", Terms(), tokens=1)
    names = "abc"
    for _ in range(4):
        plan = planned.former.form(0.0)
        scheduled = {names[i]: int(plan.tokens[i]) for i in plan.order}
        planned.take_off(plan, 0.1)
        for name in scheduled:
            row = free.row(name)
            free.begin(name, computed=row[COMPUTED], total=row[TOTAL], now=0.1)

        counts = free.take_off_freely(scheduled)

        assert counts.tolist() == pytest.approx(plan.counts.tolist())
        assert free.former.rows == pytest.approx(planned.former.rows)


def test_whoever_asks_for_something_or_is_urgent_ends_the_order_of_coming_until_it_leaves() -> None:
    rows = make_rows()
    add(rows, "a", Terms())
    assert rows.all_in_turn

    add(rows, "b", Terms(best_effort=True))
    rows.add("c", "C", Terms(), row_of(Terms(), tokens=4, left=1, priority=-1), -1)
    rows.remove("b")
    assert not rows.all_in_turn

    rows.remove("c")
    assert rows.all_in_turn


def test_what_had_to_wait_is_there_once_vllm_began_it() -> None:
    rows = make_rows()
    rows.add("a", "A", Terms(), row_of(Terms(), tokens=40, left=5, came_s=math.inf))

    rows.begin("a", computed=39, total=40, now=7.0)

    row = rows.row("a")
    assert (row[COMPUTED], row[TOTAL], row[RESIDENT], row[AVAILABLE]) == (39, 40, 1, 7.0)
