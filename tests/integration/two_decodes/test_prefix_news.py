"""The planner knows what is in the prefix caches of engines: after it was away, after an engine was
started again, and after blocks were evicted. No answer is wrong meanwhile.
"""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing

import pytest

from services.gateway.prompt_hashes import prompt_hashes
from shared.requests import EngineRef, Outcome, PlacementQuery, SloTargets
from shared.rpc.channels import PlannerClient
from tests.integration.node import Node, wait_until
from tests.integration.two_decodes.direct import (
    BLOCK_TOKENS,
    MOST_TOKENS,
    answered,
    ask,
    engine_of,
    metrics_of,
    prompt,
    request_of,
    run,
    samples,
)
from tests.limits import ANSWER_LIMIT_S, START_LIMIT_S

pytestmark = pytest.mark.engines

PREFIX_TOKENS, SPAN_TOKENS = 1000, 64
HELD_TOKENS = PREFIX_TOKENS - PREFIX_TOKENS % SPAN_TOKENS
IN_TIME_S = 10.0  # for reports to come
ENGINE, OTHER = "decode-0", "decode-1"
LONG_STEPS = "prefill-0"  # computes much at once
AT_ONCE = 8  # requests in flight while the cache is filled


async def known(node: Node, token_ids: list[int]) -> Mapping[str, int]:
    """Cached tokens of a prompt by engine, as the planner takes them in a decision."""
    client, request = PlannerClient(node.planner), request_of(token_ids)
    try:
        async with aclosing(client.watch()) as watched:
            views = await anext(watched)
        hashes = await prompt_hashes(request, views)
        query = PlacementQuery(
            request_id=request.request_id,
            group_id=request.request_id,
            model=node.model,
            targets=SloTargets(),
            prompt_tokens=len(token_ids),
            max_output_tokens=1,
            waited_s=0.0,
            prompt_hashes=hashes,
        )
        decision_id = (await client.place(query, ANSWER_LIMIT_S)).decision_id
        ways = (await client.explain(decision_id)).ways
        none = Outcome(decision_id=decision_id, request_id=request.request_id, finished="abort")
        await client.settle([none])
    finally:
        await client.close()
    return {way.decode or "": way.cached_tokens for way in ways if not (way.prefill or way.source)}


def knows(node: Node, token_ids: list[int], expected: Mapping[str, int]) -> bool:
    """Whether the planner takes just so much of the prompt to be cached on these engines."""
    found = run(known(node, token_ids))
    return all(found.get(name) == tokens for name, tokens in expected.items())


def knows_all_caches(node: Node) -> bool:
    """Whether planner and engines count the same tokens in every cache."""
    by_planner = {
        sample.labels["engine"]: sample.value
        for sample in samples(node.ports.planner_metrics)
        if sample.name == "slos_planner_cached_tokens"
    }
    own = {
        sample.labels["engine"]: sample.value
        for engine in node.engines
        for sample in metrics_of(node, engine)
        if sample.name == "slos_engine_cached_tokens"
    }
    return by_planner == own


def until_all_serve(node: Node) -> None:
    wait_until(lambda: node.engine_count() == len(node.engines), START_LIMIT_S)


def test_what_was_computed_is_known_and_what_was_not_is_not(node: Node) -> None:
    token_ids = prompt(PREFIX_TOKENS)
    assert run(known(node, token_ids))[ENGINE] == 0

    ask(token_ids, engine_of(node, ENGINE))

    wait_until(lambda: knows(node, token_ids, {ENGINE: HELD_TOKENS, OTHER: 0}), IN_TIME_S)
    wait_until(lambda: knows_all_caches(node), IN_TIME_S)


def test_a_planner_that_was_started_again_knows_what_was_cached_before_and_meanwhile(
    node: Node,
) -> None:
    before, meanwhile = prompt(PREFIX_TOKENS), prompt(PREFIX_TOKENS)
    engine = engine_of(node, ENGINE)
    right = ask(before, engine).tokens

    node.kill("planner")
    ask(meanwhile, engine)  # its reports reach no planner

    until_all_serve(node)
    held = {ENGINE: HELD_TOKENS, OTHER: 0}
    wait_until(lambda: knows(node, before, held) and knows(node, meanwhile, held), IN_TIME_S)
    wait_until(lambda: knows_all_caches(node), IN_TIME_S)
    assert ask(before, engine).tokens == right


def test_an_engine_that_was_started_again_has_nothing_cached(node: Node) -> None:
    token_ids = prompt(PREFIX_TOKENS)
    right = ask(token_ids, engine_of(node, ENGINE)).tokens
    wait_until(lambda: knows(node, token_ids, {ENGINE: HELD_TOKENS}), IN_TIME_S)
    before = engine_of(node, ENGINE)

    node.kill(ENGINE)

    wait_until(lambda: node.engine_count() < len(node.engines), ANSWER_LIMIT_S)
    assert not run(known(node, token_ids)).get(ENGINE)
    until_all_serve(node)
    assert engine_of(node, ENGINE).engine_id != before.engine_id
    assert run(known(node, token_ids))[ENGINE] == 0
    assert ask(token_ids, engine_of(node, ENGINE)).tokens == right
    wait_until(lambda: knows(node, token_ids, {ENGINE: HELD_TOKENS}), IN_TIME_S)
    wait_until(lambda: knows_all_caches(node), IN_TIME_S)


def test_what_was_evicted_is_not_known_any_more(node: Node) -> None:
    token_ids, engine = prompt(PREFIX_TOKENS), engine_of(node, LONG_STEPS)
    right = ask(token_ids, engine).tokens
    wait_until(lambda: knows(node, token_ids, {LONG_STEPS: HELD_TOKENS}), IN_TIME_S)

    run(fill(node, engine))

    wait_until(lambda: knows(node, token_ids, {LONG_STEPS: 0}), IN_TIME_S)
    wait_until(lambda: knows_all_caches(node), IN_TIME_S)
    assert ask(token_ids, engine).tokens == right


async def fill(node: Node, engine: EngineRef) -> None:
    """Computes prompts of more tokens than the cache holds."""
    tokens, blocks = MOST_TOKENS - 48, node.health(engine.name).kv_blocks
    prompts = iter([prompt(tokens) for _ in range(blocks * BLOCK_TOKENS // tokens + 2)])

    async def work() -> None:
        for one in prompts:
            await answered(one, engine)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
