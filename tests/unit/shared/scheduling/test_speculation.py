import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.batch_time import PAPER, RICH, Step, StepCurve, StepTable
from shared.scheduling.acceptance import Caution, produced_tokens
from shared.scheduling.speculation import (
    Engine,
    Speculation,
    Tier,
    best_speculation,
    plan_of,
    quickest_alone,
)

Pieces = tuple[tuple[float, float, float], ...]
OPT_6_7B: Pieces = (6.878e-5, 1.249e-6, 2.480e-2), (7.523e-5, 3.465e-3, 3.033e-3)
OPT_13B: Pieces = (7.213e-5, 3.341e-3, 3.173e-2), (0.0, 3.014e-3, 1.2e-5)
COSTLY_DRAFTS: Pieces = (7.213e-5, 1e-2, 3.173e-2), (0.0, 0.0, 0.0)
TIGHT_S, LOOSE_S = 0.049, 0.099


def engine(pieces: Pieces = OPT_6_7B, **changed: Any) -> Engine:
    """The paper counts the verified tokens as speculation steps, we the drafts, one less."""
    coefficients = tuple(x for k1, k2, b in pieces for x in (b + k2, k1, k2))
    table = StepTable.of(StepCurve(form=PAPER, coefficients=coefficients))
    return Engine(table=table, **({"most_drafts": 9, "most_tokens": 16_384} | changed))


def two_tiers(alpha: float, tight: int, loose: int) -> list[Tier]:
    return [
        Tier(tpot_s=TIGHT_S, decoding=tight, alpha=alpha),
        Tier(tpot_s=LOOSE_S, decoding=loose, alpha=alpha),
    ]


@pytest.mark.parametrize(
    ("decoding", "per_s"),
    [((10, 20), 6757), ((30, 0), 6551), ((30, 60), 5945), ((0, 30), 10_586)],
)
def test_plain_decoding_leaves_what_the_paper_says(decoding: tuple[int, int], per_s: int) -> None:
    plan = best_speculation(two_tiers(0.0, *decoding), engine())

    assert plan.drafts == (0, 0)
    # Within a token of each step, which takes no longer than the tightest pace.
    assert plan.prefill_per_s == pytest.approx(per_s, abs=1 / TIGHT_S)


@pytest.mark.parametrize(
    ("alpha", "decoding", "drafts", "step_s", "per_s"),
    [
        (0.5, (10, 20), (3, 0), 0.092, 9959),
        (0.6, (10, 20), (3, 1), 0.107, 10_401),
        (0.6, (30, 0), (3, 0), 0.107, 10_026),
        (0.7, (30, 60), (3, 1), 0.124, 9547),
        (0.8, (10, 20), (3, 1), 0.145, 11_186),
        (0.8, (0, 30), (0, 2), 0.242, 12_179),
    ],
)
def test_expected_acceptance_buys_what_the_paper_says(
    alpha: float,
    decoding: tuple[int, int],
    drafts: tuple[int, int],
    step_s: float,
    per_s: int,
) -> None:
    plan = best_speculation(two_tiers(alpha, *decoding), engine())

    assert plan.drafts == drafts
    assert plan.step_s == pytest.approx(step_s, abs=0.0007)
    assert plan.prefill_per_s == pytest.approx(per_s, abs=1 / step_s)


@pytest.mark.parametrize(
    ("alpha", "decoding", "drafts", "tokens", "per_s"),
    [
        (0.6, (10, 20), (3, 0), 1004, 10_245),
        (0.6, (30, 0), (3, 0), 944, 9633),
        (0.7, (30, 60), (2, 0), 914, 9327),
        (0.8, (0, 30), (0, 2), 2363, 11_934),
    ],
)
def test_whole_tokens_of_it_buy_what_the_paper_says(
    alpha: float, decoding: tuple[int, int], drafts: tuple[int, int], tokens: int, per_s: int
) -> None:
    plan = best_speculation(two_tiers(alpha, *decoding), engine(), caution=Caution.FLOOR)

    assert plan.drafts == drafts
    assert plan.prefill_tokens == tokens
    assert plan.prefill_per_s == pytest.approx(per_s, abs=1 / plan.step_s)


def test_lengths_chosen_by_the_counts_in_force_beat_the_papers_which_mixes_two_counts() -> None:
    tiers, here = two_tiers(0.8, 10, 20), engine()
    papers = plan_of((8, 3), tiers, here, Caution.FLOOR)
    ours = best_speculation(tiers, here, caution=Caution.FLOOR)

    assert papers.prefill_tokens == pytest.approx(2056, abs=1)
    assert ours.prefill_per_s > papers.prefill_per_s


