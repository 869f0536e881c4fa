"""What holds of every decision, whatever the cluster and the query."""

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from services.planner.admission.placement import Decision
from services.planner.state.cluster import ClusterState
from shared.batch_time import BatchTimeModel, StepCost
from shared.engines import EngineDescription, KvAddress, Role, StepReport
from shared.requests import Admission, OnRefuse, PlacementMode, PlacementQuery, Reason, SloTargets
from tests.unit.planner.builders import (
    LONG_AFTER_S,
    decide,
    held,
    make_cluster,
    make_engine,
    make_outcome,
    make_query,
    make_report,
    place,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An engine of a cluster that is to be made."""

    description: EngineDescription
    report: StepReport | None
    cost: StepCost | None
    draining: bool


costs = st.builds(
    StepCost,
    fixed_s=st.floats(0.001, 0.1),
    per_prefill_token_s=st.floats(0.00001, 0.01),
    per_decode_token_s=st.floats(0, 0.01),
    per_context_token_s=st.floats(0, 1e-5),
)
reports = st.builds(
    make_report,
    running=st.integers(0, 10),
    waiting=st.integers(0, 5),
    decode_tokens=st.integers(0, 8),
    decode_context_tokens=st.integers(0, 5000),
    queued_prefill_tokens=st.integers(0, 5000),
    free_kv_blocks=st.integers(0, 256),
)
targets = st.builds(
    SloTargets,
    ttft_s=st.none() | st.floats(0.01, 5),
    ttft_slowdown=st.none() | st.floats(1, 10),
    tpot_s=st.none() | st.floats(0.001, 0.2),
    on_refuse=st.sampled_from(OnRefuse),
)
queries = st.builds(
    make_query,
    targets=targets,
    prompt_tokens=st.integers(1, 2100),
    max_output_tokens=st.integers(1, 300),
    waited_s=st.floats(0, 3),
    forced_way=st.none() | st.sampled_from(PlacementMode),
    whole_on_one_engine=st.booleans(),
)


def members(cost: st.SearchStrategy[StepCost | None]) -> st.SearchStrategy[list[Member]]:
    kv_addresses = st.sampled_from([None, KvAddress(transport="nixl", host="h", port=1)])
    descriptions = st.builds(
        make_engine,
        name=st.sampled_from(["a", "b", "c", "d", "e", "f"]),
        role=st.sampled_from(Role),
        kv_blocks=st.integers(4, 256),
        max_running_requests=st.integers(1, 16),
        kv_address=kv_addresses,
    )
    member = st.builds(
        Member,
        description=descriptions,
        report=st.none() | reports,
        cost=cost,
        draining=st.booleans(),
    )
    return st.lists(member, max_size=6, unique_by=lambda one: one.description.name)


def cluster_of(fleet: list[Member]) -> ClusterState:
    state = make_cluster(*(member.description for member in fleet), cost=None)
    for member in fleet:
        engine = state.engines[member.description.name]
        engine.report, engine.draining = member.report, member.draining
        engine.table = BatchTimeModel(member.cost).table
    return state


any_fleet = members(st.none() | costs)
known_fleet = members(costs)


def engines_named(decision: Decision) -> set[str]:
    placement = decision.placement
    return {ref.name for ref in (placement.prefill, placement.decode) if ref}


@given(any_fleet, queries, st.floats(0, 30))
def test_every_decision_is_explained(
    fleet: list[Member], query: PlacementQuery, now: float
) -> None:
    decision = decide(query, cluster_of(fleet), now)

    placement = decision.placement
    assert placement.message or placement.reason is Reason.NONE
    if placement.runs:
        assert decision.chosen in decision.ways
        assert decision.chosen is not None
        assert not decision.chosen.rejected
    else:
        assert all(way.rejected for way in decision.ways)
    assert (placement.hold_s is not None) == (placement.admission is Admission.DEFERRED)


@given(any_fleet, queries, st.floats(0, 30))
def test_only_a_request_that_runs_names_engines(
    fleet: list[Member], query: PlacementQuery, now: float
) -> None:
    decision = decide(query, cluster_of(fleet), now)

    placement = decision.placement
    assert bool(placement.decode) == placement.runs
    assert bool(placement.prefill) == (
        placement.runs and placement.way is PlacementMode.DISAGGREGATED
    )


@given(any_fleet, queries)
def test_never_on_an_engine_that_drains_is_gone_or_too_small(
    fleet: list[Member], query: PlacementQuery
) -> None:
    state = cluster_of(fleet)
    gone = next(iter(state.engines.values()), None)
    if gone:
        state.leave(gone, LONG_AFTER_S)

    decision = decide(query, state, LONG_AFTER_S)

    open_to_all = {engine.name for engine in state.serving()}
    assert engines_named(decision) <= open_to_all
    if decision.placement.decode:
        engine = state.engines[decision.placement.decode.name].description
        needed = query.prompt_tokens + query.max_output_tokens
        assert needed <= min(engine.max_model_len_tokens, engine.kv_capacity_tokens)


@given(any_fleet, queries)
def test_the_callers_way_is_obeyed_or_refused(fleet: list[Member], query: PlacementQuery) -> None:
    placement = decide(query, cluster_of(fleet), LONG_AFTER_S).placement

    if placement.runs:
        assert placement.way is (query.forced_way or placement.way)
        assert placement.prefill is None or not query.whole_on_one_engine


@given(known_fleet, queries)
def test_admitted_means_that_the_targets_are_predicted_to_hold(
    fleet: list[Member], query: PlacementQuery
) -> None:
    placement = decide(query, cluster_of(fleet), LONG_AFTER_S).placement

    if placement.admission is Admission.ADMITTED:
        for asked, predicted in (
            (placement.ttft_s, placement.predicted_ttft_s),
            (placement.tpot_s, placement.predicted_tpot_s),
        ):
            assert asked is None or (predicted is not None and predicted <= asked)
    if query.targets.on_refuse is OnRefuse.BEST_EFFORT:
        assert placement.reason is not Reason.COMPUTE or placement.runs


def worth(decision: Decision) -> tuple[bool, float]:
    chosen = decision.chosen
    finish_s = chosen.finish_s if chosen and chosen.finish_s is not None else float("inf")
    return (decision.placement.admission is not Admission.ADMITTED, finish_s)


@given(known_fleet.filter(bool), queries, st.data())
def test_another_engine_of_a_role_never_makes_the_finish_worse(
    fleet: list[Member], query: PlacementQuery, data: st.DataObject
) -> None:
    """Of a role that serves already: the first of a role takes that work over from the others.

    In seconds: a slowdown, being relative, gets tighter when a faster engine comes.
    """
    query = replace(query, targets=replace(query.targets, ttft_slowdown=None))
    like = data.draw(st.sampled_from(fleet))
    fleet = [replace(member, draining=False) for member in fleet]
    role, kv_address = like.description.role, like.description.kv_address
    newcomer = replace(
        data.draw(known_fleet.filter(bool))[0],
        description=make_engine("new", role, kv_blocks=256, kv_address=kv_address),
    )
    like = replace(like, description=replace(like.description, kv_blocks=256), draining=False)
    fleet = [like if one.description.name == like.description.name else one for one in fleet]

    before = decide(query, cluster_of(fleet), LONG_AFTER_S)
    after = decide(query, cluster_of([*fleet, newcomer]), LONG_AFTER_S)

    if before.placement.runs:
        assert worth(after) <= worth(before)


@given(any_fleet, st.lists(queries, max_size=12), st.data())
def test_books_return_to_zero_after_outcomes_or_loss(
    fleet: list[Member], asked: list[PlacementQuery], data: st.DataObject
) -> None:
    state = cluster_of(fleet)
    decisions = [
        place(state, replace(query, request_id=f"r{i}", group_id=f"g{i % 3}"))
        for i, query in enumerate(asked)
    ]

    for decision in data.draw(st.permutations(decisions)):
        lost = data.draw(st.sampled_from([*state.engines.values(), None]))
        if lost and data.draw(st.booleans()):
            state.leave(lost, LONG_AFTER_S)
        state.settle(make_outcome(decision), 0.0)

    assert held(state) == 0


@given(any_fleet, queries, st.lists(queries, max_size=4))
def test_a_restarted_planner_decides_the_same_once_engines_are_back(
    fleet: list[Member], query: PlacementQuery, earlier: list[PlacementQuery]
) -> None:
    veteran, restarted = cluster_of(fleet), cluster_of(fleet)
    for i, old in enumerate(earlier):
        decision = place(veteran, replace(old, request_id=f"old{i}", group_id=f"old{i}"))
        veteran.settle(make_outcome(decision, finished="abort"), 0.0)

    before, after = (decide(query, state, LONG_AFTER_S) for state in (veteran, restarted))

    decision_id = before.placement.decision_id
    assert replace(after.placement, decision_id=decision_id) == before.placement
    assert after.ways == before.ways


@given(any_fleet, queries)
def test_deciding_changes_nothing(fleet: list[Member], query: PlacementQuery) -> None:
    state = cluster_of(fleet)

    first, second = (decide(query, state, LONG_AFTER_S) for _ in range(2))

    assert first == second
    assert held(state) == 0
