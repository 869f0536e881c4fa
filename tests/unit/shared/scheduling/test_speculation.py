import itertools
import math

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
    bought,
    produced_of,
)

Pieces = tuple[tuple[float, float, float], ...]
OPT_6_7B: Pieces = (6.878e-5, 1.249e-6, 2.480e-2), (7.523e-5, 3.465e-3, 3.033e-3)
OPT_13B: Pieces = (7.213e-5, 3.341e-3, 3.173e-2), (0.0, 3.014e-3, 1.2e-5)
TIGHT_S, LOOSE_S = 0.049, 0.099


def engine(pieces: Pieces = OPT_6_7B, most_drafts: int = 9, most_tokens: int = 16_384) -> Engine:
    """The paper counts the verified tokens as speculation steps, we the drafts, one less."""
    coefficients = tuple(x for k1, k2, b in pieces for x in (b + k2, k1, k2))
    table = StepTable.of(StepCurve(form=PAPER, coefficients=coefficients))
    return Engine(table=table, most_drafts=most_drafts, most_tokens=most_tokens)


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
    assert plan.prefill_per_s == plan.plain_per_s
    # Within a token of each step, which takes no longer than the tightest pace.
    assert plan.plain_per_s == pytest.approx(per_s, abs=1 / TIGHT_S)


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
    produced = produced_of(tiers, here, Caution.FLOOR)
    papers = bought((8, 3), tiers, here, produced)

    assert papers.prefill_tokens == pytest.approx(2056, abs=1)
    assert best_speculation(tiers, here, caution=Caution.FLOOR).prefill_per_s > papers.per_s


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
        most_tokens=draw(st.sampled_from([64, 512, 2048, 16_384])),
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


def full_step(plan: Speculation, tiers: list[Tier]) -> Step:
    """All that the plan computes in one step."""
    decodes = sum(tier.decoding for tier in tiers)
    active = [(t, d) for t, d in zip(tiers, plan.drafts, strict=True) if t.decoding]
    return Step(
        decodes=decodes,
        speculated_tokens=sum(tier.decoding * drafts for tier, drafts in active),
        speculation_steps=max((drafts for _, drafts in active), default=0),
        decode_context_tokens=sum(tier.decoding * tier.context_tokens for tier in tiers),
        longest_context_tokens=max((tier.context_tokens for tier, _ in active), default=0.0),
    ).with_chunk(plan.prefill_tokens)


@given(TIERS, engines(), CAUTIONS)
def test_no_speculation_breaks_a_pace_on_expected_acceptance(
    tiers: list[Tier], here: Engine, caution: Caution
) -> None:
    plan = best_speculation(tiers, here, caution=caution)

    if any(plan.drafts):
        step = full_step(plan, tiers)
        time_s = here.table.sure_s(step)
        assert step.tokens <= here.most_tokens + 1e-6
        for tier, drafts in zip(tiers, plan.drafts, strict=True):
            if tier.decoding:
                allowed_s = tier.tpot_s * produced_tokens(tier.alpha, drafts + 1)
                assert time_s <= allowed_s * (1 + 1e-9)


@given(TIERS, engines(), CAUTIONS)
def test_speculation_buys_at_least_a_twentieth_more_than_plain_decoding(
    tiers: list[Tier], here: Engine, caution: Caution
) -> None:
    plan = best_speculation(tiers, here, caution=caution)

    if any(plan.drafts):
        assert plan.prefill_per_s > 1.05 * plan.plain_per_s > 0
    assert max(plan.drafts) <= here.most_drafts


@given(TIERS, engines(), CAUTIONS, st.floats(0, 0.95))
def test_more_acceptance_never_buys_less(
    tiers: list[Tier], here: Engine, caution: Caution, alpha: float
) -> None:
    more = [
        Tier(
            tpot_s=tier.tpot_s,
            decoding=tier.decoding,
            context_tokens=tier.context_tokens,
            alpha=max(alpha, tier.alpha),
        )
        for tier in tiers
    ]
    if not any(tier.decoding for tier in tiers):
        return
    bought_now = best_speculation(tiers, here, caution=caution).prefill_per_s

    assert best_speculation(more, here, caution=caution).prefill_per_s >= bought_now * (1 - 1e-9)


@given(TIERS, engines(most_drafts=4), CAUTIONS)
def test_enumeration_finds_what_trying_all_lengths_finds(
    tiers: list[Tier], here: Engine, caution: Caution
) -> None:
    if not any(tier.decoding for tier in tiers):
        return
    plan = best_speculation(tiers, here, caution=caution)
    produced = produced_of(tiers, here, caution)
    lengths = range(1, here.most_drafts + 2)
    best = max(
        bought(one, tiers, here, produced).per_s
        for one in itertools.product(lengths, repeat=len(tiers))
    )

    if plan.plain_per_s > 0 and best > 1.05 * plan.plain_per_s:
        assert plan.prefill_per_s == pytest.approx(best)
    else:
        assert not any(plan.drafts)


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


def test_nobody_speculates_when_plain_decoding_leaves_nothing() -> None:
    tiers = two_tiers(0.95, 400, 0)
    plan = best_speculation(tiers, engine())

    assert plan.plain_per_s == 0
    assert plan.drafts == (0, 0)


def test_an_engine_that_cannot_speculate_does_not() -> None:
    assert best_speculation(two_tiers(0.9, 10, 20), engine(most_drafts=0)).drafts == (0, 0)


def test_drafts_in_force_are_kept_until_others_buy_three_tenths_more() -> None:
    tiers, here = two_tiers(0.6, 10, 20), engine()
    produced = produced_of(tiers, here, Caution.EXPECTED)
    best, near, far = (
        bought((tight + 1, loose + 1), tiers, here, produced).per_s
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

    assert best_speculation(nobody_asks, engine()).drafts[0] > 2
    assert best_speculation(costly, engine(OPT_13B)).drafts == (0,)


def test_those_without_a_pace_leave_speculation_to_those_with_one() -> None:
    tiers = [*two_tiers(0.6, 10, 20), Tier(tpot_s=math.inf, decoding=8, alpha=0.9)]

    assert best_speculation(tiers, engine()).drafts == (3, 1, 0)
