"""A decode engine pulls a prefix that another one has cached: same tokens, no work twice."""

from dataclasses import dataclass, replace

import pytest

from shared.requests import EngineRef, PrefixSource
from tests.integration.node import LOOPBACK, Node, wait_until
from tests.integration.two_decodes.direct import (
    BLOCK_TOKENS,
    ask,
    computed_since,
    counted,
    engine_of,
    prompt,
)
from tests.limits import ANSWER_LIMIT_S

pytestmark = pytest.mark.engines

PREFIX_TOKENS, REST_TOKENS = 1024, 100
SOURCE, PULLING = "decode-0", "decode-1"


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
    prefix = prompt(PREFIX_TOKENS)
    token_ids = [*prefix, *((3 * at) % 200 + 20 for at in range(REST_TOKENS))]
    expected = ask(token_ids, pulling, salt="reference").tokens
    ask(prefix, source)
    wait_until(node.at_rest, ANSWER_LIMIT_S)
    cached = PREFIX_TOKENS - PREFIX_TOKENS % BLOCK_TOKENS
    return Warm(
        token_ids,
        expected,
        PrefixSource(engine=source, tokens=cached, limit_s=30, forecast_s=0.1),
        pulling,
    )


def test_a_pulled_prefix_gives_the_same_tokens_and_is_computed_on_neither_engine(
    node: Node, warm: Warm
) -> None:
    here, there = counted(node, PULLING), counted(node, SOURCE)

    answer = ask(warm.token_ids, warm.pulling, warm.source)

    assert answer.tokens == warm.answer
    assert not answer.recomputed
    assert answer.exported == [True]
    wait_until(node.at_rest, ANSWER_LIMIT_S)
    assert computed_since(here, node, PULLING) == len(warm.token_ids) - warm.source.tokens - 1
    assert computed_since(there, node, SOURCE) == 0  # its one token counts as a decode
    assert counted(node, PULLING)["used"] == here.get("used", 0.0) + 1


def test_a_pulled_prefix_is_cached_and_need_not_be_pulled_again(node: Node, warm: Warm) -> None:
    ask(warm.token_ids, warm.pulling, warm.source)
    wait_until(node.at_rest, ANSWER_LIMIT_S)
    here = counted(node, PULLING)

    answer = ask(warm.token_ids, warm.pulling)

    assert answer.tokens == warm.answer
    wait_until(node.at_rest, ANSWER_LIMIT_S)
    assert computed_since(here, node, PULLING) <= BLOCK_TOKENS


def test_a_source_that_has_lost_the_prefix_computes_one_token_and_the_engine_the_rest(
    node: Node, warm: Warm
) -> None:
    there = counted(node, SOURCE)
    lost = [*prompt(PREFIX_TOKENS), *warm.token_ids[-REST_TOKENS:]]
    expected = ask(lost, warm.pulling, salt="reference").tokens

    answer = ask(lost, warm.pulling, warm.source)

    assert answer.tokens == expected
    wait_until(node.at_rest, ANSWER_LIMIT_S)
    assert computed_since(there, node, SOURCE) <= 1


@pytest.mark.parametrize("changed", ["engine_id", "address"])
def test_where_the_source_is_gone_or_was_started_again_the_engine_computes_the_prompt(
    node: Node, warm: Warm, changed: str
) -> None:
    gone = replace(warm.source.engine, **{changed: f"{LOOPBACK}:9"})

    answer = ask(warm.token_ids, warm.pulling, replace(warm.source, engine=gone))

    assert answer.tokens == warm.answer
    assert answer.exported == [False]
    wait_until(node.at_rest, ANSWER_LIMIT_S)


def test_a_source_beyond_its_limit_holds_nothing_and_the_engine_computes_the_prompt(
    node: Node, warm: Warm
) -> None:
    answer = ask(warm.token_ids, warm.pulling, replace(warm.source, limit_s=1e-6))

    assert answer.tokens == warm.answer
    assert answer.exported == [False]
    wait_until(node.at_rest, ANSWER_LIMIT_S)
