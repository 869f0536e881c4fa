"""When an attached engine is told a new policy. What the policy says is decided elsewhere."""

from typing import Final

from services.planner.attachments import Attachment
from services.planner.policies import EngineNow, policy_for, worth_sending
from services.planner.state import ClusterState

ADVICE_PAUSE_S: Final = 0.1


def advise(attachment: Attachment, state: ClusterState, now: float) -> None:
    """Sends what its engine would notice; it looks only so often, for looking costs time."""
    if now - attachment.advised_at_s < ADVICE_PAUSE_S:
        return
    attachment.advised_at_s = now
    engine, book = attachment.engine, state.policies
    present = EngineNow(
        description=engine.description,
        table=engine.table,
        rows=engine.rows,
        free_kv_blocks=engine.free_kv_blocks,
    )
    state.look_at(engine, now)
    asked = book.asked(engine.name, now)
    policy = policy_for(present, asked, book.acceptance, attachment.policy, now)
    if worth_sending(attachment.policy, policy):
        attachment.send(policy)
        engine.told(policy)
