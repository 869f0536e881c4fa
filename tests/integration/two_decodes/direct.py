"""Requests on an engine that a test has chosen, by the gateway's own drive, and what they cost."""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreOutputs, EngineCoreRequest

from services.gateway.drive import Drive
from services.gateway.engine_health import EngineHealth
from services.gateway.engine_links import EngineLinks
from services.gateway.scope import RequestScope, SequenceRecord
from services.gateway.wait_limits import WaitLimits
from shared.clock import MonotonicClock
from shared.requests import (
    Admission,
    EngineRef,
    Placement,
    PrefixExport,
    PrefixSource,
    Reason,
    SloTargets,
)
from shared.rpc import slos_pb2 as pb
from shared.rpc.slos_pb2_grpc import EngineStub
from tests.integration.node import LOOPBACK, Node
from tests.limits import ANSWER_LIMIT_S

ANSWER_TOKENS, BLOCK_TOKENS = 12, 32
MOST_TOKENS = 2048  # prompt and answer
Result = TypeVar("Result")
_numbers = iter(range(1, 1 << 30))
_runner = asyncio.Runner()  # gRPC keeps to the event loop that it has met first


@dataclass(frozen=True, slots=True)
class Answer:
    tokens: list[int]
    recomputed: bool
    exported: list[bool]


def prompt(tokens: int) -> list[int]:
    """Token ids that no other prompt begins with."""
    number = next(_numbers)
    rest = ((7 * at + number) % 200 + 20 for at in range(tokens - 2))
    return [number % 200 + 20, number // 200 % 200 + 20, *rest]


def engine_of(node: Node, name: str) -> EngineRef:
    address = f"{LOOPBACK}:{node.part_ports[name]}"
    with grpc.insecure_channel(address) as channel:
        described = EngineStub(channel).Describe(
            pb.DescribeRequest(), timeout=ANSWER_LIMIT_S, wait_for_ready=True
        )
    return EngineRef(name=name, engine_id=described.engine_id, address=address)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    return _runner.run(work)


def ask(
    token_ids: list[int], engine: EngineRef, source: PrefixSource | None = None, *, salt: str = ""
) -> Answer:
    return run(answered(token_ids, engine, source, salt=salt))


async def answered(
    token_ids: list[int], engine: EngineRef, source: PrefixSource | None = None, *, salt: str = ""
) -> Answer:
    """The answer of an engine that pulls from `source`, if any. Without a promise."""
    clock, delivered = MonotonicClock(), list[EngineCoreOutputs]()
    exports = list[PrefixExport]()
    links = EngineLinks(clock)
    request = request_of(token_ids, salt=salt)
    name = request.request_id
    drive = Drive(
        request=request,
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
        on_export=exports.append,
        clock=clock,
        limits=WaitLimits(first_reply_s=ANSWER_LIMIT_S, next_reply_s=ANSWER_LIMIT_S),
        max_model_len_tokens=MOST_TOKENS,
    )
    try:
        await drive.run()
    finally:
        await links.close()
    tokens = [token for each in delivered for one in each.outputs for token in one.new_token_ids]
    return Answer(tokens, drive.record.recomputed, [one.exported for one in exports])


def request_of(token_ids: list[int], *, salt: str = "") -> EngineCoreRequest:
    return EngineCoreRequest(
        request_id=f"direct-{next(_numbers)}",
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
    )


def samples(port: int) -> Iterator[Sample]:
    """What a metrics page shows."""
    page = httpx.get(f"http://{LOOPBACK}:{port}/metrics", timeout=ANSWER_LIMIT_S).text
    for family in text_string_to_metric_families(page):
        yield from family.samples


def metrics_of(node: Node, engine: str) -> Iterator[Sample]:
    return samples(node.ports.engines[node.engines.index(engine)].metrics)


def counted(node: Node, engine: str) -> Mapping[str, float]:
    """Prompt tokens that an engine has computed, and its transfers by outcome."""
    found = {"prompt": 0.0}
    for sample in metrics_of(node, engine):
        if sample.name == "slos_engine_tokens_total" and sample.labels["kind"] == "prefill":
            found["prompt"] += sample.value
        if sample.name == "slos_kv_transfers_total":
            outcome = sample.labels["outcome"]
            found[outcome] = found.get(outcome, 0.0) + sample.value
    return found


def computed_since(before: Mapping[str, float], node: Node, engine: str) -> float:
    return counted(node, engine)["prompt"] - before["prompt"]
