"""How one request becomes two, for prefill and decode, and how their answers join."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from vllm.sampling_params import SamplingParams, SamplingType
from vllm.v1.engine import (
    EngineCoreEvent,
    EngineCoreEventType,
    EngineCoreOutput,
    EngineCoreRequest,
    FinishReason,
)

from shared.errors import InvalidRequest
from shared.kv_transfer.settings import EXPORT_KEY, RESULT_KEY

TRANSFER = "kv_transfer_params"
MOST_PRIORITY = 10**12  # engines queue by milliseconds in 64 bits
_PREPARE_TRANSFER = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}


class Form(Enum):
    """What the decode engine does with the token that the prefill engine sampled."""

    CONTINUE = auto()  # takes it as part of its prompt: the client has it already
    RESAMPLE = auto()  # ignores it and samples the first token itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefilled:
    """What the prefill engine answered. `output` is its last one, with exactly one token."""

    output: EngineCoreOutput
    transfer: dict[str, Any]
    weight_version: str | None = None


def refuse_what_we_cannot(params: SamplingParams, priority: int) -> None:
    """Raises InvalidRequest for transfer parameters of a client, or a priority out of range."""
    if TRANSFER in (getattr(params, "extra_args", None) or {}):
        raise InvalidRequest(
            f"{TRANSFER} is set by the cluster itself; leave it out.", param=TRANSFER
        )
    if abs(priority) > MOST_PRIORITY:
        raise InvalidRequest(
            f"priority: read {priority}, allowed is a whole number from -{MOST_PRIORITY} to "
            f"{MOST_PRIORITY} (seconds, lower is earlier)",
            param="priority",
        )


def output_budget_tokens(request: EngineCoreRequest, max_model_len_tokens: int) -> int:
    """How many tokens the request can give at most."""
    room = max_model_len_tokens - len(request.prompt_token_ids or ())
    params = request.sampling_params
    if params is None or params.max_tokens is None:
        return room
    return min(room, int(params.max_tokens))


def must_stay_whole(request: EngineCoreRequest, max_model_len_tokens: int) -> bool:
    """Whether splitting is of no use or would change the result."""
    params = request.sampling_params
    if params is None or not request.prompt_token_ids or request.mm_features or request.resumable:
        return True
    if request.prompt_embeds is not None or request.data_parallel_rank is not None:
        return True
    if output_budget_tokens(request, max_model_len_tokens) <= 1:
        return True
    return _asks_about_prompt(params) and form_of(request) is Form.RESAMPLE


def form_of(request: EngineCoreRequest) -> Form:
    """CONTINUE where moving tokens of the answer into the prompt cannot change what follows.

    A repetition penalty counts the prompt as well, so that it does not.
    """
    params = request.sampling_params
    return Form.RESAMPLE if params.structured_outputs or _looks_back(params) else Form.CONTINUE


def goes_on_from_prompt(request: EngineCoreRequest) -> bool:
    """Whether the answer continues exactly after all its known tokens have joined the prompt.

    This holds more often than `form_of` says: an engine advances its grammar by the answer's tokens
    in the prompt, unless the grammar waits for the end of a reasoning.
    """
    params = request.sampling_params
    if request.prompt_embeds is not None or not request.prompt_token_ids:
        return False
    if params.structured_outputs and request.reasoning_ended is False:
        return False
    return not _looks_back(params)


def _looks_back(params: SamplingParams) -> bool:
    return any(
        (
            params.presence_penalty,
            params.frequency_penalty,
            params.sampling_type == SamplingType.RANDOM_SEED,
            params.bad_words,
            params.thinking_token_budget is not None,
            params.repetition_detection,
            params.trace_decode_token_ids,
            params.watermarking,
            set(params.extra_args or ()) - {TRANSFER},  # for processors that we do not know
        )
    )


def prefill_request(request: EngineCoreRequest, form: Form) -> EngineCoreRequest:
    """The prompt and one token, with the KV blocks kept for another engine to fetch."""
    params = copy(request.sampling_params)
    params.max_tokens = 1
    params.min_tokens = min(params.min_tokens, 1)
    if form is Form.RESAMPLE:  # its token is dropped: omit what only shapes it
        params.structured_outputs = None
        params.logprobs = None
        params.thinking_token_budget = None
        params.trace_decode_token_ids = None
    return _with_params(request, params, _PREPARE_TRANSFER)


def export_request(request: EngineCoreRequest, cached_tokens: int) -> EngineCoreRequest:
    """The first `cached_tokens` of the prompt and one more, which the engine computes; their KV
    blocks are kept for another engine to fetch. An engine that has less cached exports that.
    """
    shorter = copy(request)
    shorter.prompt_token_ids = request.prompt_token_ids[: cached_tokens + 1]
    exported = prefill_request(shorter, Form.RESAMPLE)
    exported.sampling_params.extra_args[TRANSFER][EXPORT_KEY] = True
    return exported


def pulling_request(request: EngineCoreRequest, exported: Prefilled) -> EngineCoreRequest:
    """The whole request, on an engine that pulls the exported prefix and computes the rest."""
    return _with_params(request, copy(request.sampling_params), exported.transfer)


def decode_request(
    request: EngineCoreRequest, prefilled: Prefilled, form: Form
) -> EngineCoreRequest:
    """What is left to do once the KV blocks of the prompt are at hand."""
    if form is Form.CONTINUE:
        request = continued(request, prefilled.output.new_token_ids)
    return _with_params(request, copy(request.sampling_params), prefilled.transfer)


def continued(request: EngineCoreRequest, token_ids: Sequence[int]) -> EngineCoreRequest:
    """What is left to do when these tokens of the answer are known."""
    params = copy(request.sampling_params)
    if params.max_tokens is not None:
        params.max_tokens -= len(token_ids)
    params.min_tokens = max(0, params.min_tokens - len(token_ids))
    if _asks_about_prompt(params):
        params.prompt_logprobs = None
        params.prompt_logprob_token_ids = None
        params.prompt_logprob_start = None
        params.skip_reading_prefix_cache = False  # as set, it would compute the prompt again
    rest = copy(request)
    rest.sampling_params = params
    rest.prompt_token_ids = [*request.prompt_token_ids, *token_ids]
    return rest


def read_prefill(output: EngineCoreOutput, weight_version: str | None) -> Prefilled | None:
    """The result of a prefill; None if it is of no use to a decode engine."""
    transfer = output.kv_transfer_params
    if not transfer or not transfer.get("do_remote_prefill") or len(output.new_token_ids) != 1:
        return None
    if output.finish_reason not in (FinishReason.LENGTH, FinishReason.STOP):
        return None
    return Prefilled(output=output, transfer=transfer, weight_version=weight_version)


def form_after(request: EngineCoreRequest, prefilled: Prefilled, form: Form) -> Form:
    """RESAMPLE also when the prefill engine stopped short of the prompt's end.

    vLLM does so for some models; the token is then not the first one of the answer.
    """
    if prefilled.transfer.get("remote_num_tokens") != len(request.prompt_token_ids):
        return Form.RESAMPLE
    return form


def ends_at_first_token(prefilled: Prefilled) -> bool:
    """Whether the first token was an end by itself; LENGTH is only the limit that we set."""
    return bool(prefilled.output.finish_reason is not FinishReason.LENGTH)


def first_token_output(prefilled: Prefilled) -> EngineCoreOutput:
    """The prefill engine's token as the client's first one."""
    output = copy(prefilled.output)
    output.kv_transfer_params = None
    if not ends_at_first_token(prefilled):
        output.finish_reason = None
        output.stop_reason = None
    return output


def continue_outputs(outputs: list[EngineCoreOutput]) -> None:
    """Removes from the decode engine's outputs what the prefill engine has already reported."""
    for output in outputs:
        output.prefill_stats = None
        if output.events:
            output.events = _without_arrival(output.events)


