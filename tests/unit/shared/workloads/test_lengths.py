"""Distributions keep their quantiles, and exchanging answers changes none of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.workloads.arrivals import AZURE_CODE, POISSON, Arrivals
from shared.workloads.lengths import (
    QUANTILES,
    Lengths,
    correlated,
    even,
    fitted,
    levels,
    log_normal,
    picked,
)


def drawing(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=50))
def test_every_score_has_a_level_of_its_own_in_the_same_order(scores: list[float]) -> None:
    found = levels(drawing(), np.array(scores))
    assert sorted(np.floor(found * len(scores)).tolist()) == list(range(len(scores)))
    ordered = found[np.argsort(scores, kind="stable")]
    assert np.all(np.diff(ordered) > 0)


@given(st.floats(0, 1))
def test_a_drawn_length_lies_between_its_quantiles(level: float) -> None:
    lengths = log_normal(median=100, sigma=0.8, least=5, most=900)
    place = int(np.searchsorted(QUANTILES, level, side="right")) - 1
    found = float(lengths.values(np.array([level]))[0])
    later = min(place + 1, len(QUANTILES) - 1)
    assert lengths.tokens[place] - 1e-6 <= found <= lengths.tokens[later] + 1e-6


def test_a_log_normal_has_its_median_and_its_bounds() -> None:
    lengths = log_normal(median=100, sigma=2.0, least=5, most=900)
    assert lengths.drawn(np.array([0.0, 0.5, 1.0])).tolist() == [5, 100, 900]
    assert lengths.most == 900


@pytest.mark.parametrize("tokens", [(20, 10), (10,), (0, 10)])
def test_quantiles_that_cannot_be_are_refused(tokens: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"ascending|at least 1"):
        Lengths(tokens=tokens, at=(0.0, 1.0))


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.6])
def test_correlated_levels_are_correlated_so_much(correlation: float) -> None:
    first, second = correlated(drawing(), 20_000, correlation)
    expected = 6 / np.pi * np.arcsin(correlation / 2)
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(expected, abs=0.02)


def test_shares_are_kept_to_one_program() -> None:
    found = np.bincount(picked((2, 41, 7), even(drawing(), 500)))
    assert found == pytest.approx(np.array([20, 410, 70]), abs=1)


def test_answers_are_exchanged_until_they_fit_and_stay_the_same_answers() -> None:
    draw = drawing()
    prompts, answers = draw.integers(1, 1500, 2000), draw.integers(1, 900, 2000)
    found = fitted(draw, prompts, answers, 2000)
    assert np.any(prompts + answers > 2000)
    assert np.all(prompts + found <= 2000)
    assert sorted(found.tolist()) == sorted(answers.tolist())


def test_an_answer_that_fits_no_prompt_is_cut() -> None:
    found = fitted(drawing(), np.array([90, 95]), np.array([60, 50]), 100)
    assert found.tolist() == [10, 5]


@pytest.mark.parametrize("arrivals", [POISSON, AZURE_CODE])
@pytest.mark.parametrize("count", [1, 2, 500])
def test_arrivals_are_ascending_and_within_the_time(arrivals: Arrivals, count: int) -> None:
    times = arrivals.times(drawing(), count)
    assert len(times) == count
    assert 0 < times[0] <= times[-1] < 1
    assert np.all(np.diff(times) > 0)


def test_brisk_and_slow_spells_make_bursts_longer() -> None:
    steady = Arrivals(name="steady", gaps=AZURE_CODE.gaps, at=AZURE_CODE.at)

    def dispersion(arrivals: Arrivals) -> float:
        """In ten seconds at the rate of the trace, the median of some seeds."""
        found = []
        for seed in range(5):
            counts = np.bincount((arrivals.times(drawing(seed), 8819) * 343.6).astype(int))
            found.append(float(counts.var() / counts.mean()))
        return sorted(found)[2]

    assert dispersion(steady) < 58 < 62 < dispersion(AZURE_CODE)
