"""The planner itself has an engine pull a prefix from one that is full of other promises."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest

from shared.requests import PlacementOption
from shared.rpc import slos_pb2 as pb
from shared.rpc.channels import PlannerClient
from shared.rpc.slos_pb2_grpc import EngineStub
from tests.integration.node import Node, wait_until
from tests.integration.two_decodes.direct import (
    ANSWER_TOKENS,
    ask,
    computed_since,
    counted,
    engine_of,
    prompt,
    run,
    samples,
)
from tests.limits import ANSWER_LIMIT_S, START_LIMIT_S

pytestmark = pytest.mark.engines

PREFIX_TOKENS, REST_TOKENS, STREAM_TOKENS = 1900, 60, 40
HELD_TOKENS = PREFIX_TOKENS - PREFIX_TOKENS % 64
TTFT_MS, SLOWER = 5_000, 2.0  # the second is times the TPOT of an engine that is idle
MOST_STREAMS, TRIES = 60, 10
SOURCE, PULLING, OTHER = "decode-0", "decode-1", "prefill-0"
REST = [(3 * at) % 200 + 20 for at in range(REST_TOKENS)]


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer of the gateway, and its report."""

    tokens: list[int]
    slo: dict[str, Any]

    @property
    def decision_id(self) -> str:
        return str(self.slo["decision_id"])


async def asked(node: Node, token_ids: list[int], **more: Any) -> Asked:
    body = {
        "model": node.model,
        "prompt": token_ids,
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
        **more,
    }
    async with httpx.AsyncClient(base_url=node.url, timeout=ANSWER_LIMIT_S) as client:
        answer = (await client.post("/v1/completions", json=body)).json()
    return Asked(answer["choices"][0]["token_ids"], answer.get("slo", {}))


def pulls_counted(node: Node) -> tuple[float, float]:
    """Placements that pull from the source, and exports that came in time, as the planner says."""
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for sample in samples(node.ports.planner_metrics)
    }
    pulls = found.get(("slos_planner_prefix_pulls_total", SOURCE), 0.0)
    return pulls, found.get(("slos_planner_prefix_exports_total", "true"), 0.0)


def explained(node: Node, decision_id: str) -> str:
    words = ["planner", "--explain", decision_id, "--planner", node.planner]
    return subprocess.run(
        [sys.executable, "-c", "import services.cli, sys; sys.exit(services.cli.main())", *words],
        capture_output=True,
        text=True,
        timeout=START_LIMIT_S,
        check=True,
        env={**os.environ, "COLUMNS": "160"},  # one line for each way
    ).stdout


@asynccontextmanager
async def draining(node: Node, *engines: str) -> AsyncIterator[None]:
    """The planner places nothing on these engines meanwhile."""
    stubs = [EngineStub(grpc.aio.insecure_channel(engine_of(node, one).address)) for one in engines]
    already = drained(node)
    try:
        for stub in stubs:
            await stub.Drain(pb.DrainRequest(limit_s=ANSWER_LIMIT_S))
        await until(lambda: drained(node) == already + len(engines))
        yield
    finally:
        for stub in stubs:
            await stub.Undrain(pb.UndrainRequest())
        await until(lambda: drained(node) == already)


def drained(node: Node) -> float:
    page = samples(node.ports.planner_metrics)
    return sum(one.value for one in page if one.name == "slos_planner_draining_engines")


async def until(holds: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, holds, ANSWER_LIMIT_S)


@asynccontextmanager
async def promised_all(node: Node, slo: Mapping[str, Any]) -> AsyncIterator[None]:
    """Streams of this SLO, so many that the engines which serve have no place for another one."""
    streams: list[asyncio.Task[None]] = []
    async with httpx.AsyncClient(base_url=node.url, timeout=ANSWER_LIMIT_S) as client:
        try:
            refused = False
            while not refused:
                assert len(streams) < MOST_STREAMS
                began = asyncio.Event()
                streams.append(asyncio.create_task(stream(client, node.model, slo, began)))
                starting = asyncio.create_task(began.wait())
                await asyncio.wait({starting, streams[-1]}, return_when="FIRST_COMPLETED")
                refused = not began.is_set()
                starting.cancel()
            yield
        finally:
            for one in streams:
                one.cancel()
            await asyncio.gather(*streams, return_exceptions=True)


