"""Builds the EngineTerms of a request: what is left of its promise."""

from services.gateway.scope import RequestScope, SequenceRecord
from shared.requests import Pacing, Placement
from shared.rpc import slos_pb2 as pb


def engine_terms(
    placement: Placement,
    scope: RequestScope,
    record: SequenceRecord,
    now: float,
    *,
    answered_tokens: int = 0,
) -> pb.EngineTerms:
    """What is left of the promise at `now`, since an engine knows only its own tokens.

    The last `answered_tokens` of the prompt belong to the answer.
    """
    stages = record.stages
    share = placement.pace_share
    return pb.EngineTerms(
        class_name=scope.targets.class_name,
        ttft_s=_next_token_in_s(placement, scope, record),
        tpot_s=None if placement.tpot_s is None else share * placement.tpot_s,
        waited_s=now - scope.arrived_at_s,
        best_effort=placement.gives_way,
        decision_id=placement.decision_id,
        stages=[
            pb.StageTerms(tpot_s=share * stage.tpot_target_s, end_token_ids=stage.end_token_ids)
            for stage in (stages.left if stages else ())
        ],
        produced_tokens=record.output_tokens,
        grace_s=placement.grace_s,
        by_deadlines=placement.pacing is Pacing.DEADLINES,
        answered_tokens=answered_tokens,
    )


def _next_token_in_s(
    placement: Placement, scope: RequestScope, record: SequenceRecord
) -> float | None:
    """When the next token is due, in seconds from the arrival; None if it has no target.

    The first token is due by its TTFT less the delivery time to the client. A later one is due one
    TPOT target after the one before, plus the decode slack (`grace_s`) for the second. Under
    deadline pacing it is due one TPOT target after the due time of the one before.
    """
    if record.last_token_at_s is None:
        ttft_s = placement.ttft_s
        return None if ttft_s is None else ttft_s - placement.delivery_s
    pace_s = next_pace_s(placement, record)
    if pace_s is None:
        return None
    if record.line is not None:
        return record.line.next_due_s(pace_s) - placement.delivery_s
    begins = record.output_tokens == 1
    after_s = placement.pace_share * pace_s + (placement.grace_s if begins else 0.0)
    return record.last_token_at_s + after_s - scope.arrived_at_s


def next_pace_s(placement: Placement, record: SequenceRecord) -> float | None:
    stages = record.stages
    return stages.left[0].tpot_target_s if stages else placement.tpot_s
