"""Drift is believed upwards, slowly given up, and bounded; margins keep what they promise."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.batch_time import Kind
from shared.batch_time.margins import Drift, Margins

ratios = st.lists(st.floats(0.01, 100), max_size=200)


def drifted(*ratios: float) -> float:
    drift = Drift()
    for ratio in ratios:
        drift.observe(ratio)
    return drift.factor


@given(ratios)
def test_a_correction_never_shortens_a_time_and_is_bounded(given: list[float]) -> None:
    assert 1.0 <= drifted(*given) <= 1.5


def test_a_slower_engine_is_followed_and_a_recovered_one_too() -> None:
    assert drifted(*[1.2] * 100) == pytest.approx(1.2, abs=0.01)
    assert drifted(*[1.2] * 100, *[1.0] * 300) == pytest.approx(1.0, abs=0.01)


def test_slowness_is_believed_sooner_than_recovery() -> None:
    slow = drifted(*[1.2] * 20)
    recovered = drifted(*[1.2] * 100, *[1.0] * 20)

    assert slow - 1.0 > 1.2 - recovered


def test_one_step_that_compiled_hardly_counts() -> None:
    assert drifted(1000.0) < 1.05


@settings(max_examples=20)
@given(st.sampled_from([0.5, 0.8, 0.9, 0.95]), st.integers(0, 100))
def test_a_margin_is_kept_as_often_as_promised(level: float, seed: int) -> None:
    margins, chance = Margins(level), random.Random(seed)
    kept = []
    for _ in range(4000):
        ratio = chance.lognormvariate(0.1, 0.2)
        kept.append(ratio <= margins.of(Kind.DECODE))
        margins.observe(Kind.DECODE, ratio)

    assert sum(kept[1000:]) / 3000 == pytest.approx(level, abs=0.04)


@given(ratios)
def test_kinds_have_margins_of_their_own_which_are_bounded(given: list[float]) -> None:
    margins = Margins(0.9, {Kind.PREFILL: 1.3})
    for ratio in given:
        margins.observe(Kind.DECODE, ratio)

    assert 1.0 <= margins.of(Kind.DECODE) <= 3.0
    assert margins.of(Kind.PREFILL) == 1.3


@given(st.lists(st.tuples(st.sampled_from(Kind), st.floats(0.1, 10)), max_size=200))
def test_a_mixed_step_is_never_promised_sooner_than_its_parts(
    given: list[tuple[Kind, float]],
) -> None:
    margins = Margins(0.9)
    for kind, ratio in given:
        margins.observe(kind, ratio)

    assert margins.of(Kind.MIXED) >= max(margins.of(kind) for kind in Kind)