def resample_outputs(outputs: list[EngineCoreOutput], prefilled: Prefilled) -> None:
    """Adds the prefill engine's statistics and events to the decode engine's first outputs."""
    continue_outputs(outputs)
    first = outputs[0]
    first.prefill_stats = prefilled.output.prefill_stats
    first.events = [*(prefilled.output.events or ()), *(first.events or ())] or None


def take_kv_result(outputs: list[EngineCoreOutput]) -> bool:
    """Removes the KV result from a decode engine's outputs; whether it recomputed the prompt."""
    recomputed = False
    for output in outputs:
        result = (output.kv_transfer_params or {}).get(RESULT_KEY) or {}
        recomputed |= bool(result.get("recomputed"))
        output.kv_transfer_params = None
    return recomputed


def shift_events(outputs: list[EngineCoreOutput], by_s: float) -> None:
    """Shifts event times from an engine core's clock to ours."""
    for output in outputs:
        for event in output.events or ():
            event.timestamp += by_s


def started_at_s(outputs: list[EngineCoreOutput]) -> float | None:
    """When the first step with a part of the request began; None if no output has it."""
    for output in outputs:
        for event in output.events or ():
            if event.type is EngineCoreEventType.SCHEDULED:
                began_s: float = event.timestamp
                return began_s
    return None


def _asks_about_prompt(params: SamplingParams) -> bool:
    return params.prompt_logprobs is not None or params.prompt_logprob_token_ids is not None


def _with_params(
    request: EngineCoreRequest, params: SamplingParams, transfer: dict[str, Any]
) -> EngineCoreRequest:
    params.extra_args = {**(params.extra_args or {}), TRANSFER: dict(transfer)}
    changed = copy(request)
    changed.sampling_params = params
    return changed


def _without_arrival(events: list[EngineCoreEvent]) -> list[EngineCoreEvent] | None:
    arrival = (EngineCoreEventType.QUEUED, EngineCoreEventType.SCHEDULED)
    return [event for event in events if event.type not in arrival] or None
