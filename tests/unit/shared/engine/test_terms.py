import math
from typing import Any

import msgspec
import pytest
from vllm import SamplingParams
from vllm.v1.engine import EngineCoreRequest

from shared.engine.carried_terms import TERMS_KEY
from shared.engine.terms import attach_terms, terms_from_wire
from shared.rpc import slos_pb2 as pb
from shared.scheduling.terms import StageTerms, Terms, terms_as_plain, terms_from_plain


def through_the_wire(plain: object) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(plain))


def make_request(**changes: object) -> EngineCoreRequest:
    fields: dict[str, object] = {
        "request_id": "a",
        "prompt_token_ids": [1],
        "mm_features": None,
        "sampling_params": SamplingParams(extra_args={"theirs": 1}),
        "pooling_params": None,
        "arrival_time": 0.0,
        "lora_request": None,
        "cache_salt": None,
        "data_parallel_rank": None,
    }
    return EngineCoreRequest(**{**fields, **changes})


def test_durations_become_instants_of_this_clock() -> None:
    wire = pb.EngineTerms(class_name="chat", ttft_s=2.0, tpot_s=0.1, waited_s=0.5)

    terms = terms_from_wire(wire, now_s=100.0)

    assert terms.first_token_due_s == pytest.approx(101.5)
    assert terms.tpot_s == pytest.approx(0.1)


def test_by_deadlines_tokens_are_due_by_when_the_first_one_was() -> None:
    wire = pb.EngineTerms(ttft_s=2.0, tpot_s=0.1, by_deadlines=True)

    assert math.isinf(terms_from_wire(wire, now_s=0.0).grace_s)


def test_what_was_not_asked_is_never_due() -> None:
    terms = terms_from_wire(pb.EngineTerms(), now_s=100.0)

    assert math.isinf(terms.first_token_due_s)
    assert terms.tpot_s is None
    assert terms.class_name == "default"


def test_stages_and_the_decision_come_along() -> None:
    stage = pb.StageTerms(tpot_s=0.5, end_token_ids=[7, 8])

    wire = pb.EngineTerms(stages=[stage], decision_id="d-1", produced_tokens=1)
    terms = terms_from_wire(wire, now_s=0.0)

    assert terms.stages == (StageTerms(tpot_s=0.5, end_token_ids=(7, 8)),)
    assert (terms.decision_id, terms.produced_tokens) == ("d-1", 1)


def test_terms_travel_beside_what_the_client_sent() -> None:
    request = make_request()

    attach_terms(request, Terms(class_name="code", tpot_s=0.2))

    extra = request.sampling_params.extra_args
    assert extra["theirs"] == 1
    assert terms_from_plain(extra[TERMS_KEY]) == Terms(class_name="code", tpot_s=0.2)


def test_terms_come_back_whole_from_a_serializer_that_knows_no_tuples() -> None:
    stages = (StageTerms(tpot_s=0.5, end_token_ids=(7, 8)), StageTerms(tpot_s=0.1))
    terms = Terms(
        class_name="code",
        first_token_due_s=3.0,
        stages=stages,
        decision_id="d-1",
        produced_tokens=1,
    )

    assert terms_from_plain(through_the_wire(terms_as_plain(terms))) == terms
