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


def test_a_report_of_decodes_tells_all_of_them() -> None:
    step = step_of(make_report(decode_tokens=4, speculated_tokens=8, context_tokens=1000))

    assert (step.tokens, step.kind) == (12, Kind.DECODE)
    assert (step.decode_context_tokens, step.longest_decode_tokens) == (1000, 250)
    assert step.speculation_steps == 2


def test_a_report_of_a_prompt_has_no_decode_context() -> None:
    step = step_of(make_report(prefill_tokens=100, context_tokens=400))

    assert step == Step().with_chunk(100, 400)


@given(st.integers(0, 600), st.integers(0, 64), st.integers(0, 10**6))
def test_the_contexts_of_a_report_are_all_somewhere(
    prefill_tokens: int, decode_tokens: int, context_tokens: int
) -> None:
    report = make_report(
        prefill_tokens=prefill_tokens, decode_tokens=decode_tokens, context_tokens=context_tokens
    )

    step = step_of(report)

    assert step.tokens == prefill_tokens + decode_tokens
    if step.tokens:
        assert abs(step.decode_context_tokens + step.earlier_tokens - context_tokens) < 1e-6
