"""Every broken promise has one cause: whatever took most beyond what was predicted of it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.bench.capacity.judge import Ended
from services.bench.soak.causes import Cause, Part, miss_of, pace_parts, start_parts, was_promised
from services.bench.soak.records import RecordedRequest
from shared.requests import Admission, PlacementMode, Reason
from tests.unit.bench.soak.requests import (
    GAPS,
    TTFT_S,
    judged,
    kept,
    late_start,
    moved,
    outcome,
    record,
    sums,
)

seconds = st.floats(0.0, 10.0)
signed = st.floats(-5.0, 5.0)


def total(parts: Sequence[Part] | None) -> tuple[float, float]:
    assert parts is not None
    return sum(part.real_s for part in parts), sum(part.predicted_s for part in parts)


def cause_of(request: RecordedRequest) -> Cause | None:
    miss = miss_of(request)
    return miss.cause if miss else None


@given(
    held_s=seconds,
    queue_s=seconds,
    prefill_s=seconds,
    rest_s=seconds,
    model_s=signed,
    way_s=seconds,
)
def test_the_parts_of_a_start_add_up_to_the_token_or_its_deadline_and_to_what_was_predicted(
    held_s: float, queue_s: float, prefill_s: float, rest_s: float, model_s: float, way_s: float
) -> None:
    gateway_s = held_s + queue_s + prefill_s + rest_s
    held_s += 0.1  # the planner answered then
    gateway_s += 0.1
    ended = outcome(ttft_s=gateway_s, held_s=held_s, queue_s=queue_s, prefill_s=prefill_s)
    before = sums(real_s=5.0 + model_s, expected_s=5.0)
    request = RecordedRequest(judged=judged(gateway_s + way_s), record=record(ended, before=before))

    real_s, predicted_s = total(start_parts(request))

    assert real_s == pytest.approx(min(gateway_s + way_s, TTFT_S))
    assert predicted_s == pytest.approx(0.5)


@given(tpot_s=st.floats(0.01, 1.0), transfer_s=st.floats(0.0, 1.0), model_s=signed)
def test_the_parts_of_a_pace_add_up_to_the_time_from_the_first_token_to_the_last(
    tpot_s: float, transfer_s: float, model_s: float
) -> None:
    after = sums(real_s=5.0 + model_s, expected_s=5.0)
    request = moved(outcome(tpot_s=tpot_s, transfer_s=transfer_s), tpot_s=0.3, after=after)

    real_s, predicted_s = total(pace_parts(request))

    assert real_s == pytest.approx(0.3 * GAPS)
    assert predicted_s == pytest.approx(0.05 * GAPS + (0.02 if transfer_s else 0.0))


@pytest.mark.parametrize(
    ("recorded", "cause"),
    [
        (late_start(held_s=1.6), Cause.DELIVERY),  # 0.1 s of these before the decision
        (late_start(queue_s=1.6), Cause.QUEUE),
        (late_start(prefill_s=1.8), Cause.PREFILL),
        (late_start(prefill_s=1.8, before=sums(real_s=0.9, expected_s=0.3)), Cause.MODEL),
        (late_start(queue_s=1.6, before=sums(real_s=0.9, expected_s=0.3)), Cause.MODEL),
        (late_start(queue_s=1.6, before=sums(real_s=0.9, expected_s=0.9)), Cause.QUEUE),
        (late_start(queue_s=1.6, before=sums(real_s=0.1, expected_s=0.1)), Cause.DELIVERY),
        (late_start(), Cause.DELIVERY),
        (moved(outcome(tpot_s=0.2, transfer_s=1.5)), Cause.TRANSFER),
        (moved(outcome(tpot_s=0.2, transfer_s=0.07)), Cause.DECODE),
        (
            moved(outcome(tpot_s=0.2, transfer_s=0.07), after=sums(real_s=3.0, expected_s=1.0)),
            Cause.MODEL,
        ),
    ],
)
def test_the_cause_is_what_took_most_beyond_what_was_predicted(
    recorded: RecordedRequest, cause: Cause
) -> None:
    miss = miss_of(recorded)

    assert miss is not None
    assert miss.cause is cause
    assert miss.excess_s[cause] == max(miss.excess_s.values()) > 0


def test_a_first_token_that_waited_for_the_kv_charges_the_transfer_to_the_start_alone() -> None:
    ended = outcome(ttft_s=2.5, transfer_s=2.0, tpot_s=0.05)
    one = record(ended, transfer_s=0.02, way=PlacementMode.DISAGGREGATED)
    request = RecordedRequest(judged=judged(2.5), record=one)

    assert cause_of(request) is Cause.TRANSFER
    pace = pace_parts(request)
    assert pace is not None
    assert next(part for part in pace if part.cause is Cause.TRANSFER).real_s == 0


def test_only_the_target_that_was_missed_is_looked_at() -> None:
    slow_prompt = outcome(ttft_s=0.9, prefill_s=0.7, tpot_s=0.11)
    miss = miss_of(RecordedRequest(judged=judged(0.9, 0.11), record=record(slow_prompt)))

    assert miss is not None
    assert (miss.cause, miss.missed_ttft, miss.missed_tpot) == (Cause.DECODE, False, True)
    assert Cause.PREFILL not in miss.excess_s


@pytest.mark.parametrize(
    "recorded",
    [
        RecordedRequest(judged=judged(2.0), record=record(None)),
        RecordedRequest(
            judged=judged(None, ended=Ended.FAILED), record=record(outcome(ttft_s=None))
        ),
        RecordedRequest(judged=judged(None, ended=Ended.CUT, cut_at_s=9.0), record=record(None)),
    ],
)
def test_a_promise_whose_end_nobody_knows_is_lost_and_not_dropped(
    recorded: RecordedRequest,
) -> None:
    assert cause_of(recorded) is Cause.LOST


def test_what_was_kept_or_never_promised_is_no_miss() -> None:
    late = judged(2.0)
    best_effort = record(outcome(), admission=Admission.BEST_EFFORT, reason=Reason.COMPUTE)
    free = record(outcome(), reason=Reason.NO_TARGET)

    assert miss_of(kept()) is None
    for not_promised in (best_effort, free, None):
        request = RecordedRequest(judged=late, record=not_promised)
        assert not was_promised(request)
        assert miss_of(request) is None


def test_a_request_that_started_late_is_not_asked_why_it_went_on_slowly() -> None:
    slow = outcome(ttft_s=2.0, queue_s=1.6, tpot_s=2.0)
    miss = miss_of(RecordedRequest(judged=judged(2.0, 2.0), record=record(slow)))

    assert miss is not None
    assert (miss.cause, miss.missed_ttft, miss.missed_tpot) == (Cause.QUEUE, True, True)
    assert Cause.DECODE not in miss.excess_s


def test_quicker_steps_than_expected_are_no_excuse() -> None:
    quick = sums(real_s=0.5, expected_s=1.0)
    miss = miss_of(late_start(prefill_s=1.8, before=quick))
    plain = miss_of(late_start(prefill_s=1.8))

    assert miss is not None
    assert plain is not None
    assert miss.cause is Cause.PREFILL
    assert miss.excess_s[Cause.PREFILL] > plain.excess_s[Cause.PREFILL]
    assert miss.excess_s[Cause.MODEL] == pytest.approx(-0.5)


def test_one_token_has_no_pace() -> None:
    one = replace(judged(2.0).seen, token_times_s=(2.0,))
    request = replace(kept(), judged=replace(judged(2.0), seen=one))

    assert pace_parts(request) is None
