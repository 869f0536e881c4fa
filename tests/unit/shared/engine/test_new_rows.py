import math

import pytest

from shared.engine.new_rows import row_of
from shared.scheduling.rows import (
    AVAILABLE,
    BEST_EFFORT,
    DEADLINE,
    GENERATED,
    KEY,
    KIND,
    NO_SLO,
    PROMISED,
    REMAINING,
    TOTAL,
    TPOT,
)
from shared.scheduling.terms import StageTerms, Terms


def test_a_promise_becomes_a_row() -> None:
    terms = Terms(first_token_due_s=12.0, tpot_s=0.1, decision_id="d-ab12-77", stages=())

    row = row_of(terms, tokens=40, left=5)

    assert (row[DEADLINE], row[TPOT], row[KIND]) == (12.0, 0.1, PROMISED)
    assert (row[TOTAL], row[REMAINING], row[GENERATED], row[KEY]) == (40, 5, 0, 77)


@pytest.mark.parametrize(
    ("terms", "kind"),
    [
        (Terms(), NO_SLO),
        (Terms(best_effort=True, first_token_due_s=1.0), BEST_EFFORT),
        (Terms(tpot_s=0.1), PROMISED),
        (Terms(stages=(StageTerms(tpot_s=0.2),)), PROMISED),
    ],
)
def test_what_was_asked_says_what_kind_a_request_is(terms: Terms, kind: float) -> None:
    assert row_of(terms, tokens=1, left=1)[KIND] == kind


def test_of_those_that_asked_for_nothing_the_urgent_and_then_the_older_come_first() -> None:
    def place_s(came_s: float, priority: int = 0) -> float:
        return float(row_of(Terms(), tokens=1, left=1, came_s=came_s, priority=priority)[AVAILABLE])

    assert place_s(100, priority=-1) < place_s(5) < place_s(6) < place_s(5, priority=1)
    assert place_s(100, priority=9999) < 0
    assert place_s(math.inf) == math.inf
