"""What vLLM's scheduler made of a step, request by request."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.request import Request

from shared.batch_time.table import FloatArray
from shared.engine.step_ledger import Share, counts_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Standings:
    """How each request of a step stands when the step is done: tokens computed, tokens that are to
    be computed before the next one, and whether it gives one. `counts` are the step's.
    """

    request_ids: Sequence[str]
    computed: Sequence[int]
    total: Sequence[int]
    gives: Sequence[bool]
    counts: FloatArray


def after(output: SchedulerOutput, requests: Mapping[str, Request]) -> Standings:
    """By what vLLM says of each request."""
    scheduled = output.num_scheduled_tokens
    own = [requests[one] for one in scheduled]
    gives = [not one.is_prefill_chunk for one in own]
    computed = [one.num_computed_tokens for one in own]
    drafted = [len(output.scheduled_spec_decode_tokens.get(one, ())) for one in scheduled]
    return Standings(
        request_ids=[*scheduled],
        computed=computed,
        total=[_total(one) for one in own],
        gives=gives,
        counts=counts_of(
            Share(tokens=tokens, drafted_tokens=drafts, earlier_tokens=done - tokens, gives=give)
            for tokens, drafts, done, give in zip(
                scheduled.values(), drafted, computed, gives, strict=True
            )
        ),
    )


def begun(
    output: SchedulerOutput, requests: Mapping[str, Request]
) -> Iterator[tuple[str, int, int]]:
    """The requests with a place in this step, and what was computed and to be computed of each."""
    names = [one.req_id for one in output.scheduled_new_reqs]
    names += output.scheduled_cached_reqs.resumed_req_ids
    for name in names:
        request = requests[name]
        computed = request.num_computed_tokens - output.num_scheduled_tokens[name]
        yield name, computed, _total(request) - (not request.is_prefill_chunk)


def _total(request: Request) -> int:
    total: int = request.num_tokens + request.num_output_placeholders
    return total
