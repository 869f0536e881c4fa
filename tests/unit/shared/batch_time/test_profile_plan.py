from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.batch_time import ADDITIVE, Kind, Step, StepCurve
from shared.batch_time.profile_plan import (
    OPENING,
    SMALL_BATCHES,
    WARM_UP,
    Limits,
    Plan,
    Trial,
    candidates,
    steps_of,
)

LIMITS = Limits(model_len_tokens=2048, step_tokens=512, requests=16, kv_tokens=20_000)
CPU = StepCurve(form=ADDITIVE, coefficients=(0.065, 0.002, 0.003, 1e-5))
GPU = StepCurve(form=ADDITIVE, coefficients=(0.008, 4e-5, 5e-5, 1e-8))


def carried_out(limits: Limits, curve: StepCurve, budget_s: float) -> Iterator[list[Step]]:
    """The trials that a plan chooses on an engine that is as fast as `curve` says."""
    plan, left_s = Plan(limits), budget_s
    while trial := plan.next(curve, left_s):
        steps = list(steps_of(trial))
        times_s = [curve.step_time(one) for one in steps]
        left_s -= sum(times_s)
        plan.saw(steps, times_s)
        yield steps


@settings(max_examples=20, deadline=None)
@given(
    st.builds(
        Limits,
        model_len_tokens=st.integers(64, 8192),
        step_tokens=st.integers(16, 4096),
        requests=st.integers(1, 64),
        kv_tokens=st.integers(256, 100_000),
    )
)
def test_no_trial_asks_for_more_than_the_engine_can_hold(limits: Limits) -> None:
    for trial in candidates(limits):
        steps = list(steps_of(trial))
        assert max(one.tokens for one in steps) <= limits.step_tokens
        assert max(one.decodes + one.chunks for one in steps[trial.decode_steps :]) <= max(
            limits.requests, trial.sequences
        )
        held = trial.sequences * (trial.prompt_tokens + trial.output_tokens)
        assert held + trial.beside_tokens <= limits.kv_tokens


@pytest.mark.parametrize("curve", [CPU, GPU])
def test_a_plan_keeps_its_time_and_uses_most_of_it_on_a_slow_engine(curve: StepCurve) -> None:
    spent_s = sum(
        curve.step_time(one) for steps in carried_out(LIMITS, curve, 12.0) for one in steps
    )

    assert spent_s <= 12.0
    assert spent_s >= 10.0 or curve is GPU


def test_twelve_seconds_of_a_slow_engine_hold_steps_of_each_kind_and_many_sizes() -> None:
    steps = [one for trial in carried_out(LIMITS, CPU, 12.0) for one in trial]

    assert {one.kind for one in steps} == set(Kind)
    assert len({one.decodes for one in steps if one.kind is Kind.DECODE}) >= 4
    assert max(one.tokens for one in steps) >= 256
    assert max(one.decode_context_tokens for one in steps) >= 256


def test_a_fast_engine_is_tried_up_to_its_largest_step() -> None:
    limits = Limits(model_len_tokens=8192, step_tokens=2048, requests=64, kv_tokens=100_000)

    largest = max(one.tokens for trial in carried_out(limits, GPU, 12.0) for one in trial)

    assert largest == 2048


@given(
    sequences=st.integers(1, 16),
    prompt_tokens=st.integers(1, 300),
    chunk_tokens=st.integers(1, 300),
    beside_tokens=st.integers(0, 300),
    beside_chunk_tokens=st.integers(1, 100),
)
def test_the_steps_of_a_trial_compute_each_prompt_once(
    sequences: int,
    prompt_tokens: int,
    chunk_tokens: int,
    beside_tokens: int,
    beside_chunk_tokens: int,
) -> None:
    trial = Trial(
        sequences=sequences,
        prompt_tokens=prompt_tokens,
        chunk_tokens=chunk_tokens,
        beside_tokens=beside_tokens,
        beside_chunk_tokens=beside_chunk_tokens,
    )
    steps = list(steps_of(trial))

    assert sum(one.prefill_tokens for one in steps) == sequences * prompt_tokens + beside_tokens
    assert sum(one.decodes > 0 and not one.chunks for one in steps) == trial.decode_steps


def test_what_was_tried_twice_is_not_tried_again() -> None:
    plan = Plan(LIMITS)
    tried: list[Trial] = []
    while trial := plan.next(GPU, 1e9):
        tried.append(trial)

    assert max(tried.count(one) for one in tried) == 2
    assert set(tried) == set(candidates(LIMITS))


def test_the_first_trials_are_small() -> None:
    assert sum(map(cpu_s, (WARM_UP, *OPENING))) < 3


def test_small_batches_of_each_size_take_seconds_of_the_slowest_machine() -> None:
    assert sum(map(cpu_s, SMALL_BATCHES)) < 6


def cpu_s(trial: Trial) -> float:
    return sum(CPU.step_time(one) for one in steps_of(trial))
