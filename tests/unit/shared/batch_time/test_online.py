"""The fit of step times: what it knows, when, and what it is not shaken by."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.batch_time import BatchTimeModel, Kind, Step, StepCost, fit_curve
from shared.batch_time.forms import RICH
from shared.engines import StepReport

COST = StepCost(
    fixed_s=0.02, per_prefill_token_s=0.001, per_decode_token_s=0.002, per_context_token_s=2e-6
)


def make_step(
    prefill_tokens: int, decode_tokens: int, context_tokens: int, duration_s: float
) -> StepReport:
    step = a_step(prefill_tokens, decode_tokens, context_tokens)
    return StepReport(
        step=1,
        ended_at_s=0.0,
        duration_s=duration_s,
        prefill_tokens=prefill_tokens,
        decode_tokens=decode_tokens,
        decode_context_tokens=round(step.decode_context_tokens),
        chunks=round(step.chunks),
        earlier_tokens=round(step.earlier_tokens),
        attention_pairs=step.attention_pairs,
        longest_prompt_tokens=round(step.longest_prompt_tokens),
        speculated_tokens=0,
        accepted_tokens=0,
        running=1,
        waiting=0,
        queued_prefill_tokens=0,
        free_kv_blocks=0,
    )


def a_step(prefill_tokens: float, decodes: float, context_tokens: float) -> Step:
    """The context is the decodes', or else that of the prompt."""
    step = Step(decodes=decodes, decode_context_tokens=context_tokens if decodes else 0)
    return step.with_chunk(prefill_tokens, 0 if decodes else context_tokens)


def true_time(prefill_tokens: int, decode_tokens: int, context_tokens: int) -> float:
    return (
        COST.fixed_s
        + COST.per_prefill_token_s * prefill_tokens
        + COST.per_decode_token_s * decode_tokens
        + COST.per_context_token_s * context_tokens
    )


def work(steps: int, seed: int = 1) -> list[tuple[int, int, int]]:
    """Mixed steps: most decode only, some compute prompts."""
    chance = random.Random(seed)
    mixed = []
    for _ in range(steps):
        prefill_tokens = chance.choice([0, 0, 0, chance.randint(1, 512)])
        decode_tokens = chance.randint(0 if prefill_tokens else 1, 16)
        mixed.append((prefill_tokens, decode_tokens, decode_tokens * chance.randint(10, 800)))
    return mixed


def test_nothing_is_known_before_a_few_reports_of_its_kind() -> None:
    model = BatchTimeModel()
    for _ in range(2):
        model.observe(make_step(0, 1, 10, 0.03))
    nothing = (
        model.step_time(a_step(1, 0, 0)),
        model.step_time(a_step(0, 1, 0)),
        model.prefill_time(5, 5),
    )

    model.observe(make_step(0, 1, 10, 0.03))

    assert nothing == (None, None, None)
    assert model.step_time(a_step(0, 1, 10)) == pytest.approx(0.03, rel=0.05)
    assert model.prefill_time(100, 512) is None


def test_the_last_token_after_a_transfer_tells_nothing_of_prompts() -> None:
    model = BatchTimeModel()

    for _ in range(100):
        model.observe(make_step(1, 1, 500, 0.03))

    assert model.prefill_time(500, 512) is None
    assert model.step_time(a_step(0, 1, 500)) is not None


def test_a_prior_is_known_from_the_start() -> None:
    model = BatchTimeModel(COST)

    assert model.step_time(a_step(10, 2, 1000)) == pytest.approx(true_time(10, 2, 1000))


def test_a_prompt_takes_one_fixed_cost_per_chunk_and_reads_its_earlier_chunks_again() -> None:
    model = BatchTimeModel(COST)

    seconds = model.prefill_time(1000, 400, a_step(0, 3, 50))

    chunks = [(400, 0), (400, 400), (200, 800)]
    assert seconds == pytest.approx(sum(true_time(n, 3, 50 + before) for n, before in chunks))
    assert model.prefill_time(0, 400) == 0


def test_costs_are_found_in_noise_with_a_first_step_that_compiled() -> None:
    model, chance = BatchTimeModel(), random.Random(2)
    model.observe(make_step(500, 0, 0, 10.0))

    for step in work(400):
        model.observe(make_step(*step, true_time(*step) * chance.gauss(1, 0.1)))

    for step in ((512, 0, 0), (0, 8, 2000), (100, 4, 1000)):
        assert model.step_time(a_step(*step)) == pytest.approx(true_time(*step), rel=0.1)


