"""Builds the Outcome of a sequence, the planner's record of how it ended."""

from services.gateway.report import lateness, pace_lateness
from services.gateway.scope import RequestScope, SequenceRecord
from shared.requests import Outcome


def outcome_of(
    scope: RequestScope, record: SequenceRecord, finished: str, message: str = ""
) -> Outcome:
    """The outcome of a sequence; `met` is None if it was aborted, moved, or had no SLO."""
    over = finished not in ("abort", "moved")
    judged = over and not scope.targets_in_force.asks_for_nothing
    return Outcome(
        decision_id=record.placement.decision_id if record.placement else "",
        request_id=record.request_id,
        finished="stop" if finished == "repetition" else finished,
        output_tokens=record.output_tokens,
        ttft_s=scope.ttft_s(record),
        tpot_s=record.tpot_s,
        met=(finished != "error" and lateness(scope, record) <= 1) if judged else None,
        recomputed=record.recomputed,
        message=message,
        transfer_s=record.transfer_s,
        held_s=scope.held_s(record),
        queue_s=record.queue_s,
        prefill_s=record.prefill_s,
        stage_lateness=pace_lateness(record),
        moves=len(record.moves),
    )
