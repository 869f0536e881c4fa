"""What engines tell of their prefix caches, and what of a prompt is found there."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from services.planner.state.prefix_index import PrefixIndex
from shared.engines import EngineDescription, PrefixNews
from shared.requests import PromptHashes
from tests.unit.planner.builders import make_engine

SPAN_TOKENS = 64


def prompt(hashes: Sequence[int], span_tokens: int = SPAN_TOKENS) -> PromptHashes:
    return PromptHashes(span_tokens=span_tokens, hashes=tuple(hashes))


def engine(name: str) -> EngineDescription:
    return make_engine(name, prefix_span_tokens=SPAN_TOKENS)


def stored(*hashes: int) -> PrefixNews:
    return PrefixNews(stored=hashes)


def test_an_engine_has_as_much_of_a_prompt_as_it_told_of_from_its_beginning() -> None:
    index = PrefixIndex()
    index.hear(engine("d0"), stored(1, 2, 4))
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


def test_nothing_is_known_of_an_engine_that_tells_nothing_of_its_spans() -> None:
    index = PrefixIndex()

    index.hear(make_engine("d0", prefix_span_tokens=0), stored(1))

    assert index.found(prompt([1])) == {}


@given(
    told=st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 9))), max_size=12),
    asked=st.lists(st.integers(0, 9), unique=True, max_size=9),
)
def test_what_is_found_is_the_longest_beginning_of_what_was_stored_and_not_removed(
    told: list[tuple[bool, set[int]]], asked: list[int]
) -> None:
    index, there = PrefixIndex(), set[int]()
    for comes, hashes in told:
        news = stored(*hashes) if comes else PrefixNews(removed=tuple(hashes))
        index.hear(engine("d0"), news)
        there = there | hashes if comes else there - hashes

    tokens = index.found(prompt(asked)).get("d0", 0)

    spans, over = divmod(tokens, SPAN_TOKENS)
    assert over == 0
    assert set(asked[:spans]) <= there
    assert spans == len(asked) or asked[spans] not in there
