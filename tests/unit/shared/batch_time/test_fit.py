"""What a fit finds: the coefficients behind the times, through noise, the same each time."""

import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.batch_time import PAPER, RICH, Feature, Form, Kind, Step, StepCurve, fit_curve
from shared.batch_time.nnls import non_negative

TRUE = StepCurve(
    form=RICH,
    coefficients=(
        *(12e-3, 8e-6, 9e-3, 28e-6, 6e-3, 35e-6),
        *(20e-6, 1e-3),
        *(85e-9, 2.2e-9, 70e-9, 20e-9),
        720e-9,
    ),
)


def some_steps(count: int, seed: int) -> list[Step]:
    """A third of each kind, contexts of any length."""
    chance = random.Random(seed)
    made = []
    for i in range(count):
        decodes = chance.choice([1, 4, 16, 64, 128]) if i % 3 != 1 else 0
        context = decodes * chance.choice([16, 200, 1000, 3000])
        step = Step(decodes=decodes, decode_context_tokens=context)
        step = Step(
            decodes=decodes,
            decode_context_tokens=context,
            speculation_steps=chance.randint(0, 4),
            longest_context_tokens=step.longest_decode_tokens,
        )
        place = chance.choice([0, 0, 512, 4096, 16_384])
        made.append(step.with_chunk(chance.randint(1, 2000), place) if i % 3 else step)
    return made


def errors(curve: StepCurve, steps: list[Step]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Relative to the true times."""
    return np.array([abs(curve.step_time(one) / TRUE.step_time(one) - 1) for one in steps])


def test_a_fit_finds_the_curve_behind_exact_times() -> None:
    steps = some_steps(900, seed=1)

    fit = fit_curve(RICH, steps, [TRUE.step_time(one) for one in steps])

    assert float(errors(fit.curve, some_steps(300, seed=2)).max()) < 0.03
    fitted = dict(zip(RICH.columns, fit.curve.coefficients, strict=True))
    assert fitted[Feature.DECODE_CONTEXT] == pytest.approx(85e-9, rel=0.05)
    assert fitted[Feature.LONGEST] == pytest.approx(720e-9, rel=0.05)
    assert fitted[Feature.SPECULATION_STEPS] == pytest.approx(1e-3, rel=0.05)


def test_noise_and_steps_that_met_a_pause_move_a_fit_little() -> None:
    chance, steps = random.Random(5), some_steps(1500, seed=3)
    times = [TRUE.step_time(one) * chance.lognormvariate(0, 0.05) for one in steps]
    times = [time * (5 if i % 40 == 0 else 1) for i, time in enumerate(times)]

    fit = fit_curve(RICH, steps, times)

    assert float(np.median(errors(fit.curve, some_steps(300, seed=4)))) < 0.03


@pytest.mark.parametrize("form", [PAPER, RICH])
def test_the_same_steps_give_the_same_fit(form: Form) -> None:
    steps = some_steps(200, seed=6)
    times = [TRUE.step_time(one) for one in steps]

    assert fit_curve(form, steps, times) == fit_curve(form, steps, times)


@example((0.048605290049634674, 1e-06), (0.0, 0.00390625))  # the second piece is never the longer
@settings(max_examples=25)
@given(
    st.tuples(st.floats(1e-3, 5e-2), st.floats(1e-6, 1e-4)),
    st.tuples(st.floats(0, 5e-3), st.floats(1e-3, 1e-2)),
)
def test_the_paper_s_form_is_found_back(
    flat: tuple[float, float], draft: tuple[float, float]
) -> None:
    true = StepCurve(form=PAPER, coefficients=(*flat, draft[0], flat[0] / 4, flat[1] * 2, draft[1]))
    chance = random.Random(7)
    steps = [
        Step(speculation_steps=chance.randint(0, 6)).with_chunk(chance.randint(1, 4000))
        for _ in range(150)
    ]

    fit = fit_curve(PAPER, steps, [true.step_time(one) for one in steps])

    # A piece that few steps are on looks like pauses that those steps met.
    found = [
        fit.curve.step_time(one) == pytest.approx(true.step_time(one), rel=0.02) for one in steps
    ]
    assert sum(found) >= 0.85 * len(found)


def test_margins_are_quantiles_of_what_was_measured_by_kind() -> None:
    chance, steps = random.Random(8), some_steps(900, seed=9)
    spread = {Kind.DECODE: 0.02, Kind.PREFILL: 0.1, Kind.MIXED: 0.3}
    times = [TRUE.step_time(one) * chance.lognormvariate(0, spread[one.kind]) for one in steps]

    fit = fit_curve(RICH, steps, times)

    for kind in Kind:
        own = [i for i, one in enumerate(steps) if one.kind is kind]
        kept = sum(times[i] <= fit.upper(steps[i], 0.9) * (1 + 1e-9) for i in own)
        assert kept / len(own) == pytest.approx(0.9, abs=0.01)
    assert fit.margin(Kind.DECODE, 0.95) < fit.margin(Kind.MIXED, 0.95)


def test_a_kind_that_was_never_measured_has_the_widest_margin() -> None:
    steps = [Step(decodes=n, decode_context_tokens=100 * n) for n in range(1, 50)]
    fit = fit_curve(RICH, steps, [0.01 + 0.001 * (i % 2) for i in range(len(steps))])

    assert fit.margin(Kind.MIXED, 0.9) == fit.margin(Kind.DECODE, 0.9)


@pytest.mark.parametrize(("steps", "times"), [([], []), ([Step(decodes=1)], [0.0])])
def test_there_is_no_fit_of_nothing(steps: list[Step], times: list[float]) -> None:
    with pytest.raises(ValueError, match="a fit needs steps"):
        fit_curve(PAPER, steps, times)


@given(st.integers(0, 10**6))
def test_non_negative_least_squares_meets_its_optimality_conditions(seed: int) -> None:
    chance = np.random.default_rng(seed)
    a = chance.normal(size=(12, 6)) * 10.0 ** chance.integers(-3, 3, size=6)
    b = chance.normal(size=12)
    gram, wanted = a.T @ a, a.T @ b

    x = non_negative(gram, wanted)

    slack = (wanted - gram @ x) / np.sqrt(np.diag(gram))
    assert (x >= 0).all()
    assert (slack <= 1e-6).all()
    assert np.abs(slack[x > 0]).max(initial=0.0) < 1e-6


def test_a_column_of_zeros_gets_no_weight() -> None:
    a = np.array([[1.0, 0.0], [2.0, 0.0]])

    assert non_negative(a.T @ a, a.T @ np.array([3.0, 6.0])).tolist() == pytest.approx([3.0, 0.0])
