"""When an attached engine is looked at and told a new policy; `policies` says which."""

from typing import Final

from services.planner.policies import EngineNow, policy_for, worth_sending
from services.planner.state.cluster import ClusterState
from services.planner.state.engine_state import EngineState
from shared.engines import Policy
from shared.scheduling.rows import KEY, PRODUCED

ADVICE_PAUSE_S: Final = 0.1
_FOLLOW_EVERY_S = 1.0


def learn_from(engine: EngineState, state: ClusterState, now: float) -> None:
    """From how the engine's requests stand; often enough is some ten times a second."""
    rows = engine.rows
    if engine.description.max_speculation_tokens:
        state.policies.drafting.observe(rows)
    if now - engine.followed_at_s < _FOLLOW_EVERY_S:
        return
    engine.followed_at_s = now
    for row, name in zip(rows, engine.classes(rows), strict=True):
        if name is not None and row[PRODUCED] > 0:
            state.survival.goes_on(name, float(row[KEY]), float(row[PRODUCED]))


def advise(engine: EngineState, state: ClusterState, now: float) -> Policy | None:
    """The policy that the engine is to be told, None where it would notice no difference or was
    looked at within `ADVICE_PAUSE_S`: looking costs time.
    """
    if now - engine.advised_at_s < ADVICE_PAUSE_S:
        return None
    engine.advised_at_s = now
    book = state.policies
    present = EngineNow(
        description=engine.description,
        table=engine.table,
        rows=engine.rows,
        classes=engine.classes(engine.rows),
        free_kv_blocks=engine.free_kv_blocks,
        awaited_blocks=state.sessions.resting.blocks(engine.description, now),
    )
    learn_from(engine, state, now)
    asked = book.asked(engine.name, now)
    policy = policy_for(present, asked, book.acceptance, engine.policy, now)
    if not worth_sending(engine.policy, policy):
        return None
    engine.told(policy)
    return policy
