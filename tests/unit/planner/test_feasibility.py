"""An engine refuses newcomers that delay other requests, not those that find others late."""

import numpy as np
import pytest

from services.planner.admission.feasibility import EngineWhatIf
from services.planner.estimators.kv_demand import KvRanks
from services.planner.estimators.kv_forecast import Classes
from services.planner.estimators.survival import Survival
from shared.batch_time.table import FloatArray
from shared.engines import Policy
from shared.requests import Reason
from shared.scheduling.rows import DEADLINE, KIND, PROMISED, TPOT, new_row
from shared.scheduling.simulate import simulate
from tests.unit.planner.world import MARGIN, TABLE, World

LONG_TOKENS = 3000
ALONE_S = TABLE.prompt_s(LONG_TOKENS, LONG_TOKENS)
FULL_S = TABLE.decodes_s(60, 60 * 20)  # a pace that about sixty decodes fill


def prompt(tokens: int, due_s: float) -> FloatArray:
    return new_row(tokens=tokens, left=50, due_s=due_s, tpot_s=0.5)


def what_if_with(*rows: FloatArray, now: float = 0.0) -> EngineWhatIf:
    engine, classes = World.of(1).engines[0].state, Classes(Survival(), KvRanks())
    standing = np.array(rows)
    class_indices = classes.indices([None] * len(rows))
    return EngineWhatIf(engine, TABLE, now, classes, standing, class_indices, delivery_s=0.0)


def decoding(number: int, lead: float) -> FloatArray:
    return new_row(
        key=number + 1,
        tokens=20,
        computed=19,
        produced=3,
        left=30,
        due_s=(1 + lead) * FULL_S,
        tpot_s=FULL_S,
    )


def taken(lead: float) -> int:
    """How many requests of a pace an engine takes, each so many paces ahead by then."""
    what_if = what_if_with(decoding(0, lead))
    while what_if.try_one(decoding(len(what_if.rows), lead), "").kept:
        what_if.give(decoding(len(what_if.rows), lead)[None], [""])
    return len(what_if.rows)


@pytest.fixture
def cutting_it_fine() -> EngineWhatIf:
    """An engine with a request that is on time, but short of the safety margin."""
    what_if = what_if_with(prompt(LONG_TOKENS, ALONE_S * (MARGIN + 0.02)))
    assert what_if.at_stake.all()
    assert what_if.late_in_baseline.all()
    return what_if


def test_a_request_short_of_the_safety_margin_anyway_causes_no_refusal(
    cutting_it_fine: EngineWhatIf,
) -> None:
    trial = cutting_it_fine.try_one(prompt(100, 20 * ALONE_S), "")

    assert trial.kept


def test_a_newcomer_that_delays_a_request_short_of_the_safety_margin_is_refused(
    cutting_it_fine: EngineWhatIf,
) -> None:
    trial = cutting_it_fine.try_one(prompt(LONG_TOKENS // 4, ALONE_S / 2), "")

    assert trial.reason is Reason.COMPUTE
    assert trial.others_late == 1


def test_a_refusal_tells_a_late_newcomer_from_late_others_and_from_paces_beyond_the_limit() -> None:
    late = what_if_with(prompt(LONG_TOKENS, 99.0)).try_one(prompt(LONG_TOKENS, ALONE_S / 2), "")
    hasty = decoding(1, 0.0)
    hasty[TPOT] = TABLE.decodes_s(1, 20) / 2
    beyond = what_if_with(decoding(0, 9.0)).try_one(hasty, "")

    assert (late.reason, late.late, late.others_late) == (Reason.COMPUTE, True, 0)
    assert (beyond.reason, beyond.late, beyond.others_late) == (Reason.COMPUTE, False, 0)


def test_at_least_as_many_others_would_be_late_as_a_refusal_says(
    cutting_it_fine: EngineWhatIf,
) -> None:
    cutting_it_fine.give(prompt(100, ALONE_S * (MARGIN + 0.1))[None], [""])
    newcomer = prompt(LONG_TOKENS, ALONE_S * 2.1)
    newcomer[KIND] = PROMISED

    said = cutting_it_fine.try_one(newcomer, "").others_late

    rows = np.vstack([cutting_it_fine.tighter, newcomer])
    to_the_end = simulate(rows, TABLE, cutting_it_fine.engine.limits, 0.0)
    assert 1 <= said <= to_the_end.late(rows)[:-1].sum()


def test_many_newcomers_with_a_little_delay_each_make_no_prompt_late(
    cutting_it_fine: EngineWhatIf,
) -> None:
    for number in range(200):
        decode = new_row(
            key=number + 1,
            tokens=300,
            computed=299,
            produced=3,
            left=200,
            due_s=1.0,
            tpot_s=0.5,
        )
        if cutting_it_fine.try_one(decode, "").kept:
            cutting_it_fine.give(decode[None], [""])
    rows = cutting_it_fine.rows

    forecast = simulate(rows, TABLE, cutting_it_fine.engine.limits, 0.0)

    assert len(rows) > 2
    assert not forecast.late(rows)[0]


def test_what_is_left_unused_of_a_start_shrinks_with_the_time_that_is_left_to_it() -> None:
    row = prompt(LONG_TOKENS, due_s=10.0)

    unused_s = [
        10.0 - what_if_with(row, now=now).tighter[0, DEADLINE] for now in (0.0, 5.0, 9.0, 11.0)
    ]

    assert unused_s[0] > unused_s[1] > unused_s[2] > unused_s[3] == 0
    assert unused_s[1] == pytest.approx(unused_s[0] / 2)


def test_an_engine_takes_no_more_than_it_can_hold_for_ever_however_far_ahead_all_are() -> None:
    assert 1 < taken(4.0) == taken(272.0) == taken(5000.0)


def test_a_pace_slows_an_engine_down_where_its_steps_leave_a_tenth_less_time_to_prompts() -> None:
    fixed_s = TABLE.decodes_s(1, 0)
    loose = what_if_with(new_row(tokens=20, left=30, due_s=9.0, tpot_s=50 * fixed_s))

    # Nothing but the fixed time of a step, 0.98 of the loose steps, is left of each.
    assert loose.would_slow_down(fixed_s)
    assert loose.would_slow_down(9 * fixed_s)
    assert not loose.would_slow_down(10 * fixed_s)
    assert not loose.would_slow_down(100 * fixed_s)


def test_an_engine_without_a_promised_pace_is_slowed_down_by_none() -> None:
    unpaced = what_if_with(new_row(tokens=20, left=30, due_s=9.0, tpot_s=np.inf))

    assert not unpaced.would_slow_down(1e-3)


def test_a_prompt_has_kv_at_once_only_beside_the_blocks_that_are_kept_for_sessions() -> None:
    what_if = what_if_with()
    blocks, tokens = what_if.engine.free_kv_blocks, what_if.engine.description.block_size_tokens
    newcomer = prompt(10 * tokens, 1.0)

    what_if.engine.told(Policy(kept_blocks=blocks - 10))
    beside = what_if.kv_room.has_at_once(newcomer)
    what_if.engine.told(Policy(kept_blocks=blocks - 9))

    assert beside
    assert not what_if.kv_room.has_at_once(newcomer)
