from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm.sampling_params import RepetitionDetectionParams, SamplingParams, StructuredOutputsParams
from vllm.v1.engine import (
    EngineCoreEvent,
    EngineCoreEventType,
    EngineCoreOutput,
    EngineCoreRequest,
    FinishReason,
)
from vllm.v1.metrics.stats import PrefillStats

from services.gateway.continuation import (
    TRANSFER,
    Form,
    Prefilled,
    continue_outputs,
    decode_request,
    ends_at_first_token,
    first_token_output,
    form_after,
    form_of,
    must_stay_whole,
    output_budget_tokens,
    prefill_request,
    read_prefill,
    resample_outputs,
    shift_events,
    take_kv_result,
)
from shared.kv_transfer.settings import RESULT_KEY

MAX_LEN = 512


def request(prompt_tokens: int = 5, **params: Any) -> EngineCoreRequest:
    return EngineCoreRequest(
        request_id="r1",
        prompt_token_ids=list(range(prompt_tokens)),
        mm_features=None,
        sampling_params=SamplingParams(**{"max_tokens": 8, "watermarking": False, **params}),
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )


def prefilled(token: int = 7, remote_num_tokens: int = 5, **output: Any) -> Prefilled:
    transfer = {"do_remote_prefill": True, "remote_num_tokens": remote_num_tokens}
    last = EngineCoreOutput(
        "r1",
        [token],
        **{"finish_reason": FinishReason.LENGTH, "kv_transfer_params": transfer, **output},
    )
    return Prefilled(output=last, transfer=transfer)


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.0},
        {"temperature": 0.0, "seed": 3},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1},
        {"logprobs": 5},
        {"repetition_penalty": 1.1},
        {"logit_bias": {3: 1.0}},
        {"allowed_token_ids": [1, 2]},
        {"stop_token_ids": [9], "min_tokens": 3},
        {"prompt_logprobs": 1},
        {"extra_args": {TRANSFER: {}}},
    ],
)
def test_what_looks_at_one_token_only_continues(params: dict[str, Any]) -> None:
    assert form_of(request(**params)) is Form.CONTINUE


@pytest.mark.parametrize(
    "params",
    [
        {"seed": 3},
        {"presence_penalty": 0.1},
        {"frequency_penalty": -0.1},
        {"structured_outputs": StructuredOutputsParams(json={})},
        {"bad_words": ["a b"]},
        {"thinking_token_budget": 0},
        {"repetition_detection": RepetitionDetectionParams(max_pattern_size=4, min_count=3)},
        {"trace_decode_token_ids": [1, 2]},
        {"watermarking": True},
        {"extra_args": {"ngram": 3}},
    ],
)
def test_what_looks_back_over_the_answer_samples_again(params: dict[str, Any]) -> None:
    assert form_of(request(**params)) is Form.RESAMPLE


@given(
    prompt_tokens=st.integers(1, MAX_LEN - 2),
    max_tokens=st.integers(2, 2 * MAX_LEN),
    min_tokens=st.integers(0, 20),
    seed=st.none() | st.just(1),
)
def test_the_two_halves_add_up_to_the_whole(
    prompt_tokens: int, max_tokens: int, min_tokens: int, seed: int | None
) -> None:
    min_tokens = min(min_tokens, max_tokens)
    whole = request(prompt_tokens, max_tokens=max_tokens, min_tokens=min_tokens, seed=seed)
    form = form_of(whole)

    first = prefill_request(whole, form)
    rest = decode_request(whole, prefilled(remote_num_tokens=prompt_tokens), form)

    kept = 1 if form is Form.CONTINUE else 0
    assert first.sampling_params.max_tokens == 1
    assert first.sampling_params.min_tokens <= 1
    assert rest.sampling_params.max_tokens + kept == max_tokens
    assert rest.sampling_params.min_tokens == max(0, min_tokens - kept)
    assert len(rest.prompt_token_ids) == prompt_tokens + kept
    assert output_budget_tokens(rest, MAX_LEN) + kept == output_budget_tokens(whole, MAX_LEN)


@given(form=st.sampled_from(Form))
def test_the_request_itself_stays_as_it_is(form: Form) -> None:
    whole = request(prompt_logprobs=1, logprobs=2)
    before = (list(whole.prompt_token_ids), repr(whole.sampling_params))

    prefill_request(whole, form)
    decode_request(whole, prefilled(), form)

    assert (list(whole.prompt_token_ids), repr(whole.sampling_params)) == before


def test_the_prefill_engine_keeps_its_blocks_and_the_decode_engine_fetches_them() -> None:
    whole = request(extra_args={"mine": 1})

    first = prefill_request(whole, Form.CONTINUE).sampling_params.extra_args
    rest = decode_request(whole, prefilled(), Form.CONTINUE).sampling_params.extra_args

    assert first["mine"] == rest["mine"] == 1
    assert first[TRANSFER]["do_remote_decode"]
    assert rest[TRANSFER]["do_remote_prefill"]


