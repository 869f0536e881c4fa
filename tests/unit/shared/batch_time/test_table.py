import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.batch_time import ADDITIVE, PAPER, RICH, Form, Kind, Step, StepCurve, StepTable
from shared.batch_time.table import (
    CHUNKS,
    COUNTS,
    EARLIER,
    LONGEST_PROMPT,
    PAIRS,
    PREFILL,
    chunk_s,
    expected_s,
)

COEFFICIENTS = st.floats(0, 1e-2)
FORMS = st.sampled_from([PAPER, ADDITIVE, RICH])


@st.composite
def curves(draw: st.DrawFn) -> StepCurve:
    form: Form = draw(FORMS)
    n = len(form.columns)
    coefficients = draw(st.lists(COEFFICIENTS, min_size=n, max_size=n))
    return StepCurve(form=form, coefficients=tuple(coefficients))


@st.composite
def steps(draw: st.DrawFn) -> Step:
    decodes = draw(st.integers(0, 300))
    longest = draw(st.integers(0, 4000)) if decodes else 0
    step = Step(
        decodes=decodes,
        speculated_tokens=draw(st.integers(0, 3)) * decodes,
        speculation_steps=draw(st.integers(0, 4)),
        decode_context_tokens=decodes * longest / 2,
        longest_context_tokens=longest,
    )
    for tokens, earlier in draw(
        st.lists(st.tuples(st.integers(1, 2000), st.integers(0, 8000)), max_size=3)
    ):
        step = step.with_chunk(tokens, earlier)
    return step


@given(curves(), steps())
def test_a_table_says_of_every_step_what_its_curve_says(curve: StepCurve, step: Step) -> None:
    table = StepTable.of(curve)

    assert table.expected_s(step) == pytest.approx(curve.step_time(step), rel=1e-12, abs=1e-15)


@given(curves(), steps())
def test_what_is_promised_is_the_expected_time_and_the_margin_of_its_kind(
    curve: StepCurve, step: Step
) -> None:
    margins = {Kind.DECODE: 1.1, Kind.PREFILL: 1.2, Kind.MIXED: 1.3}
    table = StepTable.of(curve, drift=1.5, margins=margins)

    expected_s = table.expected_s(step)
    assert expected_s == pytest.approx(1.5 * curve.step_time(step), rel=1e-12, abs=1e-15)
    assert table.sure_s(step) == pytest.approx(margins[step.kind] * expected_s)


@given(curves(), steps())
def test_a_table_survives_the_wire(curve: StepCurve, step: Step) -> None:
    table = StepTable.of(curve, drift=1.25)

    assert StepTable.from_bytes(table.to_bytes()).sure_s(step) == table.sure_s(step)


@pytest.mark.parametrize("data", [b"", b"abc", b"\0" * 72, b"\xff" * 80])
def test_bytes_that_are_no_table_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="table of step times"):
        StepTable.from_bytes(data)


@given(curves(), st.integers(0, 200), st.floats(0, 2000))
def test_decodes_take_what_a_step_of_them_takes(
    curve: StepCurve, decodes: int, each_tokens: float
) -> None:
    table, context = StepTable.of(curve, drift=1.2), decodes * each_tokens
    step = Step(decodes=decodes, decode_context_tokens=context)

    assert table.decodes_s(decodes, context) == pytest.approx(table.expected_s(step))


@given(curves(), st.integers(1, 3000), st.integers(1, 1000), st.integers(0, 50), st.floats(0, 2000))
def test_a_prompt_takes_its_chunks_one_after_the_other(
    curve: StepCurve, tokens: int, chunk_tokens: int, decodes: int, each_tokens: float
) -> None:
    table, context = StepTable.of(curve), decodes * each_tokens
    beside = Step(decodes=decodes, decode_context_tokens=context)
    chunks = [(at, min(chunk_tokens, tokens - at)) for at in range(0, tokens, chunk_tokens)]
    one_by_one_s = sum(table.expected_s(beside.with_chunk(size, at)) for at, size in chunks)
    together_s = table.prompt_s(tokens, chunk_tokens, decodes=decodes, context_tokens=context)

    assert together_s == pytest.approx(one_by_one_s)


@given(curves(), steps(), st.floats(0.5, 3.0))
def test_a_slower_engine_takes_longer_expected_and_promised(
    curve: StepCurve, step: Step, factor: float
) -> None:
    table = StepTable.of(curve, margins=dict.fromkeys(Kind, 1.2))
    slower = table.slower(factor)

    assert slower.expected_s(step) == pytest.approx(factor * table.expected_s(step))
    assert slower.sure_s(step) == pytest.approx(factor * table.sure_s(step))
    assert table.drift == 1.0


@given(curves(), st.integers(0, 8000), st.floats(0, 2000))
def test_a_chunk_alone_takes_exactly_what_a_step_of_it_takes(
    curve: StepCurve, computed: int, size: float
) -> None:
    table, counts = StepTable.of(curve, drift=1.2).numbers, np.zeros(COUNTS)
    counts[CHUNKS], counts[PREFILL], counts[EARLIER] = 1.0, size, computed
    counts[PAIRS] = size * (computed + size / 2)
    counts[LONGEST_PROMPT] = computed + size

    assert chunk_s(table, float(computed), size) == expected_s(table, counts)