async def stream(
    client: httpx.AsyncClient, model: str, slo: Mapping[str, Any], began: asyncio.Event
) -> None:
    """Reads an answer until it is cancelled; ends at once where it is refused."""
    body = {
        "model": model,
        "prompt": prompt(STREAM_TOKENS),
        "max_tokens": 1500,
        "ignore_eos": True,
        "stream": True,
        "slo": {**slo, "on_refuse": "refuse"},
    }
    async with client.stream("POST", "/v1/completions", json=body) as lines:
        if lines.status_code == httpx.codes.OK:
            async for line in lines.aiter_lines():
                if line.startswith("data: "):
                    began.set()


async def ways_of(node: Node, decision_id: str) -> Sequence[PlacementOption]:
    client = PlannerClient(node.planner)
    try:
        return (await client.explain(decision_id)).ways
    finally:
        await client.close()


async def idle_tpot_s(node: Node) -> float:
    """The TPOT of the slowest decode engine, as the planner foretells it."""
    decision_id = (await asked(node, prompt(STREAM_TOKENS), slo={"report": True})).decision_id
    ways = await ways_of(node, decision_id)
    return max(way.tpot_s for way in ways if way.tpot_s and way.decode in node.decodes)


async def moves_slower_than_it_computes(node: Node, decision_id: str) -> bool:
    """Whether KV of the prompt takes longer to `PULLING` than the prompt there, as foretold."""
    ways = await ways_of(node, decision_id)
    here = next(way for way in ways if way.decode == PULLING and way.prefill is None)
    moved = next(way for way in ways if way.decode == PULLING and way.prefill == SOURCE)
    return (moved.transfer_s or 0.0) > (here.prefill_s or 0.0)


async def under_load(node: Node, token_ids: list[int], slo: Mapping[str, Any]) -> Asked:
    """The answer while all that `SOURCE` can promise of this SLO is promised to others."""
    async with draining(node, OTHER), AsyncExitStack() as load:
        async with draining(node, PULLING):
            await load.enter_async_context(promised_all(node, slo))
        return await asked(node, token_ids, slo={**slo, "report": True})


def test_a_prefix_is_pulled_from_an_engine_on_which_a_promise_would_break(node: Node) -> None:
    """Tried again where the machine is so busy that none can be promised, or an export is late."""
    for _ in range(TRIES):
        prefix = prompt(PREFIX_TOKENS)
        token_ids = [*prefix, *REST]
        expected = ask(token_ids, engine_of(node, PULLING), salt="reference").tokens
        ask(prefix, engine_of(node, SOURCE))
        slo = {"ttft_ms": TTFT_MS, "tpot_ms": 1000 * SLOWER * run(idle_tpot_s(node))}
        wait_until(node.at_rest, ANSWER_LIMIT_S)
        here, pulled = counted(node, PULLING), pulls_counted(node)

        answer = run(under_load(node, token_ids, slo))

        assert answer.tokens == expected
        wait_until(node.at_rest, ANSWER_LIMIT_S)  # which takes longer than to tell the planner
        if pulls_counted(node) == (pulled[0] + 1, pulled[1] + 1):
            break
    else:
        if run(moves_slower_than_it_computes(node, answer.decision_id)):
            pytest.skip("the machine is so busy that KV takes longer to move than to compute")
    told = explained(node, answer.decision_id)
    words = " ".join(told.split())
    assert f"prompt tokens pulled from {SOURCE}" in words, told
    assert f"{PULLING} < {SOURCE}" in words
    assert f"Cached: {HELD_TOKENS} prompt tokens on {SOURCE}" in words
    assert f"Not colocated on {SOURCE}" in words
    assert (answer.slo["admission"], answer.slo["engines"]["decode"]) == ("admitted", PULLING)
    assert counted(node, PULLING).get("used", 0.0) == here.get("used", 0.0) + 1
    assert computed_since(here, node, PULLING) == PREFIX_TOKENS + REST_TOKENS - HELD_TOKENS - 1