def test_logprobs_of_the_prompt_are_asked_for_once() -> None:
    whole = request(prompt_logprobs=2)

    first = prefill_request(whole, Form.CONTINUE).sampling_params
    rest = decode_request(whole, prefilled(), Form.CONTINUE).sampling_params

    assert first.prompt_logprobs == 2
    assert rest.prompt_logprobs is None
    assert not rest.skip_reading_prefix_cache


def test_a_dropped_first_token_is_not_shaped() -> None:
    whole = request(structured_outputs=StructuredOutputsParams(json={}), logprobs=3)

    first = prefill_request(whole, Form.RESAMPLE).sampling_params

    assert first.structured_outputs is None
    assert first.logprobs is None


@pytest.mark.parametrize(
    "whole",
    [
        request(max_tokens=1),
        request(prompt_tokens=MAX_LEN - 1),
        request(prompt_logprobs=1, seed=2),
        request(prompt_tokens=0),
    ],
)
def test_what_a_split_cannot_help_stays_whole(whole: EngineCoreRequest) -> None:
    assert must_stay_whole(whole, MAX_LEN)


def test_an_ordinary_request_may_be_split() -> None:
    assert not must_stay_whole(request(), MAX_LEN)
    assert not must_stay_whole(request(prompt_logprobs=1), MAX_LEN)


@pytest.mark.parametrize(
    "output",
    [
        {"kv_transfer_params": None},
        {"kv_transfer_params": {"do_remote_prefill": False}},
        {"finish_reason": FinishReason.ERROR},
        {"finish_reason": FinishReason.ABORT},
        {"finish_reason": None},
    ],
)
def test_a_prefill_that_cannot_be_used_is_none(output: dict[str, Any]) -> None:
    assert read_prefill(prefilled(**output).output, None) is None


def test_a_prefill_short_of_the_prompt_is_sampled_again() -> None:
    whole = request(prompt_tokens=5)

    assert form_after(whole, prefilled(remote_num_tokens=4), Form.CONTINUE) is Form.RESAMPLE
    assert form_after(whole, prefilled(remote_num_tokens=5), Form.CONTINUE) is Form.CONTINUE


def test_the_client_sees_no_end_at_the_limit_that_we_set() -> None:
    ours = prefilled()
    its_own = prefilled(finish_reason=FinishReason.STOP, stop_reason=9)

    first, last = first_token_output(ours), first_token_output(its_own)

    assert not ends_at_first_token(ours)
    assert (first.finish_reason, first.kv_transfer_params) == (None, None)
    assert ends_at_first_token(its_own)
    assert (last.finish_reason, last.stop_reason) == (FinishReason.STOP, 9)
    assert ours.output.finish_reason is FinishReason.LENGTH


def events(*kinds: EngineCoreEventType) -> list[EngineCoreEvent]:
    return [EngineCoreEvent(kind, 1.0) for kind in kinds]


QUEUED, SCHEDULED, PREEMPTED = EngineCoreEventType


def test_a_request_arrives_and_is_prefilled_once() -> None:
    stats = PrefillStats(num_prompt_tokens=5, num_cached_tokens=2)
    before = prefilled(prefill_stats=stats, events=events(QUEUED, SCHEDULED))
    again = EngineCoreOutput(
        "r1", [1], prefill_stats=PrefillStats(), events=events(QUEUED, SCHEDULED, PREEMPTED)
    )
    other = EngineCoreOutput("r1", [1], prefill_stats=PrefillStats(), events=events(QUEUED))

    resample_outputs([again], before)
    continue_outputs([other])

    assert again.prefill_stats is stats
    assert [event.type for event in again.events] == [QUEUED, SCHEDULED, PREEMPTED]
    assert (other.prefill_stats, other.events) == (None, None)


def test_times_are_brought_to_our_clock() -> None:
    output = EngineCoreOutput("r1", [1], events=events(QUEUED))

    shift_events([output], 2.5)

    assert output.events[0].timestamp == 3.5


def test_what_a_decode_engine_says_of_its_kv_is_taken_out_of_the_answer() -> None:
    told = EngineCoreOutput("r1", [1], kv_transfer_params={RESULT_KEY: {"recomputed": True}})
    moved = EngineCoreOutput("r1", [1], kv_transfer_params={RESULT_KEY: {"recomputed": False}})

    assert take_kv_result([EngineCoreOutput("r1", [1]), told])
    assert not take_kv_result([moved])
    assert told.kv_transfer_params is None
    assert moved.kv_transfer_params is None
