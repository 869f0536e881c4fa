"""A promise on the wire to the terms that the scheduler reads, on this machine's clock."""

import math

from vllm.v1.engine import EngineCoreRequest

from shared.engine.carried_terms import TERMS_KEY
from shared.rpc import slos_pb2 as pb
from shared.scheduling.terms import StageTerms, Terms, terms_as_plain


def terms_from_wire(wire: pb.EngineTerms, *, now_s: float) -> Terms:
    """Durations become instants of this machine's monotonic clock."""
    ttft_s = wire.ttft_s if wire.HasField("ttft_s") else math.inf
    return Terms(
        class_name=wire.class_name or "default",
        first_token_due_s=now_s - wire.waited_s + ttft_s,
        tpot_s=wire.tpot_s if wire.HasField("tpot_s") else None,
        best_effort=wire.best_effort,
        stages=tuple(
            StageTerms(tpot_s=stage.tpot_s, end_token_ids=tuple(stage.end_token_ids))
            for stage in wire.stages
        ),
        decision_id=wire.decision_id,
        produced_tokens=wire.produced_tokens,
        grace_s=math.inf if wire.by_deadlines else wire.grace_s,
        answered_tokens=wire.answered_tokens,
    )


def attach_terms(request: EngineCoreRequest, terms: Terms) -> None:
    """Puts the terms where the scheduler finds them."""
    params = request.sampling_params
    if params is not None:
        params.extra_args = {**(params.extra_args or {}), TERMS_KEY: terms_as_plain(terms)}