def test_half_accepted_buys_nothing_in_whole_tokens() -> None:
    plan = best_speculation(two_tiers(0.5, 10, 20), engine(), caution=Caution.FLOOR)

    assert plan.drafts == (0, 0)


# ---- laws


@st.composite
def engines(draw: st.DrawFn, most_drafts: int = 5) -> Engine:
    """Of either form: what a step always costs, then small costs of everything else."""
    form = draw(st.sampled_from([PAPER, RICH]))
    weights = [
        draw(st.floats(1e-3, 3e-2)) if feature == 0 else draw(st.floats(0, 1)) * _scale(feature)
        for feature in form.columns
    ]
    return Engine(
        table=StepTable.of(StepCurve(form=form, coefficients=tuple(weights))),
        most_drafts=draw(st.integers(0, most_drafts)),
        most_tokens=draw(st.sampled_from([256, 512, 2048, 16_384])),
        prompt_tokens_each=draw(st.sampled_from([0.0, 0.5, 5.0, 100.0, math.inf])),
        longest_step_s=draw(st.sampled_from([0.03, 0.2, math.inf])),
    )


def _scale(feature: int) -> float:
    """What makes each feature cost about a millisecond in a usual step."""
    return (0, 1e-4, 3e-3, 1e-4, 1e-4, 1e-4, 1e-7, 1e-7, 1e-8, 1e-7, 1e-7, 1e-6)[feature]


