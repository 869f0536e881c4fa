from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.state.sessions import Sessions
from shared.requests import (
    Admission,
    EngineRef,
    OnRefuse,
    Outcome,
    Placement,
    PlacementQuery,
    Reason,
    SloTargets,
)
from tests.unit.planner.builders import make_query

TARGETS = SloTargets(class_name="agent", ttft_s=0.5, tpot_s=0.05)
D0 = EngineRef(name="d0", engine_id="d0", address="x")


def asking(request_id: str = "r1", **changed: Any) -> PlacementQuery:
    return make_query(request_id, **{"session_id": "s", "prompt_tokens": 100, **changed})


def run(sessions: Sessions, query: PlacementQuery, now: float = 0.0, **outcome: Any) -> None:
    """One round from its question to its end."""
    decision_id = f"d-{query.request_id}"
    placement = Placement(
        decision_id=decision_id, admission=Admission.ADMITTED, reason=Reason.NONE, decode=D0
    )
    sessions.placed(sessions.enrich(query, now), placement, now)
    ended: dict[str, Any] = {"finished": "stop", "output_tokens": 20, "ttft_s": 0.1} | outcome
    sessions.ended(Outcome(decision_id=decision_id, request_id=query.request_id, **ended), now)


def test_a_request_without_a_session_passes_through() -> None:
    sessions, query = Sessions(), make_query(targets=TARGETS)

    run(sessions, query)

    assert sessions.enrich(query, 1.0) is query


def test_a_round_without_targets_takes_those_of_the_last_round_that_had_any() -> None:
    sessions = Sessions()
    run(sessions, asking("r1", targets=TARGETS), finished="error")
    run(sessions, asking("r2"), finished="error")

    silent = asking("r3", targets=SloTargets(on_refuse=OnRefuse.REFUSE))

    assert sessions.enrich(silent, 1.0).targets == replace(TARGETS, on_refuse=OnRefuse.REFUSE)


def test_targets_of_its_own_win() -> None:
    sessions, own = Sessions(), SloTargets(ttft_s=9.0)
    run(sessions, asking("r1", targets=TARGETS), finished="error")

    assert sessions.enrich(asking("r2", targets=own), 1.0).targets == own


@given(rounds=st.integers(0, 20), value=st.floats(0.001, 1000))
def test_each_round_is_worth_a_quarter_more_up_to_three_times(rounds: int, value: float) -> None:
    sessions = Sessions()
    for number in range(rounds):
        run(sessions, asking(f"r{number}", targets=TARGETS))

    query = asking("now", targets=SloTargets(value=value))

    expected = value * min(3.0, 1 + 0.25 * rounds)
    assert sessions.enrich(query, 1.0).targets.value == pytest.approx(expected)
    assert sessions.enrich(query, 1.0) == sessions.enrich(query, 1.0)


def test_the_sequences_of_one_request_are_one_round() -> None:
    sessions = Sessions()
    for name in ("r1-0", "r1-1"):
        run(sessions, asking(name, group_id="r1"))

    assert sessions.enrich(asking("r2"), 1.0).targets.value == 1.25


def test_a_session_is_forgotten_when_it_was_not_used_for_long() -> None:
    sessions = Sessions(limit_s=10.0)
    run(sessions, asking(targets=TARGETS), now=0.0)

    assert sessions.enrich(asking(), 10.0).targets.ttft_s == TARGETS.ttft_s
    assert sessions.enrich(asking(), 20.1).targets == SloTargets()


def test_only_the_latest_sessions_are_kept() -> None:
    sessions = Sessions(limit=2)
    for name in ("a", "b", "a", "c"):
        run(sessions, asking(session_id=name, targets=TARGETS))

    found = {name: sessions.enrich(asking(session_id=name), 1.0) for name in ("a", "c", "b")}

    assert [name for name, one in found.items() if one.targets.ttft_s] == ["a", "c"]
