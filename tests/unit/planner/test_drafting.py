"""The drafts that planning counts on for new requests."""

import math

import numpy as np

from services.planner.estimators.drafting import Drafting, Drafts
from shared.scheduling.rows import DRAFT, TOKENS_PER_STEP, Rows, new_row

PRIOR = Drafts(tokens=2.0, gain=1.9)


def decoding(count: int, *, tpot_s: float, draft: float, gain: float) -> Rows:
    row = new_row(
        tokens=50, computed=49, produced=9, left=90, tpot_s=tpot_s, draft=draft, gain=gain
    )
    return np.vstack([row] * count)


def test_where_nothing_was_seen_the_prior_is_counted_on() -> None:
    drafting = Drafting()
    rows = new_row(tokens=50, left=90, tpot_s=0.05)[None]
    drafting.count_on(rows, PRIOR)
    assert drafting.of(0.05, PRIOR) == drafting.about(0.05, PRIOR) == PRIOR
    assert (rows[0, DRAFT], rows[0, TOKENS_PER_STEP]) == (2.0, 1.9)


def test_a_tier_comes_to_what_its_requests_get_those_without_a_draft_counted() -> None:
    drafting = Drafting()
    rows = np.vstack(
        [
            decoding(3, tpot_s=0.05, draft=4, gain=3.0),
            decoding(1, tpot_s=0.05, draft=0, gain=3.0),
            decoding(2, tpot_s=0.1, draft=2, gain=1.5),
        ]
    )
    for _ in range(200):
        drafting.observe(rows)
    assert np.isclose(drafting.of(0.05, PRIOR).tokens, 3.0)
    assert np.isclose(drafting.of(0.05, PRIOR).gain, 2.5)
    assert np.isclose(drafting.of(0.1, PRIOR).gain, 1.5)
    assert drafting.of(math.inf, PRIOR) == PRIOR


def test_prompts_tell_nothing_of_drafts() -> None:
    drafting = Drafting()
    drafting.observe(np.vstack([new_row(tokens=50, left=90, tpot_s=0.05, draft=4, gain=3.0)]))
    assert drafting.of(0.05, PRIOR) == PRIOR


def test_a_prompt_counts_on_the_drafts_of_its_tier_and_a_decode_on_its_own() -> None:
    drafting = Drafting()
    for _ in range(200):
        drafting.observe(decoding(3, tpot_s=0.05, draft=4, gain=3.0))
    rows = np.vstack(
        [new_row(tokens=50, left=90, tpot_s=0.05), decoding(1, tpot_s=0.05, draft=1, gain=1.5)]
    )
    drafting.count_on(rows, PRIOR)
    assert np.allclose(rows[:, DRAFT], [4.0, 1.0])
    assert np.allclose(rows[:, TOKENS_PER_STEP], [3.0, 1.5])


def test_a_tier_slightly_tighter_than_the_promise_tells_of_the_promise() -> None:
    drafting = Drafting()
    drafting.observe(decoding(3, tpot_s=0.04, draft=4, gain=3.0))
    assert drafting.of(0.05, PRIOR) == PRIOR
    assert drafting.about(0.05, PRIOR) == drafting.of(0.04, PRIOR)
    assert drafting.about(0.1, PRIOR) == drafting.about(0.03, PRIOR) == PRIOR


def test_an_unseen_pace_counts_on_the_drafts_of_its_promise() -> None:
    drafting = Drafting()
    drafting.observe(decoding(3, tpot_s=0.1, draft=4, gain=3.0))

    known = drafting.of(0.08, PRIOR, promised_s=0.1)

    assert known == drafting.of(0.1, PRIOR)
    assert known.tokens > 0
    assert drafting.of(0.08, PRIOR) == PRIOR
    assert drafting.of(0.08, PRIOR, promised_s=0.3) == PRIOR
