import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.engines import Drafts
from shared.scheduling.acceptance import Acceptance, Caution, produced_tokens

ALPHAS = st.floats(0, 0.999)
CAUTIONS = st.sampled_from(Caution)


def drafts(verifications: int, each: int, accepted: int, class_name: str = "code") -> Drafts:
    return Drafts(
        class_name=class_name,
        verifications=verifications,
        drafted_tokens=verifications * each,
        accepted_tokens=accepted,
    )


def accepted_at(alpha: float, verifications: int, each: int, seed: int = 1) -> Drafts:
    """What an engine would report: each draft counts if it and all before it are accepted."""
    chance = random.Random(seed)
    accepted = 0
    for _ in range(verifications):
        for _ in range(each):
            if chance.random() >= alpha:
                break
            accepted += 1
    return drafts(verifications, each, accepted)


@pytest.mark.parametrize(
    ("alpha", "verified", "tokens"),
    [(0.0, 5, 1.0), (0.6, 4, 2.176), (0.6, 2, 1.6), (0.8, 3, 2.44), (0.5, 4, 1.875), (0.9, 1, 1.0)],
)
def test_a_step_yields_what_the_paper_says(alpha: float, verified: int, tokens: float) -> None:
    assert produced_tokens(alpha, verified) == pytest.approx(tokens)


@given(ALPHAS, st.integers(1, 11), CAUTIONS)
def test_no_caution_counts_on_more_than_is_expected_or_less_than_one(
    alpha: float, verified: int, caution: Caution
) -> None:
    expected = produced_tokens(alpha, verified)

    assert 1 <= produced_tokens(alpha, verified, caution) <= expected + 1e-9


@given(ALPHAS, ALPHAS, st.integers(1, 10), CAUTIONS)
def test_more_acceptance_and_longer_drafts_never_yield_less(
    one: float, other: float, verified: int, caution: Caution
) -> None:
    low, high = sorted((one, other))
    least = produced_tokens(low, verified, caution) - 1e-9

    assert produced_tokens(high, verified, caution) >= least
    assert produced_tokens(low, verified + 1, caution) >= least


def test_the_low_count_is_reached_in_nine_of_ten_windows() -> None:
    chance, alpha, verified, window = random.Random(7), 0.7, 5, 5
    low = produced_tokens(alpha, verified, Caution.LOW)

    def one() -> int:
        produced = 1
        while produced < verified and chance.random() < alpha:
            produced += 1
        return produced

    runs = 4000
    reached = sum(sum(one() for _ in range(window)) >= window * low - 1e-9 for _ in range(runs))
    assert 0.89 < reached / runs < 1.0


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("each", [1, 3, 8])
def test_what_engines_count_teaches_the_acceptance_behind_it(alpha: float, each: int) -> None:
    learned = Acceptance()
    learned.observe([accepted_at(alpha, 4000, each)], now=0.0)

    assert learned.alpha("code", 0.0) == pytest.approx(alpha, abs=0.03)
    assert learned.cautious_alpha("code", 0.0) < learned.alpha("code", 0.0)
    assert learned.cautious_alpha("code", 0.0) == pytest.approx(alpha, abs=0.06)


def test_a_class_that_nothing_is_known_of_has_the_prior_and_is_not_trusted() -> None:
    learned = Acceptance(prior=0.6)

    assert learned.alpha("new", 0.0) == 0.6
    assert learned.cautious_alpha("new", 0.0) < 0.5


def test_classes_are_learned_apart() -> None:
    learned = Acceptance()
    learned.observe([drafts(1000, 3, 2900, "code"), drafts(1000, 3, 100, "chat")], now=0.0)

    assert learned.alpha("code", 0.0) > 0.9
    assert learned.alpha("chat", 0.0) < 0.2


def test_what_was_learned_fades_back_to_the_prior() -> None:
    learned = Acceptance(prior=0.6, half_life_s=60.0)
    learned.observe([drafts(1000, 3, 0)], now=0.0)
    bad = learned.alpha("code", 0.0)

    assert bad < 0.05
    assert learned.alpha("code", 600.0) > bad
    assert learned.alpha("code", 3600.0) == pytest.approx(0.6, abs=0.01)


def test_newer_counts_outweigh_older_ones() -> None:
    learned = Acceptance(half_life_s=60.0)
    learned.observe([accepted_at(0.9, 1000, 3)], now=0.0)
    learned.observe([accepted_at(0.2, 1000, 3)], now=600.0)

    assert learned.alpha("code", 600.0) == pytest.approx(0.2, abs=0.05)


@given(
    st.integers(1, 10_000),
    st.integers(1, 10),
    st.floats(0, 1),
    st.floats(0.1, 0.9),
    st.floats(0, 1e4),
)
def test_an_estimate_is_a_chance_whatever_was_counted(
    verifications: int, each: int, share: float, prior: float, now: float
) -> None:
    learned = Acceptance(prior=prior)
    learned.observe([drafts(verifications, each, int(share * verifications * each))], now=0.0)

    assert 0 <= learned.cautious_alpha("code", now) <= learned.alpha("code", now) < 1


@given(st.integers(1, 1000), st.integers(1, 8), st.integers(0, 8000), st.integers(0, 8000))
def test_more_accepted_drafts_never_teach_less_acceptance(
    verifications: int, each: int, one: int, other: int
) -> None:
    most = verifications * each
    fewer, more = sorted((min(one, most), min(other, most)))
    learned = [Acceptance(), Acceptance()]
    for each_learned, accepted in zip(learned, (fewer, more), strict=True):
        each_learned.observe([drafts(verifications, each, accepted)], now=0.0)

    assert learned[0].alpha("code", 0.0) <= learned[1].alpha("code", 0.0) + 1e-9


def test_only_so_many_classes_are_kept_the_last_seen_ones() -> None:
    learned = Acceptance(prior=0.6, most_classes=2)
    for name in ("a", "b", "c"):
        learned.observe([drafts(1000, 2, 0, name)], now=0.0)

    assert learned.alpha("a", 0.0) == 0.6
    assert learned.alpha("c", 0.0) < 0.1
