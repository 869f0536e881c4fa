"""What an engine tells of its prefix cache, in spans of two blocks."""

from hypothesis import given
from hypothesis import strategies as st

from shared.engine.prefix_spans import PrefixSpans
from shared.engines import PrefixNews, prefix_span_tokens

BLOCK_TOKENS = 32


def block(prompt: int, place: int) -> int:
    return 100 * prompt + place


def store(spans: PrefixSpans, prompt: int, first: int, last: int) -> None:
    parent = block(prompt, first - 1) if first else None
    spans.stored(parent, [block(prompt, place) for place in range(first, last)])


def test_a_span_is_told_of_by_the_hash_of_its_last_block() -> None:
    spans = PrefixSpans(BLOCK_TOKENS)

    store(spans, 1, 0, 3)
    assert spans.take() == PrefixNews(stored=(block(1, 1),))
    store(spans, 1, 3, 4)
    assert spans.take() == PrefixNews(stored=(block(1, 3),))
    assert not spans.take()


def test_a_span_is_there_until_its_last_copy_is_gone() -> None:
    spans = PrefixSpans(BLOCK_TOKENS)
    store(spans, 1, 0, 2)
    store(spans, 1, 0, 2)
    spans.take()

    spans.removed([block(1, 1)])
    assert not spans.take()
    spans.removed([block(1, 1)])
    assert spans.take() == PrefixNews(removed=(block(1, 1),))


def test_what_came_and_went_between_two_news_is_told_as_gone() -> None:
    spans = PrefixSpans(BLOCK_TOKENS)
    store(spans, 1, 0, 2)
    spans.removed([block(1, 1)])

    assert spans.take() == PrefixNews(removed=(block(1, 1),))


def test_after_a_loss_all_that_is_there_is_told_anew() -> None:
    spans = PrefixSpans(BLOCK_TOKENS)
    store(spans, 1, 0, 4)
    spans.take()

    spans.restate()

    assert spans.take() == PrefixNews(stored=(block(1, 1), block(1, 3)), anew=True)
    spans.cleared()
    assert spans.take() == PrefixNews(anew=True)


def test_small_blocks_make_spans_of_several_and_large_ones_are_spans() -> None:
    assert [prefix_span_tokens(size) for size in (1, 16, 48, 64, 128)] == [64, 64, 96, 64, 128]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("store"), st.integers(0, 2), st.integers(0, 6), st.integers(1, 4)),
            st.tuples(st.just("remove"), st.integers(0, 2), st.integers(0, 9), st.just(0)),
            st.tuples(st.just("clear"), st.just(0), st.just(0), st.just(0)),
            st.tuples(st.just("lose"), st.just(0), st.just(0), st.just(0)),
            st.tuples(st.just("tell"), st.just(0), st.just(0), st.just(0)),
        ),
        max_size=60,
    )
)
def test_who_follows_the_news_knows_the_spans_that_are_there(
    events: list[tuple[str, int, int, int]],
) -> None:
    spans, heard, copies = PrefixSpans(BLOCK_TOKENS), set[int](), dict[int, int]()

    def tell(*, arrives: bool) -> None:
        news = spans.take()
        if not arrives:
            spans.restate()
            return
        if news.anew:
            heard.clear()
        assert not set(news.stored) & set(news.removed)
        heard.difference_update(news.removed)
        heard.update(news.stored)

    for kind, prompt, place, more in events:
        if kind == "store" and (place == 0 or copies.get(block(prompt, place - 1))):
            store(spans, prompt, place, place + more)
            for each in range(place, place + more):
                copies[block(prompt, each)] = copies.get(block(prompt, each), 0) + 1
        elif kind == "remove":
            spans.removed([block(prompt, place)])
            copies[block(prompt, place)] = max(0, copies.get(block(prompt, place), 0) - 1)
        elif kind == "clear":
            spans.cleared()
            copies.clear()
        elif kind in ("lose", "tell"):
            tell(arrives=kind == "tell")
    tell(arrives=True)

    assert heard == {one for one, n in copies.items() if n and one % 100 % 2 == 1}
