"""Which classes a fleet serves together under overload."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.admission.pending import PendingRequest
from services.planner.admission.placement import Decision
from services.planner.admission.rounds import decide_round
from services.planner.state.class_mix import (
    ClassMix,
    ClassWork,
    TightPool,
    Work,
    crowding_classes,
    tight_pool,
    work_of,
)
from services.planner.state.cluster import ClusterState
from services.planner.state.pools import left_to_work
from services.planner.tuning import ENOUGH_SERVED, WORTH_LEAVING_OUT
from shared.requests import OnRefuse, Pacing, SloTargets
from shared.scheduling.grace import grace_of
from shared.scheduling.speculation import Alone
from tests.unit.planner.builders import LONG_AFTER_S, make_cluster, make_engine, make_query

ALWAYS_S = 1e6  # an answer that never ends
TIGHT = ClassWork(
    name="tight", per_s=0.2, work_s=0.1, value=1.0, leaves=0.05, decodes_s=ALWAYS_S, waits_s=0.0
)
LOOSE = ClassWork(
    name="loose", per_s=5.0, work_s=0.1, value=1.0, leaves=0.9, decodes_s=ALWAYS_S, waits_s=0.0
)

shares = st.floats(0.01, 1.0)
classes = st.lists(
    st.builds(
        ClassWork,
        name=st.uuids().map(str),
        per_s=st.just(0.0) | st.floats(1e-9, 20.0),  # where products do not underflow
        work_s=st.floats(0.001, 2.0),
        value=st.floats(0.1, 5.0),
        leaves=shares,
        decodes_s=st.sampled_from([0.0, 0.1, 5.0, ALWAYS_S]),
        waits_s=st.sampled_from([0.1, 1.0, 100.0]),
    ),
    max_size=6,
)


@given(classes=classes, engines=st.integers(1, 64))
def test_what_is_left_to_work_is_between_the_tightest_pace_and_all(
    classes: list[ClassWork], engines: int
) -> None:
    if classes:
        tightest, left = min(one.leaves for one in classes), left_by(classes, engines)
        busy = [replace(one, per_s=1.0, decodes_s=100 * engines) for one in classes]

        assert tightest - 1e-9 <= left <= 1 + 1e-9
        assert left <= left_by(classes, engines + 1) + 1e-9
        assert left_by(busy, engines) == pytest.approx(tightest)


def left_by(
    classes: list[ClassWork], engines: int, tight: float = 0.0, loose: float = math.inf
) -> float:
    rows = [
        (one.per_s, one.work_s, one.value, one.leaves, one.decodes_s, one.waits_s)
        for one in classes
    ]
    return left_to_work(np.array(rows), tight, loose, engines)


def test_a_pace_that_leaves_others_nothing_is_left_out_of_one_engine() -> None:
    assert crowding_classes([TIGHT, LOOSE], engines=1) == {"tight"}


def test_it_is_served_where_an_engine_of_its_own_can_be_spared() -> None:
    assert crowding_classes([TIGHT, LOOSE], engines=2) == frozenset()


def test_a_pace_that_binds_an_engine_for_a_small_part_of_the_time_is_served() -> None:
    rare = replace(TIGHT, decodes_s=0.5)  # a tenth of the time
    patient = replace(LOOSE, per_s=8.0, waits_s=2.0)

    assert crowding_classes([TIGHT, patient], engines=1) == {"tight"}
    assert crowding_classes([rare, patient], engines=1) == frozenset()
    often = replace(rare, per_s=20.0, work_s=0.01)
    assert crowding_classes([often, patient], engines=1) == {"tight"}


def test_a_pace_that_others_cannot_wait_for_counts_as_always_there() -> None:
    rare, hurried = replace(TIGHT, decodes_s=0.5), replace(LOOSE, per_s=8.0, waits_s=0.4)

    assert crowding_classes([rare, hurried], engines=1) == {"tight"}


def test_it_is_served_where_it_is_worth_what_it_takes() -> None:
    worth = replace(TIGHT, value=100.0)

    assert crowding_classes([worth, LOOSE], engines=1) == frozenset()


@given(classes=classes, engines=st.integers(1, 64))
def test_only_paces_tighter_than_all_that_stay_are_left_out(
    classes: list[ClassWork], engines: int
) -> None:
    out = crowding_classes(classes, engines)

    stay = [one.leaves for one in classes if one.name not in out]
    gone = [one.leaves for one in classes if one.name in out]
    assert not classes or stay
    assert all(one < min(stay) for one in gone)


@given(classes=classes)
def test_no_class_is_left_out_while_all_can_be_served(classes: list[ClassWork]) -> None:
    asked = sum(one.per_s * one.work_s for one in classes)
    tightest = min((one.leaves for one in classes), default=1.0)

    assert crowding_classes(classes, engines=math.ceil(asked / tightest) + 1) == frozenset()


def test_a_tight_pace_stays_on_as_few_engines_as_it_needs_under_overload() -> None:
    loose = replace(LOOSE, per_s=10.0)

    assert tight_pool([TIGHT, loose], engines=2) == TightPool(
        classes=frozenset({"tight"}), engines=1
    )


@given(classes=classes, engines=st.integers(1, 64))
def test_a_pool_leaves_engines_to_others_and_holds_the_tightest_paces(
    classes: list[ClassWork], engines: int
) -> None:
    pool = tight_pool(classes, engines)

    if pool is not None:
        inside = [one.leaves for one in classes if one.name in pool.classes]
        outside = [one.leaves for one in classes if one.name not in pool.classes]
        assert 0 < pool.engines < engines
        assert max(inside) < min(outside)


@given(classes=classes)
def test_no_class_has_a_pool_while_all_can_be_served_anywhere(classes: list[ClassWork]) -> None:
    asked = sum(one.per_s * one.work_s for one in classes)
    tightest = min((one.leaves for one in classes), default=1.0)

    assert tight_pool(classes, engines=math.ceil(asked / tightest) + 1) is None


def mix_of(seconds: float, *, tight_per_s: float = 0.2, has_ttft: bool = True) -> ClassMix:
    mix = ClassMix()
    tight = Work(work_s=0.1, leaves=0.05, decodes_s=9.0, waits_s=1.0, has_ttft=has_ttft)
    for number in range(round(seconds * 10)):
        now = number / 10
        mix.asked("loose", Work(work_s=0.1, leaves=0.9, decodes_s=9.0, waits_s=1.0), 1.0, now)
        if number % round(10 / tight_per_s) == 0:
            mix.asked("tight", tight, 1.0, now)
    return mix


def test_what_is_asked_for_is_learned_from_requests() -> None:
    mix = mix_of(30.0)

    mix.crowding_classes(1, 30.0)
    assert mix.crowding_classes(1, 31.0) == {"tight"}
    assert mix.crowding_classes(3, 31.0) == frozenset()


def test_a_class_is_left_out_once_it_has_crowded_others_for_as_long_as_it_may_wait() -> None:
    mix = mix_of(30.0)

    assert mix.crowding_classes(1, 30.0) == frozenset()
    assert mix.crowding_classes(1, 30.9) == frozenset()
    assert mix.crowding_classes(1, 31.0) == {"tight"}
    assert mix.crowding_classes(3, 31.1) == frozenset()  # it crowds nobody, so it counts anew
    assert mix.crowding_classes(1, 31.2) == frozenset()


def test_a_class_that_may_start_at_any_time_makes_room_as_soon_as_it_crowds_others() -> None:
    mix = mix_of(30.0, has_ttft=False)

    assert mix.crowding_classes(1, 30.0) == {"tight"}
    assert mix.crowding_classes(3, 31.0) == frozenset()


def test_a_load_that_is_over_leaves_no_class_out() -> None:
    mix = mix_of(30.0)

    mix.crowding_classes(1, 30.0)
    assert mix.crowding_classes(1, 30.0 + 120.0) == frozenset()


def test_memory_of_classes_is_bounded() -> None:
    mix = ClassMix()
    for number in range(1000):
        mix.asked(
            f"class-{number}",
            Work(work_s=0.1, leaves=0.5, decodes_s=9.0, waits_s=1.0),
            1.0,
            number / 100,
        )

    assert len(mix._classes) == 256


# ---- what a request takes


def work(targets: SloTargets, state: ClusterState) -> Work:
    query = make_query(targets=targets)
    demand = state.demand(query, targets.ttft_s or math.inf, LONG_AFTER_S)
    table = state.any_table
    assert table is not None
    alone = Alone(drafts=0, gain=1.0, tpot_s=table.decodes_s(1, 100.0))
    return work_of(demand, 50, 0.1, alone, table)


def leaves(targets: SloTargets, state: ClusterState) -> float:
    return work(targets, state).leaves


def test_an_answer_binds_steps_for_as_long_as_its_pace_allows_it_to_take() -> None:
    state = make_cluster(make_engine())

    assert work(SloTargets(tpot_s=0.1), state).decodes_s == pytest.approx(5.0)
    assert work(SloTargets(ttft_s=1.0), state).decodes_s == 0.0


def test_only_without_a_ttft_target_may_a_first_token_come_at_any_time() -> None:
    state = make_cluster(make_engine())

    assert not work(SloTargets(tpot_s=0.1), state).has_ttft
    assert work(SloTargets(ttft_s=1.0, tpot_s=0.1), state).has_ttft


def test_a_pace_leaves_what_an_idle_step_does_not_take() -> None:
    state = make_cluster(make_engine())
    table = state.any_table
    assert table is not None
    alone_s = table.decodes_s(1, 100.0)

    assert leaves(SloTargets(ttft_s=1.0), state) == 1.0
    assert math.isclose(leaves(SloTargets(tpot_s=2 * alone_s), state), 0.5)
    by_deadlines = SloTargets(ttft_s=50 * alone_s, tpot_s=alone_s, pacing=Pacing.DEADLINES)
    assert math.isclose(leaves(by_deadlines, state), 0.5)


def test_the_shortest_likely_answer_bounds_what_its_drafts_leave() -> None:
    state = make_cluster(make_engine())
    table = state.any_table
    assert table is not None
    step_s, gain = table.decodes_s(1, 100.0), 2.5
    tpot_s = 2 * step_s
    demand = state.demand(make_query(targets=SloTargets(tpot_s=tpot_s)), math.inf, LONG_AFTER_S)

    def left(later_tokens: int) -> float:
        grace = grace_of(tpot_s, later_tokens, gain=gain)
        drafting = Alone(drafts=3, gain=gain, tpot_s=step_s / gain)
        return work_of(replace(demand, grace=grace), 50, 0.1, drafting, table).leaves

    assert math.isclose(left(1), 1 - step_s / tpot_s)
    assert math.isclose(left(100), 1 - step_s / (gain * tpot_s))
    assert left(1) < left(4) < left(100)


def test_requests_of_a_class_that_is_left_out_are_answered_at_once() -> None:
    """And say why."""
    state = make_cluster(make_engine())
    for number in range(300):
        now = LONG_AFTER_S - 30.0 + number / 10
        state.class_mix.asked(
            "loose", Work(work_s=0.1, leaves=0.9, decodes_s=9.0, waits_s=1.0), 1.0, now
        )
        state.class_mix.asked(
            "tight", Work(work_s=0.01, leaves=0.05, decodes_s=9.0, waits_s=1.0), 1.0, now
        )
    state.crowding_classes(LONG_AFTER_S - 1.0)  # since then it crowds the others
    for on_refuse in OnRefuse:
        targets = SloTargets(class_name="tight", ttft_s=20.0, tpot_s=0.5, on_refuse=on_refuse)
        asked = PendingRequest(
            query=make_query(targets=targets),
            arrived_at_s=LONG_AFTER_S,
            first_asked_at_s=LONG_AFTER_S,
        )

        (decision,) = decide_round([asked], state, LONG_AFTER_S)

        assert isinstance(decision, Decision)
        assert decision.placement.runs == (on_refuse is OnRefuse.BEST_EFFORT)
        assert "leaves too little" in decision.placement.message


def test_under_overload_tight_paces_are_promised_on_their_pool_alone() -> None:
    state = make_cluster(make_engine("d0"), make_engine("d1"))
    for number in range(300):
        now = LONG_AFTER_S - 30.0 + number / 10
        for _ in range(2):
            state.class_mix.asked(
                "loose", Work(work_s=0.05, leaves=0.9, decodes_s=9.0, waits_s=1.0), 1.0, now
            )
        state.class_mix.asked(
            "tight", Work(work_s=0.001, leaves=0.05, decodes_s=9.0, waits_s=1.0), 1.0, now
        )
    targets = SloTargets(class_name="tight", ttft_s=20.0, tpot_s=0.5)
    asked = [
        PendingRequest(
            query=make_query(f"r{number}", targets=targets),
            arrived_at_s=LONG_AFTER_S,
            first_asked_at_s=LONG_AFTER_S,
        )
        for number in range(4)
    ]

    decisions = decide_round(asked, state, LONG_AFTER_S)

    placed = [one.placement.decode for one in decisions if isinstance(one, Decision)]
    assert {engine.name for engine in placed if engine is not None} == {"d0"}


def pool_sizes(engines: int) -> list[int]:
    steps = min(engines, 8)
    return [max(1, round(engines * step / steps)) for step in range(1, steps + 1)]


def filled(
    classes: list[ClassWork], tight: float, loose: float, here_s: float, there_s: float
) -> float:
    value = 0.0
    for one in sorted(classes, key=lambda one: one.work_s / one.value):
        if one.leaves >= tight:
            wanted = one.per_s * one.work_s
            given = min(there_s, wanted) if one.leaves >= loose else 0.0
            more = min(here_s, wanted - given)
            there_s, here_s = there_s - given, here_s - more
            value += ((given + more) / wanted if wanted > 0 else 1.0) * one.per_s * one.value
    return value


def filled_in_turns(
    classes: list[ClassWork], tight: float, loose: float, first: int, second: int
) -> float:
    """`filled` where a tight pace counts for the time in which its class decodes."""
    ordered = sorted(classes, key=lambda one: one.work_s / one.value)
    if tight == loose:
        engines = first + second
        return filled(classes, tight, tight, engines * left_by(ordered, engines, tight), 0.0)
    apart = loose if second > 0 else math.inf
    here_s = first * left_by(ordered, first, tight, apart)
    return filled(classes, tight, loose, here_s, second * left_by(ordered, second, loose))


def is_short(classes: list[ClassWork], served: float, engines: int, tightest: float) -> bool:
    work_s = sum(one.per_s * one.work_s for one in classes)
    offered = sum(one.per_s * one.value for one in classes)
    return work_s > engines * tightest and served < ENOUGH_SERVED * offered


@given(classes=classes, engines=st.integers(1, 64))
def test_the_classes_left_out_are_exactly_those_of_the_plain_search(
    classes: list[ClassWork], engines: int
) -> None:
    def value(shares: list[float]) -> float:
        return max(
            filled_in_turns(classes, shares[0], loose, size, engines - size)
            for loose in shares
            for size in pool_sizes(engines)
        )

    shares = sorted({one.leaves for one in classes})
    out: set[str] = set()
    if len(shares) > 1 and is_short(classes, value(shares), engines, shares[0]):
        values = [WORTH_LEAVING_OUT * value(shares)]
        values += [value(shares[place:]) for place in range(1, len(shares))]
        least = shares[values.index(max(values))]
        out = {one.name for one in classes if one.leaves < least}

    assert crowding_classes(classes, engines) == out


@given(classes=classes, engines=st.integers(2, 64))
def test_the_tight_pool_is_exactly_that_of_the_plain_search(
    classes: list[ClassWork], engines: int
) -> None:
    shares, found = sorted({one.leaves for one in classes}), None
    spread = filled(classes, shares[0], shares[0], engines * shares[0], 0.0) if shares else 0.0
    if len(shares) > 1 and is_short(classes, spread, engines, shares[0]):
        best = WORTH_LEAVING_OUT * spread
        for loose in shares[1:]:
            for size in pool_sizes(engines - 1):
                times_s = size * shares[0], (engines - size) * loose
                value = filled(classes, shares[0], loose, *times_s)
                if value > best:
                    names = frozenset(one.name for one in classes if one.leaves < loose)
                    best, found = value, TightPool(classes=names, engines=size)

    assert tight_pool(classes, engines) == found
