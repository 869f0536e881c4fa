"""The safety margin that planning keeps is as wide as what becomes of promises asks for."""

import random
from dataclasses import replace

import pytest

from services.planner.estimators.safety_margin import SafetyMargin
from shared.requests import Admission, Outcome, Placement, Reason


def placed(admission: Admission = Admission.ADMITTED) -> Placement:
    return Placement(
        decision_id="d", admission=admission, reason=Reason.NONE, ttft_s=1.0, tpot_s=0.1
    )


def ended(ttft_s: float | None = 0.5, tpot_s: float | None = 0.05) -> Outcome:
    return Outcome(decision_id="d", request_id="r", finished="stop", ttft_s=ttft_s, tpot_s=tpot_s)


def test_broken_starts_widen_the_reserve_of_starts_alone() -> None:
    reserve = SafetyMargin()
    ttft_share, tpot_share = reserve.ttft_share, reserve.tpot_share

    reserve.learn_start(placed(), ended(ttft_s=1.1))
    reserve.learn_pace(placed(), ended())

    assert reserve.ttft_share > ttft_share
    assert reserve.tpot_share <= tpot_share


@pytest.mark.parametrize("spread", [0.02, 0.1])
def test_two_promises_in_a_hundred_break_at_most_however_unsure_the_engine_is(
    spread: float,
) -> None:
    """Planning fills the time up to the safety margin; what the engine needs beyond is chance."""
    chance, reserve, broken = random.Random(1), SafetyMargin(), 0
    for number in range(20_000):
        outcome = ended(ttft_s=1 - reserve.ttft_share + abs(chance.gauss(0, spread)))
        reserve.learn_start(placed(), outcome)
        broken += number > 2_000 and (outcome.ttft_s or 0) > 1
    assert broken / 18_000 < 0.024
    assert reserve.ttft_share < 4 * spread + 0.06


def test_what_was_never_promised_or_never_came_teaches_nothing() -> None:
    reserve, untouched = SafetyMargin(), SafetyMargin()

    reserve.learn_start(placed(Admission.BEST_EFFORT), ended(ttft_s=9.0))
    reserve.learn_pace(placed(Admission.BEST_EFFORT), ended(tpot_s=9.0))
    reserve.learn_start(placed(), ended(ttft_s=None))
    reserve.learn_pace(placed(), ended(tpot_s=None))

    assert (reserve.ttft_share, reserve.tpot_share) == (untouched.ttft_share, untouched.tpot_share)


def test_a_stage_may_be_slower_than_the_pace_of_another() -> None:
    kept, broken, untouched = SafetyMargin(), SafetyMargin(), SafetyMargin()

    kept.learn_pace(placed(), replace(ended(tpot_s=0.12), stage_lateness=0.99))
    broken.learn_pace(placed(), replace(ended(tpot_s=0.08), stage_lateness=1.01))

    assert kept.tpot_share <= untouched.tpot_share < broken.tpot_share


def test_a_reserve_has_bounds() -> None:
    reserve = SafetyMargin()
    for _ in range(1000):
        reserve.learn_start(placed(), ended(ttft_s=2.0))
        reserve.learn_pace(placed(), ended(tpot_s=2.0))
    assert reserve.ttft_share < 0.5
    assert reserve.tpot_share < 0.25
    for _ in range(10_000):
        reserve.learn_start(placed(), ended())
        reserve.learn_pace(placed(), ended())
    assert reserve.ttft_share > 0
    assert reserve.tpot_share > 0
