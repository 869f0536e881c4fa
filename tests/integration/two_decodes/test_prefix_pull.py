"""A decode engine pulls a prefix that another one has cached: same tokens, no work twice."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreOutputs, EngineCoreRequest

from services.gateway.drive import Drive
from services.gateway.engine_health import EngineHealth
from services.gateway.engine_links import EngineLinks
from services.gateway.scope import RequestScope, SequenceRecord
from services.gateway.wait_limits import WaitLimits
from shared.clock import MonotonicClock
from shared.requests import Admission, EngineRef, Placement, PrefixSource, Reason, SloTargets
from shared.rpc import slos_pb2 as pb
from shared.rpc.slos_pb2_grpc import EngineStub
from tests.integration.node import LOOPBACK, Node, wait_until

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

PREFIX_TOKENS, REST_TOKENS, ANSWER_TOKENS, BLOCK_TOKENS = 1024, 100, 12, 32
LIMIT_S = 60.0
SOURCE, PULLING = "decode-0", "decode-1"
_numbers = iter(range(1, 1 << 30))
_runner = asyncio.Runner()  # gRPC keeps to the event loop that it has met first


@dataclass(frozen=True, slots=True)
class Answer:
    tokens: list[int]
    recomputed: bool


def prompt() -> list[int]:
    """Token ids that no other prompt begins with."""
    number = next(_numbers)
    return [number % 200 + 20, *((7 * at + number) % 200 + 20 for at in range(PREFIX_TOKENS))]


def engine_of(node: Node, name: str) -> EngineRef:
    address = f"{LOOPBACK}:{node.part_ports[name]}"
    with grpc.insecure_channel(address) as channel:
        described = EngineStub(channel).Describe(
            pb.DescribeRequest(), timeout=LIMIT_S, wait_for_ready=True
        )
    return EngineRef(name=name, engine_id=described.engine_id, address=address)


def ask(
    token_ids: list[int], engine: EngineRef, source: PrefixSource | None = None, *, salt: str = ""
) -> Answer:
    """The answer by the gateway's own drive, on an engine that a test has chosen."""
    return _runner.run(_ask(token_ids, engine, source, salt))


async def _ask(
    token_ids: list[int], engine: EngineRef, source: PrefixSource | None, salt: str
) -> Answer:
    clock, delivered = MonotonicClock(), list[EngineCoreOutputs]()
    links = EngineLinks(clock)
    name = f"pull-{next(_numbers)}"
    drive = Drive(
        request=EngineCoreRequest(
            request_id=name,
            prompt_token_ids=token_ids,
            mm_features=None,
            sampling_params=SamplingParams(
                max_tokens=ANSWER_TOKENS, temperature=0, ignore_eos=True, watermarking=False
            ),
            pooling_params=None,
            arrival_time=0.0,
            lora_request=None,
            cache_salt=salt or None,
            data_parallel_rank=None,
        ),
        placement=Placement(
            decision_id=name,
            admission=Admission.ADMITTED,
            reason=Reason.NO_TARGET,
            decode=engine,
            prefix_source=source,
        ),
        scope=RequestScope(request_id=name, arrived_at_s=clock.now(), targets=SloTargets()),
        record=SequenceRecord(request_id=name, prompt_tokens=len(token_ids)),
        engines=links,
        health=EngineHealth(links.answers, clock),
        deliver=delivered.append,
        clock=clock,
        limits=WaitLimits(first_reply_s=LIMIT_S, next_reply_s=LIMIT_S),
        max_model_len_tokens=2048,
    )
    try:
        await drive.run()
    finally:
        await links.close()
    tokens = [token for each in delivered for one in each.outputs for token in one.new_token_ids]
    return Answer(tokens, drive.record.recomputed)