TIERS = st.lists(
    st.builds(
        Tier,
        tpot_s=st.sampled_from([0.02, 0.049, 0.1, 0.25]),
        decoding=st.integers(0, 60),
        context_tokens=st.floats(0, 2000),
        alpha=st.floats(0, 0.95),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda tier: tier.tpot_s,
)
CAUTIONS = st.sampled_from(Caution)


def keeps(plan: Speculation, tiers: list[Tier], here: Engine, caution: Caution) -> bool:
    """Whether its steps without prefills are no longer than each tier can wait for what they yield;
    looser tiers may sit out steps.
    """
    active = [(t, d) for t, d in zip(tiers, plan.drafts, strict=True) if t.decoding]
    waits_s = [tier.tpot_s * produced_tokens(tier.alpha, d + 1, caution) for tier, d in active]
    if not active:
        return True
    every = [1.0] * len(active)
    some = [min(waits_s) / wait_s for wait_s in waits_s]
    step_s = min(here.table.sure_s(decodes_of(active, shares)) for shares in (every, some))
    return step_s <= min(waits_s) * (1 + 1e-9)


def decodes_of(active: list[tuple[Tier, int]], shares: list[float]) -> Step:
    """A step with such a share of the requests of each tier and their drafts."""
    parts = [
        (tier.decoding * share, drafts, tier.context_tokens)
        for (tier, drafts), share in zip(active, shares, strict=True)
    ]
    return Step(
        decodes=sum(decodes for decodes, _, _ in parts),
        speculated_tokens=sum(decodes * drafts for decodes, drafts, _ in parts),
        speculation_steps=max(drafts for _, drafts, _ in parts),
        decode_context_tokens=sum(decodes * context for decodes, _, context in parts),
        longest_context_tokens=max(context for _, _, context in parts),
    )


def every_plan(tiers: list[Tier], here: Engine, caution: Caution) -> list[Speculation]:
    lengths = range(1, here.most_drafts + 2)
    return [
        plan_of(one, tiers, here, caution) for one in itertools.product(lengths, repeat=len(tiers))
    ]


@given(TIERS, engines(most_drafts=3), CAUTIONS)
def test_paces_are_kept_wherever_drafts_of_one_length_for_all_can_keep_them(
    tiers: list[Tier], here: Engine, caution: Caution
) -> None:
    plan = best_speculation(tiers, here, caution=caution)
    uniform = [
        plan_of((length,) * len(tiers), tiers, here, caution)
        for length in range(1, here.most_drafts + 2)
    ]

    if any(keeps(one, tiers, here, caution) for one in uniform):
        assert keeps(plan, tiers, here, caution)
    assert max(plan.drafts) <= here.most_drafts


@given(TIERS, engines(), CAUTIONS)
def test_drafts_leave_a_twentieth_more_for_prompts_that_never_end_or_keep_paces(
    tiers: list[Tier], here: Engine, caution: Caution
) -> None:
    here = replace(here, prompt_tokens_each=math.inf)
    plan = best_speculation(tiers, here, caution=caution)
    plain = plan_of((1,) * len(tiers), tiers, here, caution)

    if any(plan.drafts) and keeps(plain, tiers, here, caution):
        assert keeps(plan, tiers, here, caution)
        assert plan.prefill_per_s > 1.05 * plain.prefill_per_s


@given(TIERS.filter(lambda tiers: len(tiers) == 1), engines(), CAUTIONS)
def test_without_prompts_drafts_produce_a_twentieth_more_tokens_or_keep_the_pace(
    tiers: list[Tier], here: Engine, caution: Caution
) -> None:
    here = replace(here, prompt_tokens_each=0.0)
    plan = best_speculation(tiers, here, caution=caution)
    plain = plan_of((1,), tiers, here, caution)

    if any(plan.drafts) and keeps(plain, tiers, here, caution):
        gain = produced_tokens(tiers[0].alpha, plan.drafts[0] + 1, caution)
        assert gain / plan.step_s > 1.05 / plain.step_s


@given(TIERS, engines(most_drafts=3), CAUTIONS)
def test_no_other_lengths_that_keep_the_paces_leave_much_more_for_prefills(
    tiers: list[Tier], here: Engine, caution: Caution
) -> None:
    here = replace(here, prompt_tokens_each=math.inf)
    plan = best_speculation(tiers, here, caution=caution)
    able = [one for one in every_plan(tiers, here, caution) if keeps(one, tiers, here, caution)]
    if any(tier.decoding for tier in tiers) and able:
        best = max(one.prefill_per_s for one in able)

        assert plan.prefill_per_s >= best / 1.06


@given(TIERS, engines(most_drafts=3), CAUTIONS)
def test_no_plan_has_longer_steps_for_prompts_than_the_engine_may_form(
    tiers: list[Tier], here: Engine, caution: Caution
) -> None:
    for plan in (best_speculation(tiers, here, caution=caution), *every_plan(tiers, here, caution)):
        assert plan.prefill_tokens == 0 or plan.step_s <= here.longest_step_s


def test_drafts_that_pay_only_in_longer_steps_are_not_planned() -> None:
    tiers, here = [Tier(tpot_s=0.1, decoding=30, alpha=0.8)], engine(OPT_13B)
    long, short = (
        best_speculation(tiers, replace(here, longest_step_s=longest_s))
        for longest_s in (math.inf, 0.12)
    )
    lengths = (long.drafts[0] + 1,)
    cut = plan_of(lengths, tiers, replace(here, longest_step_s=0.12))

    assert long.drafts[0] > short.drafts[0]
    assert cut.prefill_per_s < short.prefill_per_s < long.prefill_per_s


def test_requests_skip_steps_that_prompts_may_not_lengthen_to_their_pace() -> None:
    tiers, here = [Tier(tpot_s=0.1, decoding=50, alpha=0.8)], engine(OPT_13B, longest_step_s=0.06)
    plan = plan_of((4,), tiers, here)
    everyone = Step(decodes=50, speculated_tokens=150, speculation_steps=3)
    a_token_s = here.table.sure_s(Step().with_chunk(2)) - here.table.sure_s(Step().with_chunk(1))

    assert here.table.sure_s(everyone) < plan.step_s <= 0.06
    assert plan.prefill_tokens > 2 * (0.06 - here.table.sure_s(everyone)) / a_token_s


def test_a_chunk_is_the_best_of_all_chunks() -> None:
    """Where attention makes long chunks slow, a step ends before its time."""
    coefficients = [0.0] * len(RICH.columns)
    coefficients[0], coefficients[1] = 0.01, 1e-5
    coefficients[RICH.columns.index(8)] = 1e-7
    table = StepTable.of(StepCurve(form=RICH, coefficients=tuple(coefficients)))
    here = Engine(table=table, most_drafts=0, most_tokens=4096)
    plan = best_speculation([Tier(tpot_s=0.5, decoding=4)], here)

    rates = [tokens / table.sure_s(Step(decodes=4).with_chunk(tokens)) for tokens in range(1, 4097)]
    assert plan.prefill_per_s == pytest.approx(max(rates))
    assert plan.step_s < 0.5


def test_drafts_hold_a_pace_that_is_too_tight_for_plain_decoding() -> None:
    tight = [Tier(tpot_s=0.02, decoding=1, alpha=0.7)]
    assert engine().table.sure_s(Step(decodes=1)) > 0.02

    plan = best_speculation(tight, engine(prompt_tokens_each=1.0))

    assert plan.drafts[0] > 0
    assert plan.step_s <= 0.02 * produced_tokens(0.7, plan.drafts[0] + 1)


def test_a_loose_pace_drafts_for_as_long_as_drafts_complete_more_work() -> None:
    loose = [Tier(tpot_s=0.5, decoding=8, alpha=0.7)]

    assert best_speculation(loose, engine(prompt_tokens_each=1.0)).drafts[0] >= 3
    assert best_speculation(loose, engine()).drafts == (0,)  # prompts that never end


def test_one_request_alone_drafts_as_long_as_it_decodes_faster() -> None:
    table = engine().table
    alone = quickest_alone(table, 9, context_tokens=0.0, alpha=0.7)

    assert quickest_alone(table, 0, context_tokens=0.0, alpha=0.7).tpot_s == pytest.approx(
        table.decodes_s(1, 0)
    )
    assert alone.drafts > 0
    assert alone.gain == produced_tokens(0.7, alone.drafts + 1)
    assert alone.tpot_s < table.decodes_s(1, 0)
    assert quickest_alone(table, 9, context_tokens=0.0, alpha=0.0).drafts == 0


def test_an_engine_that_cannot_speculate_does_not() -> None:
    assert best_speculation(two_tiers(0.9, 10, 20), engine(most_drafts=0)).drafts == (0, 0)


def test_drafts_in_force_are_kept_until_others_are_worth_three_tenths_more() -> None:
    tiers, here = two_tiers(0.6, 10, 20), engine()
    best, near, far = (
        plan_of((tight + 1, loose + 1), tiers, here).prefill_per_s
        for tight, loose in ((3, 1), (7, 5), (7, 7))
    )
    assert 1.05 * near < best < 1.3 * near
    assert best > 1.3 * far

    assert best_speculation(tiers, here).drafts == (3, 1)
    assert best_speculation(tiers, here, before=(7, 5)).drafts == (7, 5)
    assert best_speculation(tiers, here, before=(7, 7)).drafts == (3, 1)


def test_a_plan_in_force_ends_as_soon_as_plain_decoding_buys_more() -> None:
    tiers = two_tiers(0.02, 10, 20)

    assert best_speculation(tiers, engine(), before=(3, 1)).drafts == (0, 0)


def test_a_plan_of_other_tiers_or_too_long_drafts_is_not_kept() -> None:
    tiers = two_tiers(0.6, 10, 20)

    assert best_speculation(tiers, engine(), before=(3,)).drafts == (3, 1)
    assert max(best_speculation(tiers, engine(most_drafts=2), before=(3, 1)).drafts) <= 2


def test_without_a_pace_drafts_are_as_long_as_they_produce_more() -> None:
    nobody_asks = [Tier(tpot_s=math.inf, decoding=8, alpha=0.8)]
    costly = [Tier(tpot_s=math.inf, decoding=500, alpha=0.2)]

    assert best_speculation(nobody_asks, engine(prompt_tokens_each=0.0)).drafts[0] > 2
    assert best_speculation(costly, engine(OPT_13B, prompt_tokens_each=0.0)).drafts == (0,)


def test_those_without_a_pace_leave_speculation_to_those_with_one() -> None:
    tiers = [*two_tiers(0.6, 10, 20), Tier(tpot_s=math.inf, decoding=8, alpha=0.9)]

    assert best_speculation(tiers, engine()).drafts == (3, 1, 0)


def test_drafts_of_poor_luck_are_better_than_steps_that_leave_no_time_for_prompts() -> None:
    """A pace just above a plain step: few drafts are accepted, but on average they make room."""
    here = engine(OPT_13B, most_drafts=4)
    plain_s = here.table.sure_s(Step(decodes=2))
    low = Tier(tpot_s=1.002 * plain_s, decoding=2, alpha=0.36)

    plan = best_speculation([low], here, guard=Caution.LOW)

    assert plan_of((1,), [low], here).prefill_tokens == 0
    assert produced_tokens(low.alpha, plan.drafts[0] + 1, Caution.LOW) == 1
    assert plan.prefill_tokens > 0


@pytest.mark.parametrize(("most_waits", "drafts"), [(0.5, 0), (1.0, 0), (100.0, 2)])
def test_drafts_are_as_long_as_suits_prompts_that_wait_for_the_step(
    most_waits: float, drafts: int
) -> None:
    """Two drafts yield 0.96 of a token and lengthen the step by more than half; `most_waits` is in
    plain steps.
    """
    here = engine(COSTLY_DRAFTS, most_drafts=3, prompt_tokens_each=0.0)
    unpaced = Tier(tpot_s=math.inf, decoding=5, alpha=0.6)
    waits_s = most_waits * here.table.sure_s(Step(decodes=5))

    plan = best_speculation([unpaced], replace(here, prompt_waits=np.array([[1.0, waits_s]])))

    assert plan.drafts == (drafts,)


def test_prompts_that_are_late_in_any_case_shorten_no_drafts() -> None:
    here = engine(OPT_13B, most_drafts=3)
    tiers = two_tiers(0.8, 5, 5)
    late = replace(here, prompt_waits=np.array([[1.0, -0.1], [2.0, 0.0]]))

    assert best_speculation(tiers, late) == best_speculation(tiers, here)
