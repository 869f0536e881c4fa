from dataclasses import replace
from typing import Any

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


def test_a_call_is_worth_what_it_says_however_many_came_before() -> None:
    sessions = Sessions()
    for number in range(5):
        run(sessions, asking(f"r{number}", targets=TARGETS))
    query = asking("now", targets=SloTargets(value=2.0))

    assert sessions.enrich(query, 1.0).targets.value == 2.0


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