def test_a_few_normal_steps_outweigh_one_that_compiled() -> None:
    model = BatchTimeModel()
    model.observe(make_step(500, 0, 0, 10.0))

    for tokens in (509, 461, 505):
        model.observe(make_step(tokens, 0, 0, true_time(tokens, 0, 0)))

    assert model.step_time(a_step(512, 0, 0)) == pytest.approx(true_time(512, 0, 0), rel=0.1)


def test_long_decoding_does_not_wipe_out_what_is_known_of_prefill() -> None:
    model = BatchTimeModel()
    for step in work(200):
        model.observe(make_step(*step, true_time(*step)))
    before = model.step_time(a_step(512, 0, 0))

    for i in range(3000):
        model.observe(make_step(0, 1, 100 + i % 500, true_time(0, 1, 100 + i % 500)))

    assert model.step_time(a_step(512, 0, 0)) == pytest.approx(before, rel=0.05)


def test_an_engine_that_became_slower_is_followed() -> None:
    model = BatchTimeModel()
    for factor in (1, 3):
        for step in work(500, seed=factor):
            model.observe(make_step(*step, factor * true_time(*step)))

    assert model.step_time(a_step(256, 4, 1000)) == pytest.approx(
        3 * true_time(256, 4, 1000), rel=0.1
    )


def test_a_profile_knows_all_and_is_corrected_by_the_engine_s_own_steps() -> None:
    steps = [a_step(*counts) for counts in work(400)]
    profile = fit_curve(RICH, steps, [true_time(*counts) for counts in work(400)])
    model = BatchTimeModel(profile)
    before = model.step_time(a_step(256, 4, 1000))

    for counts in work(400, seed=7):
        model.learn(a_step(*counts), 1.4 * true_time(*counts))

    assert before == pytest.approx(true_time(256, 4, 1000), rel=0.05)
    assert model.step_time(a_step(256, 4, 1000)) == pytest.approx(1.4 * (before or 0), rel=0.1)


def test_what_is_promised_holds_for_the_promised_share_of_steps() -> None:
    model, chance = BatchTimeModel(COST, promised=0.9), random.Random(3)
    kept = []
    for counts in work(3000):
        step, seconds = a_step(*counts), true_time(*counts) * chance.lognormvariate(0, 0.15)
        promised_s = model.upper_time(step)
        assert promised_s is not None
        kept.append(seconds <= promised_s)
        model.learn(step, seconds)

    assert sum(kept[1000:]) / len(kept[1000:]) == pytest.approx(0.9, abs=0.03)


def test_a_sure_chunk_is_never_longer_than_an_expected_one() -> None:
    model, chance = BatchTimeModel(COST), random.Random(4)
    for counts in work(500):
        model.learn(a_step(*counts), true_time(*counts) * chance.lognormvariate(0, 0.2))
    beside = a_step(0, 4, 2000)

    sure = model.max_tokens(0.2, beside, sure=True)
    expected = model.max_tokens(0.2, beside)

    assert sure is not None
    assert expected is not None
    assert 0 < sure < expected
    promised_s = model.upper_time(beside.with_chunk(sure))
    assert promised_s is not None
    assert promised_s <= 0.2 * (1 + 1e-9)
    assert model.upper_time(Step()) is not None
    assert Kind.MIXED is beside.with_chunk(sure).kind


def test_nothing_fits_of_what_is_unknown() -> None:
    assert BatchTimeModel().max_tokens(1.0) is None
    assert BatchTimeModel().upper_time(a_step(1, 1, 1)) is None


def test_empty_and_instant_steps_teach_nothing() -> None:
    model = BatchTimeModel()

    model.observe(make_step(0, 0, 0, 1.0))
    model.observe(make_step(10, 1, 5, 0.0))

    assert model.step_time(a_step(0, 1, 0)) is None


steps = st.builds(
    make_step,
    st.integers(0, 8192),
    st.integers(0, 256),
    st.integers(0, 10**6),
    st.floats(1e-6, 1e3),
)


@given(st.lists(steps, max_size=30), st.integers(1, 8192), st.integers(1, 256))
def test_times_are_never_negative_and_more_work_never_takes_less(
    reports: list[StepReport], tokens: int, chunk: int
) -> None:
    model = BatchTimeModel(COST)
    for report in reports:
        model.observe(report)

    little, much = model.step_time(a_step(tokens, 1, 0)), model.step_time(a_step(tokens + 1, 2, 10))
    assert little is not None
    assert much is not None
    assert 0 <= little <= much
    short, long = model.prefill_time(tokens, chunk), model.prefill_time(tokens + 1, chunk)
    assert short is not None
    assert long is not None
    assert 0 <= short <= long * (1 + 1e-9)
