from services.planner.advice import ADVICE_PAUSE_S, advise
from services.planner.longest_step import longest_step_s
from services.planner.state.cluster import ClusterState
from services.planner.state.engine_state import EngineState
from shared.requests import SloTargets
from tests.unit.planner.builders import make_cluster, make_engine, make_query, place

NOW_S = 1000.0


def attached() -> tuple[ClusterState, EngineState]:
    state = make_cluster(make_engine())
    return state, state.engines["d0"]


def promise(state: ClusterState, ttft_s: float) -> None:
    decision = place(state, make_query(targets=SloTargets(ttft_s=ttft_s)), NOW_S)
    assert decision.placement.runs


def bound_s(state: ClusterState, engine: EngineState) -> float:
    """What the one prompt that was promised allows."""
    prompts = state.policies.asked(engine.name, NOW_S).prompts
    assert engine.table is not None
    assert len(prompts) == 1
    return longest_step_s(engine.table, prompts)


def test_an_engine_that_made_a_promise_is_told_how_long_its_steps_may_last() -> None:
    state, engine = attached()
    promise(state, ttft_s=2.0)

    policy = advise(engine, state, NOW_S)

    assert policy is not None
    assert policy.longest_step_s == bound_s(state, engine)
    assert engine.policy == policy


def test_the_same_policy_is_not_told_twice() -> None:
    state, engine = attached()
    promise(state, ttft_s=2.0)

    told = [advise(engine, state, NOW_S + look) for look in range(3)]

    assert [policy is None for policy in told] == [False, True, True]


def test_an_engine_is_looked_at_only_so_often() -> None:
    state, engine = attached()
    advise(engine, state, NOW_S)
    before = engine.policy
    promise(state, ttft_s=2.0)

    assert advise(engine, state, NOW_S + ADVICE_PAUSE_S / 2) is None
    assert engine.policy == before

    advise(engine, state, NOW_S + ADVICE_PAUSE_S)
    assert engine.policy.longest_step_s == bound_s(state, engine)
