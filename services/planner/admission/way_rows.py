"""The rows that a request has on the engines of one way."""

from services.planner.admission.admission_requests import AdmissionRequest
from services.planner.admission.candidates import Candidate
from services.planner.state.engine_state import EngineState
from shared.batch_time.table import FloatArray
from shared.engines import Role


def hit(request: AdmissionRequest, way: Candidate) -> int:
    """Tokens of the prompt that its prefill engine has cached, or pulls."""
    if way.pull is not None:
        return way.pull.tokens
    return request.demand.computed_on(way.prefill.engine.description)


def whole(
    request: AdmissionRequest, way: Candidate, reached_at_s: float, *, best_effort: bool = False
) -> FloatArray:
    """The row of a request that reaches its only decode engine at `reached_at_s`."""
    demand, arrives_in_s, shared = request.demand, 0.0, 0
    if way.pull is None:
        shared = demand.shared_on(way.decode.engine.description)
    else:
        arrives_in_s = way.pull.arrives_in_s
    available_s = reached_at_s + arrives_in_s
    return demand.whole(hit(request, way), available_s, shared=shared, best_effort=best_effort)


def rows_of(
    request: AdmissionRequest, way: Candidate, reached_at_s: float, now: float
) -> list[tuple[EngineState, FloatArray]]:
    """The row on each engine of the way. The first one gives the first token."""
    start, end, demand = way.prefill.engine, way.decode.engine, request.demand
    if way.colocated:
        rows = [(end, whole(request, way, reached_at_s))]
        if way.pull is not None:
            latest_s = reached_at_s + way.pull.limit_s
            rows.append((way.pull.source, demand.export(reached_at_s, latest_s)))
        return rows
    prompt = demand.prompt_only(hit(request, way), reached_at_s)
    first_s = now + max(0.0, way.ttft_s - request.query.waited_s)
    answer = demand.answer_only(first_s, first_s + way.transfer_s)
    return [(start, prompt), (end, answer)]


def stands_in(way: Candidate) -> bool:
    """Whether the way uses an engine against its role: it decodes on a prefill engine, or computes
    the prompt on a decode engine from which the KV has to move.
    """
    start, end = way.prefill.engine.description.role, way.decode.engine.description.role
    return end is Role.PREFILL or (not way.colocated and start is not Role.PREFILL)
