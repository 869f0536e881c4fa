from dataclasses import replace
from typing import Any

import pytest

from services.planner.admission.pending import Deferral, PendingRequest
from services.planner.admission.placement import Decision
from services.planner.admission.rounds import decide_round
from services.planner.state.cluster import ClusterState
from shared.requests import Admission, OnRefuse, Reason, SloTargets
from tests.unit.planner.builders import (
    LONG_AFTER_S,
    commit,
    make_cluster,
    make_engine,
    make_query,
    make_report,
)

SLO = SloTargets(ttft_s=20.0, tpot_s=0.5, on_refuse=OnRefuse.REFUSE)


def ask(name: str, adapter: int, **changed: Any) -> PendingRequest:
    query = make_query(name, **({"targets": SLO, "adapter": adapter} | changed))
    return PendingRequest(query=query, arrived_at_s=LONG_AFTER_S, first_asked_at_s=LONG_AFTER_S)


def lora_fleet(*names: str, slots: int = 1) -> ClusterState:
    return make_cluster(
        *(make_engine(name, adapter_slots=slots, kv_address=None) for name in names)
    )


def decide(state: ClusterState, *asked: PendingRequest) -> list[Decision | Deferral | None]:
    """Decides one round and records what it places."""
    found = decide_round(asked, state, LONG_AFTER_S)
    for one, decision in zip(asked, found, strict=True):
        if isinstance(decision, Decision) and decision.placement.runs:
            commit(state, one.query, decision, LONG_AFTER_S)
    return found


def engine_of(decision: Decision | Deferral | None) -> str:
    assert isinstance(decision, Decision)
    assert decision.placement.decode is not None
    return decision.placement.decode.name


def test_a_promise_goes_to_an_engine_with_room_for_its_adapter() -> None:
    state = lora_fleet("d0", "d1")
    places = {n: engine_of(decide(state, ask(f"r{n}", adapter=n))[0]) for n in (1, 2)}
    assert set(places.values()) == {"d0", "d1"}

    for name, n in {"a": 1, "b": 2, "c": 2, "d": 1}.items():
        assert engine_of(decide(state, ask(name, adapter=n))[0]) == places[n]


def test_a_request_is_deferred_while_no_engine_has_room_for_its_adapter() -> None:
    state = lora_fleet("d0", slots=2)
    for n in (1, 2):
        decide(state, ask(f"r{n}", adapter=n))

    (third,) = decide(state, ask("third", adapter=3))
    base, known = decide(state, ask("base", adapter=0), ask("known", adapter=2))

    assert isinstance(third, Deferral)
    assert engine_of(base) == engine_of(known) == "d0"


def test_adapters_of_one_round_share_what_room_there_is() -> None:
    found = decide(lora_fleet("d0", slots=2), *(ask(f"r{n}", adapter=n) for n in (1, 2, 3)))
    assert [isinstance(one, Deferral) for one in found] == [False, False, True]


def test_room_that_an_engine_reports_is_taken_again() -> None:
    state = lora_fleet("d0")
    engine = state.engines["d0"]
    engine.observe(make_report(adapters=(7,), running=1), LONG_AFTER_S)
    assert isinstance(decide(state, ask("r", adapter=3))[0], Deferral)

    engine.observe(make_report(), LONG_AFTER_S)
    assert engine_of(decide(state, ask("r", adapter=3))[0]) == "d0"


def test_a_request_that_can_wait_no_longer_runs_without_a_promise() -> None:
    state = lora_fleet("d0")
    decide(state, ask("r1", adapter=1))
    late = ask("late", adapter=2, targets=replace(SLO, on_refuse=OnRefuse.BEST_EFFORT))
    now = LONG_AFTER_S + 19.99
    query = replace(late.query, waited_s=now - LONG_AFTER_S)
    (decision,) = decide_round([replace(late, query=query)], state, now)

    assert isinstance(decision, Decision)
    assert decision.placement.admission is Admission.BEST_EFFORT


def test_a_request_without_slo_prefers_an_engine_with_room_for_its_adapter() -> None:
    state = lora_fleet("d0", "d1")
    state.engines["d0"].observe(make_report(adapters=(7,)), LONG_AFTER_S)
    first, second = (decide(state, ask(f"r{n}", n, targets=SloTargets()))[0] for n in (3, 4))

    assert engine_of(first) == "d1"
    assert engine_of(second) in {"d0", "d1"}  # it finds room nowhere, and runs nevertheless


@pytest.mark.parametrize("targets", [SLO, SloTargets()])
def test_an_adapter_runs_on_no_engine_without_lora(targets: SloTargets) -> None:
    state = make_cluster(make_engine("d0"), make_engine("d1", adapter_slots=1))
    (decision,) = decide(state, ask("r", adapter=1, targets=targets))
    assert engine_of(decision) == "d1"

    (refusal,) = decide(make_cluster(make_engine("d0")), ask("r", adapter=1, targets=targets))
    assert isinstance(refusal, Decision)
    assert refusal.placement.reason is Reason.NEVER
    assert "runs without LoRA" in refusal.placement.message
