"""Decides when an attached engine gets a new policy; `policies` computes it."""

from typing import Final

from services.planner.policies import EngineNow, policy_for, worth_sending
from services.planner.state.cluster import ClusterState
from services.planner.state.engine_state import EngineState
from shared.engines import Policy
from shared.scheduling.rows import GENERATED, KEY

ADVICE_PAUSE_S: Final = 0.1
_FOLLOW_EVERY_S = 1.0


def _learn_from(engine: EngineState, state: ClusterState, now: float) -> None:
    """Learns drafts and answer lengths from the engine's requests; ten times a second suffices."""
    rows = engine.rows
    if engine.description.max_speculation_tokens:
        state.policies.drafting.observe(rows)
    if now - engine.followed_at_s < _FOLLOW_EVERY_S:
        return
    engine.followed_at_s = now
    for row, name in zip(rows, engine.classes(rows), strict=True):
        if name is not None and row[GENERATED] > 0:
            state.survival.goes_on(name, float(row[KEY]), float(row[GENERATED]))


def advise(engine: EngineState, state: ClusterState, now: float) -> Policy | None:
    """The policy to send to the engine; None where it hardly differs from the last one, or one was
    computed within `ADVICE_PAUSE_S`.
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
        awaited_blocks=state.sessions.idle.blocks(engine.description, now),
    )
    _learn_from(engine, state, now)
    asked = book.asked(engine.name, now)
    policy = policy_for(present, asked, book.acceptance, engine.policy, now)
    if not worth_sending(engine.policy, policy):
        return None
    engine.told(policy)
    return policy
