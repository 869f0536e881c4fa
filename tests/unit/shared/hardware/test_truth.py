"""Laws of true step times, of every table that ships."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.batch_time import Step
from shared.batch_time.table import CHUNKS, COUNTS, LONGEST_CONTEXT, LONGEST_PROMPT, counts_of
from shared.hardware import TrueStep, load, names, noisy_s, true_s

SOME = ("opt-13b-a100-40gb", "llama-2-7b-a100-80gb", "llama-2-70b-h100-80gb", "yi-34b-a100-80gb")
STEPS = st.lists(st.floats(0, 4096), min_size=COUNTS, max_size=COUNTS)
BARELY = (CHUNKS, LONGEST_CONTEXT, LONGEST_PROMPT)  # the paper's engines ask for none of them
QUANTILES = (0.05, 0.5, 0.95, 0.99)
STANDARD = (-1.6449, 0.0, 1.6449, 2.3263)


def alone(**numbers: float) -> TrueStep:
    """No cost but those given."""
    none = dict.fromkeys(
        ("weights_s", "weights_token_s", "arithmetic_s", "arithmetic_token_s", "context_s"), 0.0
    )
    return TrueStep(**{**none, "pair_s": 0.0, **numbers})


@pytest.mark.parametrize("name", names())
@settings(max_examples=60, deadline=None)
@given(counts=STEPS, more=st.floats(0, 512), which=st.integers(0, COUNTS - 1))
def test_more_of_anything_never_takes_less(
    name: str, counts: list[float], more: float, which: int
) -> None:
    numbers = load(name).step.numbers
    larger = np.array(counts)
    larger[which] += more

    before_s = true_s(numbers, np.array(counts))

    assert 0 < before_s <= true_s(numbers, larger) * (1 + 1e-12)


@pytest.mark.parametrize("name", names())
def test_whatever_a_table_counts_costs_something(name: str) -> None:
    numbers = load(name).step.numbers
    mixed = counts_of(Step(decodes=32, decode_context_tokens=16_000).with_chunk(512, 512))

    for which in (one for one in range(COUNTS) if one not in BARELY and mixed[one]):
        larger = mixed.copy()
        larger[which] *= 2
        assert true_s(numbers, larger) > true_s(numbers, mixed)


def test_layers_take_as_long_as_the_longer_of_weights_and_arithmetic() -> None:
    step = alone(weights_s=0.01, arithmetic_token_s=1e-4, corner=200.0)

    small_s = true_s(step.numbers, counts_of(Step(decodes=10)))
    large_s = true_s(step.numbers, counts_of(Step().with_chunk(1000)))

    assert small_s == pytest.approx(0.01, rel=1e-3)
    assert large_s == pytest.approx(0.1, rel=1e-3)


def test_a_tile_that_is_begun_is_paid_by_its_share() -> None:
    step = alone(arithmetic_token_s=1e-4, tile_tokens=128.0, tile_share=0.5)

    seconds = true_s(step.numbers, counts_of(Step().with_chunk(160)))

    assert seconds == pytest.approx((160 + 0.5 * 96) * 1e-4)


def test_one_call_for_chunks_and_decodes_costs_more_than_two() -> None:
    step = alone(
        context_s=1e-6, pair_s=1e-8, mixed_share=1.0, mixed_chunk_tokens=64, mixed_decodes=8
    )
    decodes, chunk = Step(decodes=8, decode_context_tokens=8000), Step().with_chunk(64)
    both = Step(decodes=8, decode_context_tokens=8000).with_chunk(64)

    apart_s = sum(true_s(step.numbers, counts_of(one)) for one in (decodes, chunk))

    assert true_s(step.numbers, counts_of(both)) == pytest.approx(apart_s * 1.25)


def test_drafts_cost_by_their_length_and_by_sequence() -> None:
    step = alone(draft_s=1e-3, draft_sequence_s=1e-5)
    drafting = Step(decodes=4, speculated_tokens=12, speculation_steps=3)

    assert true_s(step.numbers, counts_of(drafting)) == pytest.approx(3 * (1e-3 + 4e-5))


@pytest.mark.parametrize("name", SOME)
def test_noise_has_mean_one_and_the_quantiles_of_its_sigma(name: str) -> None:
    step = load(name).step
    counts = counts_of(Step(decodes=8, decode_context_tokens=4000))
    normals = np.random.default_rng(3).standard_normal(20_000)

    factors = np.array([noisy_s(step.numbers, counts, one) for one in normals])
    factors /= true_s(step.numbers, counts)

    sigma = step.noise_sigma
    wanted = np.exp(sigma * np.array(STANDARD) - sigma**2 / 2)
    assert factors.mean() == pytest.approx(1.0, abs=1e-3)
    assert np.quantile(factors, QUANTILES) == pytest.approx(wanted, rel=5e-3)


@pytest.mark.parametrize("wrong", [{"weights_s": -1e-3}, {"corner": 0.5}, {"pair_s": np.nan}])
def test_a_number_that_would_shorten_steps_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        alone(**wrong)


@pytest.mark.parametrize("name", SOME)
@settings(max_examples=30, deadline=None)
@given(counts=STEPS, factor=st.floats(0.5, 3.0))
def test_a_slower_engine_takes_so_many_times_as_long_for_every_step(
    name: str, counts: list[float], factor: float
) -> None:
    engine, step = load(name), np.array(counts)

    slower_s = true_s(engine.slower(factor).step.numbers, step)

    assert slower_s == pytest.approx(factor * true_s(engine.step.numbers, step))
