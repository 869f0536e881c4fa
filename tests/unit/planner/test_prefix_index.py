"""What engines tell of their prefix caches, and what of a prompt is found there."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.state.prefix_index import PrefixIndex
from shared.engines import EngineDescription, PrefixNews
from shared.requests import PromptHashes
from tests.unit.planner.builders import make_cluster, make_engine, make_report

SPAN_TOKENS = 64


def prompt(hashes: Sequence[int], span_tokens: int = SPAN_TOKENS) -> PromptHashes:
    return PromptHashes(span_tokens=span_tokens, hashes=tuple(hashes))


def engine(name: str) -> EngineDescription:
    return make_engine(name, prefix_span_tokens=SPAN_TOKENS)


def stored(*hashes: int) -> PrefixNews:
    return PrefixNews(stored=hashes)


def test_an_engine_has_as_much_of_a_prompt_as_it_told_of_from_its_beginning() -> None:
    index = PrefixIndex()
    index.hear(engine("d0"), stored(1, 2, 9))
    index.hear(engine("d1"), stored(1))
    index.hear(engine("d2"), stored(2, 3))

    assert index.found(prompt([1, 2, 3, 4])) == {"d0": 128, "d1": 64}
    assert index.found(prompt([])) == {}
    assert index.found(None) == {}


def test_spans_of_another_length_are_never_the_same() -> None:
    index = PrefixIndex()
    index.hear(engine("d0"), stored(1))

    assert index.found(prompt([1], span_tokens=32)) == {}


def test_an_engine_that_is_lost_has_nothing() -> None:
    index = PrefixIndex()
    for name in ("d0", "d1"):
        index.hear(engine(name), stored(1))

    index.lost("d0")

    assert index.found(prompt([1])) == {"d1": 64}


def test_news_anew_replace_all_that_was_told() -> None:
    index = PrefixIndex()
    index.hear(engine("d0"), stored(1, 2))

    index.hear(engine("d0"), PrefixNews(stored=(1,), anew=True))

    assert index.found(prompt([1, 2])) == {"d0": 64}


def test_news_in_a_batch_of_reports_that_cannot_be_read_are_heard() -> None:
    state = make_cluster(engine("d0"))
    garbled = make_report(step_time=b"x", prefixes=stored(1))

    with pytest.raises(ValueError, match="table of step times"):
        state.observe(state.engines["d0"], [garbled, make_report(prefixes=stored(2))], 0.0)

    assert state.prefixes.found(prompt([1, 2])) == {"d0": 2 * SPAN_TOKENS}


def test_nothing_is_known_of_an_engine_that_tells_nothing_of_its_spans() -> None:
    index = PrefixIndex()

    index.hear(make_engine("d0", prefix_span_tokens=0), stored(1))

    assert index.found(prompt([1])) == {}


@given(
    told=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), max_size=12),
    others=st.sets(st.integers(100, 120)),
    asked=st.integers(1, 9),
)
def test_what_is_found_is_the_beginning_that_was_stored_and_not_removed(
    told: list[tuple[int, int]], others: set[int], asked: int
) -> None:
    """Each engine has a beginning of a prompt of ten spans, longer or shorter than before."""
    index, prompts, spans = PrefixIndex(), list(range(10)), Counter[str]()
    for number, length in told:
        name = f"d{number}"
        before, spans[name] = spans[name], length
        removed = tuple(reversed(prompts[length:before]))
        news = PrefixNews(stored=(*prompts[before:length], *others), removed=removed)
        index.hear(engine(name), news)

    found = index.found(prompt(prompts[:asked]))

    least = {name: SPAN_TOKENS * min(asked, length) for name, length in spans.items() if length}
    assert found == least


@given(cached=st.sets(st.integers(0, 9)), asked=st.lists(st.integers(0, 9), unique=True))
def test_where_there_are_gaps_what_is_found_ends_in_a_cached_span(
    cached: set[int], asked: list[int]
) -> None:
    index = PrefixIndex()
    index.hear(engine("d0"), stored(*cached))

    spans = index.found(prompt(asked)).get("d0", 0) // SPAN_TOKENS

    assert spans == 0 or asked[spans - 1] in cached
    assert (spans > 0) == (bool(asked) and asked[0] in cached)
