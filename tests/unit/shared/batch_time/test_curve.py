"""A curve's laws: more work takes no less, the inverse is exact, and the paper's golden numbers."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.batch_time import ADDITIVE, MOST_TOKENS, PAPER, RICH, Form, Step, StepCurve

OPT_6_7B = (6.878e-5, 0.0, 2.480e-2), (7.523e-5, 0.0, 3.033e-3)
OPT_13B = (7.213e-5, 3.341e-3, 3.173e-2), (0.0, 3.014e-3, 1.2e-5)
OPT_30B = (9.314e-5, 0.0, 3.788e-2), (0.0, 0.0, 1.2e-5)
OPT_13B_H100 = (4.177e-5, 0.0, 2.743e-2), (0.0, 0.0, 0.0)


def paper(*pieces: tuple[float, float, float]) -> StepCurve:
    """The paper's order (per token, per speculation step, fixed) in ours."""
    return StepCurve(form=PAPER, coefficients=tuple(x for k1, k2, b in pieces for x in (b, k1, k2)))


counts = st.integers(0, 5000).map(float)
steps = st.builds(
    Step,
    decodes=st.integers(0, 300),
    speculated_tokens=st.integers(0, 300),
    speculation_steps=st.integers(0, 8),
    decode_context_tokens=st.integers(0, 10**6),
    longest_context_tokens=st.integers(0, 10**5),
    chunks=st.integers(0, 3),
    prefill_tokens=st.integers(0, 4096),
    earlier_tokens=st.integers(0, 10**5),
    attention_pairs=st.integers(0, 10**8),
    longest_prompt_tokens=st.integers(0, 10**5),
)
COUNTS = tuple(Step.__dataclass_fields__)


@st.composite
def curves(draw: st.DrawFn) -> StepCurve:
    """Coefficients of the size that engines have."""
    form: Form = draw(st.sampled_from([PAPER, ADDITIVE, RICH]))
    sizes = {"FIXED": 0.05, "LONGEST": 1e-6, "ATTENTION_PAIRS": 1e-8, "SHARED_BLOCKS": 1e-7}
    return StepCurve(
        form=form,
        coefficients=tuple(
            draw(st.floats(0, largest, allow_subnormal=False))
            for largest in (
                sizes.get(one.name, 1e-6 if "CONTEXT" in one.name else 1e-4) for one in form.columns
            )
        ),
    )


@given(curves(), steps, st.sampled_from(COUNTS), st.integers(1, 1000))
def test_more_of_any_count_never_takes_less(
    curve: StepCurve, step: Step, count: str, more: int
) -> None:
    grown = replace(step, **{count: getattr(step, count) + more})

    assert 0 <= curve.step_time(step) <= curve.step_time(grown) * (1 + 1e-12)


@given(curves(), steps, st.integers(1, 4096), st.integers(0, 10**5))
def test_a_further_chunk_never_takes_less(
    curve: StepCurve, step: Step, tokens: int, earlier_tokens: int
) -> None:
    one = curve.step_time(step.with_chunk(tokens, earlier_tokens))

    assert curve.step_time(step) <= one * (1 + 1e-12)
    assert one <= curve.step_time(step.with_chunk(tokens + 1, earlier_tokens)) * (1 + 1e-12)


@given(curves(), steps, st.integers(0, 10**5), st.floats(0, 1), st.integers(1, MOST_TOKENS))
def test_the_longest_chunk_keeps_the_budget_and_the_next_does_not(
    curve: StepCurve, beside: Step, earlier_tokens: int, budget_s: float, most_tokens: int
) -> None:
    tokens = curve.max_tokens(
        budget_s, beside, earlier_tokens=earlier_tokens, most_tokens=most_tokens
    )

    def takes(count: int) -> float:
        return curve.step_time(beside.with_chunk(count, earlier_tokens))

    assert 0 <= tokens <= most_tokens
    assert tokens == 0 or takes(tokens) <= budget_s * (1 + 1e-9)
    assert tokens == most_tokens or takes(tokens + 1) >= budget_s * (1 - 1e-9)


@given(curves(), st.integers(1, 400), st.floats(0, 1))
def test_of_a_time_that_a_chunk_takes_just_that_chunk_is_the_longest(
    curve: StepCurve, tokens: int, share: float
) -> None:
    one, two = (curve.step_time(Step().with_chunk(n)) for n in (tokens, tokens + 1))

    if two > one * (1 + 1e-6):
        budget_s = one + (0.001 + 0.998 * share) * (two - one)
        assert curve.max_tokens(budget_s) == tokens


@given(curves(), steps, st.integers(1, 3000), st.integers(1, 600))
def test_a_prompt_takes_the_sum_of_its_chunks(
    curve: StepCurve, beside: Step, tokens: int, chunk_tokens: int
) -> None:
    places = range(0, tokens, chunk_tokens)
    chunks = [curve.step_time(beside.with_chunk(min(chunk_tokens, tokens - p), p)) for p in places]

    assert curve.prefill_time(tokens, chunk_tokens, beside) == pytest.approx(sum(chunks))


@pytest.mark.parametrize(
    ("curve", "fits"),
    [
        (paper(*OPT_6_7B), (351, 1078, 1805, 2532)),
        (paper(*OPT_30B), (119, 656, 1192, 1729)),
        (paper(*OPT_13B_H100), (516, 1713, 2910, 4107)),
        (paper((7.213e-5, 0.0, 3.173e-2), (0.0, 0.0, 1.2e-5)), (239, 932, 1625, 2319)),
        (paper((6.572e-5, 0.0, 2.752e-2), (0.0, 0.0, 0.0)), (326, 1087, 1848, 2609)),
        (paper((1.054e-4, 0.0, 4.513e-2), (0.0, 0.0, 0.0)), (36, 511, 985, 1459)),
    ],
)
def test_the_paper_s_form_gives_its_tokens_per_batch(
    curve: StepCurve, fits: tuple[int, ...]
) -> None:
    found = [curve.max_tokens(budget_s) for budget_s in (0.049, 0.099, 0.149, 0.199)]

    assert found == pytest.approx(fits, abs=1)


def test_the_paper_s_zero_load_prompt_takes_its_time() -> None:
    assert paper(*OPT_6_7B).step_time(Step().with_chunk(763)) == pytest.approx(0.0773, abs=5e-5)


def test_speculation_steps_take_their_time_from_the_tokens() -> None:
    curve = paper(*OPT_13B)

    plain, drafted = (curve.max_tokens(0.099, Step(speculation_steps=n)) for n in (0, 4))

    assert plain - drafted == pytest.approx(4 * 3.341e-3 / 7.213e-5, abs=1)


@pytest.mark.parametrize("wrong", [(0.0,) * 5, (-1.0,) * 6, (float("nan"),) * 6])
def test_coefficients_that_are_no_curve_are_refused(wrong: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="coefficients"):
        StepCurve(form=PAPER, coefficients=wrong)
