"""What crosses the wire between gateway and engine comes out as it went in."""

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
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
from vllm.v1.outputs import LogprobsLists, LogprobsTensors

from shared.engine.wire import decode_outputs, decode_request, encode_outputs, encode_request

token_ids = st.lists(st.integers(0, 200_000), max_size=40)
text = st.text(max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def logprobs(draw: st.DrawFn) -> LogprobsLists:
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 90))
    values = draw(st.floats(-50, 0, width=32))
    return LogprobsLists(
        np.arange(rows * columns, dtype=np.int32).reshape(rows, columns),
        np.full((rows, columns), values, dtype=np.float32),
        np.arange(rows, dtype=np.int64),
    )


@st.composite
def prompt_logprobs(draw: st.DrawFn) -> LogprobsTensors:
    rows, columns = draw(st.integers(1, 60)), draw(st.integers(1, 6))
    ids = torch.arange(rows * columns, dtype=torch.int32).reshape(rows, columns)
    return LogprobsTensors(ids, -ids.float(), torch.arange(rows, dtype=torch.int32))


outputs = st.builds(
    EngineCoreOutput,
    request_id=text,
    new_token_ids=token_ids,
    new_logprobs=st.none() | logprobs(),
    new_prompt_logprobs_tensors=st.none() | prompt_logprobs(),
    finish_reason=st.none() | st.sampled_from(FinishReason),
    stop_reason=st.none() | st.integers(0, 9) | text,
    events=st.none()
    | st.lists(
        st.builds(EngineCoreEvent, st.sampled_from(EngineCoreEventType), st.floats(0, 1e6)),
        max_size=3,
    ),
    kv_transfer_params=st.none() | st.dictionaries(text, plain, max_size=5),
    prefill_stats=st.none() | st.builds(PrefillStats, num_prompt_tokens=st.integers(0, 9)),
    num_nans_in_logits=st.integers(0, 3),
)
sampling = st.builds(
    SamplingParams,
    temperature=st.floats(0.1, 2),
    seed=st.none() | st.integers(0, 2**40),
    stop=st.lists(st.text(min_size=1, max_size=5), max_size=3),
    stop_token_ids=token_ids,
    max_tokens=st.integers(1, 4096),
    logprobs=st.none() | st.integers(0, 20),
    logit_bias=st.none() | st.dictionaries(st.integers(0, 99), st.floats(-9, 9), max_size=3),
    structured_outputs=st.none()
    | st.builds(StructuredOutputsParams, json=st.dictionaries(text, plain, max_size=2)),
    repetition_detection=st.none()
    | st.just(RepetitionDetectionParams(max_pattern_size=4, min_count=3)),
    extra_args=st.none() | st.dictionaries(text, plain, max_size=4),
)
requests = st.builds(
    EngineCoreRequest,
    request_id=text,
    prompt_token_ids=token_ids,
    mm_features=st.none(),
    sampling_params=sampling,
    pooling_params=st.none(),
    arrival_time=st.floats(0, 1e10),
    lora_request=st.none(),
    cache_salt=st.none() | text,
    data_parallel_rank=st.none(),
    priority=st.integers(-9, 9),
    external_req_id=st.none() | text,
    session_id=st.none() | text,
    abort_immediately=st.booleans(),
    reasoning_ended=st.none() | st.booleans(),
)


def fields(value: Any) -> Any:
    """Arrays and tensors as nested lists with their type, so that == compares all of it."""
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return str(value.dtype), value.tolist()
    if isinstance(value, (list, tuple)):
        return [fields(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return {name: fields(getattr(value, name)) for name in value.__struct_fields__}
    return value


@given(st.lists(outputs, max_size=4))
def test_outputs_come_out_as_they_went_in(sent: list[EngineCoreOutput]) -> None:
    assert fields(decode_outputs(encode_outputs(sent))) == fields(sent)


@given(requests)
def test_a_request_comes_out_as_it_went_in(sent: EngineCoreRequest) -> None:
    received = decode_request(encode_request(sent))

    assert fields(received) == fields(sent)
    assert received.sampling_params.all_stop_token_ids == sent.sampling_params.all_stop_token_ids


def test_a_large_tensor_travels_beside_the_message_and_can_be_written_to() -> None:
    sent = EngineCoreRequest(
        request_id="a",
        prompt_token_ids=None,
        mm_features=None,
        sampling_params=SamplingParams(),
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
        prompt_embeds=torch.rand(64, 64, dtype=torch.bfloat16),
    )

    frames = encode_request(sent)
    received = decode_request(frames)
    equal = torch.equal(received.prompt_embeds, sent.prompt_embeds)
    received.prompt_embeds.zero_()

    assert equal
    assert len(frames) == 2
    assert all(type(frame) is bytes for frame in frames)


def test_frames_of_something_else_are_refused() -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_request([b"\xc4\x01x"])
