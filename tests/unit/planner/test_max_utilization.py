"""How much more an engine may promise for the lead of its running requests."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.admission.max_utilization import max_utilization
from shared.batch_time.table import FloatArray
from shared.scheduling.rows import NO_SLO, PROMISED, new_row

NOW = 10.0
PACE_S = 0.05


def running(lead: float, *, kind: float = PROMISED, tpot_s: float = PACE_S) -> FloatArray:
    """A running request that is so many paces ahead."""
    due_s = NOW + lead * PACE_S
    return new_row(
        tokens=100, computed=99, produced=5, left=500, due_s=due_s, tpot_s=tpot_s, kind=kind
    )


def waiting() -> FloatArray:
    return new_row(tokens=100, left=500, due_s=NOW + 100.0, tpot_s=PACE_S)


@pytest.mark.parametrize("lead", [-5.0, 0.0, 4.0, 16.0])
def test_without_a_lead_an_engine_promises_its_time_and_no_more(lead: float) -> None:
    assert max_utilization(np.array([running(lead)] * 5), NOW) == 1.0
    assert max_utilization(np.array([running(lead), waiting()]), NOW) == 1.0
    assert max_utilization(np.zeros((0, len(waiting()))), NOW) == 1.0


@given(leads=st.lists(st.floats(-10, 3000), min_size=1, max_size=20))
def test_what_is_lent_is_paid_back_from_leads_within_a_thousand_steps(leads: list[float]) -> None:
    """A step of an overcommitted engine costs each request so much of a pace."""
    lent = max_utilization(np.array([running(lead) for lead in leads]), NOW) - 1.0
    assert 0 <= lent <= 0.25
    spent = 1000 * lent * len(leads)
    assert spent <= sum(min(256.0, max(0.0, lead)) for lead in leads)


@given(leads=st.lists(st.floats(0, 300), min_size=1, max_size=20), more=st.floats(0, 100))
def test_a_longer_lead_never_allows_less(leads: list[float], more: float) -> None:
    rows = np.array([running(lead) for lead in leads])
    longer = np.array([running(lead + more) for lead in leads])
    assert max_utilization(longer, NOW) >= max_utilization(rows, NOW) - 1e-12


def test_the_lead_of_one_that_may_end_at_any_time_counts_in_part() -> None:
    one_far_ahead = np.array([running(5000.0), *[running(0.0)] * 19])
    assert max_utilization(one_far_ahead, NOW) == 1.0


def test_only_promised_paces_have_a_lead() -> None:
    rows = np.array([running(200.0, kind=NO_SLO), running(200.0, tpot_s=math.inf), waiting()])
    assert max_utilization(rows, NOW) == 1.0
    assert max_utilization(np.array([running(200.0)]), NOW) > 1.1
