"""What a step is, from its parts and from an engine's report."""

from hypothesis import given
from hypothesis import strategies as st

from shared.batch_time import Kind, Step, step_of
from tests.unit.planner.builders import make_report


def test_a_step_is_of_the_kind_of_its_work() -> None:
    decoding = Step(decodes=3, decode_context_tokens=300)

    assert decoding.kind is Kind.DECODE
    assert decoding.with_chunk(10).kind is Kind.MIXED
    assert Step().with_chunk(10).kind is Kind.PREFILL


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 5000)), max_size=4))
def test_a_prompt_in_chunks_attends_to_as_much_as_in_one(chunks: list[tuple[int, int]]) -> None:
    for tokens, earlier_tokens in chunks:
        whole = Step().with_chunk(earlier_tokens + tokens)
        first, second = Step().with_chunk(earlier_tokens), Step().with_chunk(tokens, earlier_tokens)

        assert first.attention_pairs + second.attention_pairs == whole.attention_pairs
        assert second.longest_prompt_tokens == whole.longest_prompt_tokens


def test_a_step_with_no_chunk_added_is_the_same() -> None:
    step = Step(decodes=1, decode_context_tokens=10)

    assert step.with_chunk(0, 100) == step


@given(
    st.integers(0, 64),
    st.integers(0, 5000),
    st.lists(st.tuples(st.integers(1, 500), st.integers(0, 5000)), max_size=4),
)
def test_a_report_tells_all_of_its_step(
    decodes: int, longest_tokens: int, chunks: list[tuple[int, int]]
) -> None:
    step = Step(
        decodes=decodes,
        speculated_tokens=2 * decodes,
        speculation_steps=2 if decodes else 0,
        decode_context_tokens=decodes * longest_tokens // 2,
        longest_context_tokens=longest_tokens or None,
    )
    for tokens, earlier_tokens in chunks:
        step = step.with_chunk(tokens, earlier_tokens)

    report = make_report(
        decode_tokens=decodes,
        speculated_tokens=2 * decodes,
        decode_context_tokens=step.decode_context_tokens,
        longest_context_tokens=longest_tokens,
        chunks=step.chunks,
        prefill_tokens=step.prefill_tokens,
        earlier_tokens=step.earlier_tokens,
        attention_pairs=step.attention_pairs,
        longest_prompt_tokens=step.longest_prompt_tokens,
    )

    assert step_of(report) == step