def counted(node: Node, engine: str) -> Mapping[str, float]:
    """Prompt tokens that an engine has computed, and its transfers by outcome."""
    port = node.ports.engines[node.engines.index(engine)].metrics
    page = httpx.get(f"http://{LOOPBACK}:{port}/metrics", timeout=10).text
    found = {"prompt": 0.0}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == "slos_engine_tokens_total" and sample.labels["kind"] == "prefill":
                found["prompt"] += sample.value
            if sample.name == "slos_kv_transfers_total":
                outcome = sample.labels["outcome"]
                found[outcome] = found.get(outcome, 0.0) + sample.value
    return found


def computed_since(before: Mapping[str, float], node: Node, engine: str) -> float:
    return counted(node, engine)["prompt"] - before["prompt"]


@dataclass(frozen=True, slots=True)
class Warm:
    """A prompt whose beginning the source has, and the answer that is right."""

    token_ids: list[int]
    answer: list[int]
    source: PrefixSource
    pulling: EngineRef


@pytest.fixture
def warm(node: Node) -> Warm:
    source, pulling = engine_of(node, SOURCE), engine_of(node, PULLING)
    prefix = prompt()
    token_ids = [*prefix, *((3 * at) % 200 + 20 for at in range(REST_TOKENS))]
    expected = ask(token_ids, pulling, salt="reference").tokens
    ask(prefix, source)
    wait_until(node.at_rest, LIMIT_S)
    cached = PREFIX_TOKENS - PREFIX_TOKENS % BLOCK_TOKENS
    return Warm(
        token_ids, expected, PrefixSource(engine=source, tokens=cached, limit_s=30), pulling
    )


def test_a_pulled_prefix_gives_the_same_tokens_and_is_computed_on_neither_engine(
    node: Node, warm: Warm
) -> None:
    here, there = counted(node, PULLING), counted(node, SOURCE)

    answer = ask(warm.token_ids, warm.pulling, warm.source)

    assert answer.tokens == warm.answer
    assert not answer.recomputed
    wait_until(node.at_rest, LIMIT_S)
    assert computed_since(here, node, PULLING) == len(warm.token_ids) - warm.source.tokens - 1
    assert computed_since(there, node, SOURCE) == 0  # its one token counts as a decode
    assert counted(node, PULLING)["used"] == here.get("used", 0.0) + 1


def test_a_pulled_prefix_is_cached_and_need_not_be_pulled_again(node: Node, warm: Warm) -> None:
    ask(warm.token_ids, warm.pulling, warm.source)
    wait_until(node.at_rest, LIMIT_S)
    here = counted(node, PULLING)

    answer = ask(warm.token_ids, warm.pulling)

    assert answer.tokens == warm.answer
    wait_until(node.at_rest, LIMIT_S)
    assert computed_since(here, node, PULLING) <= BLOCK_TOKENS


def test_a_source_that_has_lost_the_prefix_computes_one_token_and_the_engine_the_rest(
    node: Node, warm: Warm
) -> None:
    there = counted(node, SOURCE)
    lost = [*prompt(), *warm.token_ids[-REST_TOKENS:]]
    expected = ask(lost, warm.pulling, salt="reference").tokens

    answer = ask(lost, warm.pulling, warm.source)

    assert answer.tokens == expected
    wait_until(node.at_rest, LIMIT_S)
    assert computed_since(there, node, SOURCE) <= 1


@pytest.mark.parametrize("changed", ["engine_id", "address"])
def test_where_the_source_is_gone_or_was_started_again_the_engine_computes_the_prompt(
    node: Node, warm: Warm, changed: str
) -> None:
    gone = replace(warm.source.engine, **{changed: f"{LOOPBACK}:9"})

    answer = ask(warm.token_ids, warm.pulling, replace(warm.source, engine=gone))

    assert answer.tokens == warm.answer
    wait_until(node.at_rest, LIMIT_S)


def test_a_source_beyond_its_limit_holds_nothing_and_the_engine_computes_the_prompt(
    node: Node, warm: Warm
) -> None:
    answer = ask(warm.token_ids, warm.pulling, replace(warm.source, limit_s=1e-6))

    assert answer.tokens == warm.answer
    wait_until(node.at_rest, LIMIT_S)
