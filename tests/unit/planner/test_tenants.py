from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.planner.admission.pending import Deferral, PendingRequest
from services.planner.admission.placement import Decision
from services.planner.admission.rounds import decide_round
from services.planner.state.cluster import ClusterState
from services.planner.state.sessions import Sessions
from services.planner.state.tenants import TenantShares
from shared.requests import Admission, EngineRef, OnRefuse, Outcome, Placement, Reason, SloTargets
from tests.unit.planner.builders import (
    LONG_AFTER_S,
    commit,
    make_cluster,
    make_engine,
    make_query,
    make_report,
)

TARGETS = SloTargets(ttft_s=20.0, tpot_s=0.5, on_refuse=OnRefuse.REFUSE)
NOW = LONG_AFTER_S
ROUNDING = 1e-9


def ask(name: str, tenant: str, **changed: Any) -> PendingRequest:
    query = make_query(name, **({"targets": TARGETS, "tenant": tenant} | changed))
    return PendingRequest(query=query, arrived_at_s=NOW, first_asked_at_s=NOW)


def serve(shares: TenantShares, tenant: str, tokens: int, weight: float, now: float) -> None:
    """One request of a tenant for which others wait as well."""
    query = make_query(f"{tenant}-{now}", tenant=tenant, weight=weight, prompt_tokens=tokens)
    shares.placed(query, f"d-{now}", 0)
    shares.ended(f"d-{now}", 0)


# ---- the counters


@settings(max_examples=50)
@given(
    weights=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
    sizes=st.lists(st.integers(1, 500), min_size=1, max_size=8),
)
def test_of_two_that_always_wait_each_gets_its_weight(
    weights: tuple[float, float], sizes: list[int]
) -> None:
    shares, got = TenantShares(), {"a": 0, "b": 0}
    weight = dict(zip("ab", weights, strict=True))
    for number in range(400):
        first = shares.turns((("a", 0.0), ("b", 0.0)), float(number)).tenants[0]
        tokens = sizes[number % len(sizes)]
        serve(shares, first, tokens, weight[first], float(number))
        got[first] += tokens

    apart = abs(got["a"] / weight["a"] - got["b"] / weight["b"])
    assert apart <= (1 + ROUNDING) * max(sizes) / min(weights)


def test_a_tenant_that_was_away_catches_up_on_seconds_only() -> None:
    shares = TenantShares()
    for second in range(100):
        shares.turns((("a", -1.0),), float(second))
        serve(shares, "a", 100, 1.0, float(second))

    shares.turns((("a", -1.0), ("b", 100.0)), 100.0)

    assert shares.counter("a") == 10_000
    assert 8_000 <= shares.counter("b") < shares.counter("a")


def test_a_tenant_between_two_calls_does_not_count_as_away() -> None:
    shares = TenantShares()
    shares.turns((("a", 0.0), ("b", 0.0)), 0.0)
    shares.turns((("a", 0.0), ("b", 0.0)), 0.1)
    serve(shares, "a", 1000, 1.0, 0.2)
    shares.turns((("a", 0.0),), 0.5)

    shares.turns((("a", 0.0), ("b", 0.6)), 0.6)  # those of b that waited ask again a little later

    assert shares.counter("b") == 0


def test_what_was_expected_of_an_answer_is_put_right_at_its_end() -> None:
    shares = TenantShares()
    shares.turns((("a", 0.0),), 0.0)

    shares.placed(make_query(tenant="a", prompt_tokens=100), "d", 50)
    assert shares.counter("a") == 150
    shares.ended("d", 7)
    shares.ended("d", 7)

    assert shares.counter("a") == 107


def test_memory_of_tenants_is_bounded() -> None:
    shares = TenantShares()
    for number in range(3000):
        shares.turns(((f"t{number}", float(number)),), float(number))
        shares.placed(make_query(tenant=f"t{number}"), f"d{number}", 1)

    assert shares.counter("t0") == 0
    turns = shares.turns((("t2999", 3000.0),), 3000.0)
    assert turns.several
    assert not shares.turns((("t2999", 9000.0),), 9000.0).several


# ---- rounds


def one_place(**changed: Any) -> ClusterState:
    """One engine with one place for a promise."""
    return make_cluster(make_engine(max_running_requests=1, **changed))


def known(state: ClusterState, *tenants: str) -> None:
    """Tenants that asked a moment ago and were never served."""
    state.tenants.turns([(tenant, NOW) for tenant in tenants], NOW)


def admitted(found: list[Decision | Deferral | None]) -> list[bool]:
    return [
        isinstance(one, Decision) and one.placement.admission is Admission.ADMITTED for one in found
    ]


def test_where_not_all_can_be_promised_the_least_served_tenant_comes_first() -> None:
    state = one_place()
    known(state, "a", "b")
    serve(state.tenants, "a", 1000, 1.0, NOW)

    found = decide_round([ask("r1", "a"), ask("r2", "a"), ask("r3", "b")], state, NOW)

    assert admitted(found) == [False, False, True]


def test_a_weight_counts_for_its_tenant() -> None:
    state = one_place()
    known(state, "a", "b")
    serve(state.tenants, "a", 2000, 3.0, NOW)
    serve(state.tenants, "b", 1000, 1.0, NOW)

    found = decide_round([ask("r1", "b"), ask("r2", "a")], state, NOW)

    assert admitted(found) == [False, True]


@pytest.mark.parametrize("value", [1.0, 1000.0])
def test_a_value_counts_inside_its_tenant_only(value: float) -> None:
    state = one_place()
    known(state, "a", "b")
    serve(state.tenants, "a", 1000, 1.0, NOW)
    dear = replace(TARGETS, value=value)

    found = decide_round(
        [ask("r1", "a", targets=dear), ask("r2", "b"), ask("r3", "b", targets=dear)], state, NOW
    )

    assert not admitted(found)[0]
    assert admitted(found)[1:] == ([False, True] if value > 1 else [True, False])


def test_the_flood_of_one_leaves_room_for_the_next_request_of_another() -> None:
    state = make_cluster(make_engine(max_running_requests=4))
    known(state, "a", "b")
    first = ask("b1", "b")
    (decision,) = decide_round([first], state, NOW)
    assert isinstance(decision, Decision)
    state.tenants.asks(first.query, state.demand(first.query, 20.0, NOW), NOW)
    serve(state.tenants, "a", 5000, 1.0, NOW)
    serve(state.tenants, "b", 10, 1.0, NOW)

    flood = [ask(f"a{number}", "a") for number in range(10)]
    found = decide_round(flood, state, NOW)
    for one, answer in zip(flood, found, strict=True):
        if isinstance(answer, Decision):
            commit(state, one.query, answer, NOW)

    assert sum(admitted(found)) == 3
    assert admitted(decide_round([ask("b2", "b")], state, NOW)) == [True]


def test_what_the_first_tenant_was_promised_stays_when_the_others_are_decided() -> None:
    """Of two engines with one place each the first tenant has one, whatever others are worth."""
    state = make_cluster(*(make_engine(f"d{i}", max_running_requests=1) for i in range(2)))
    known(state, "a", "b")
    serve(state.tenants, "a", 1000, 1.0, NOW)
    dear = replace(TARGETS, value=1000.0)

    asked = [ask(f"a{i}", "a", targets=dear) for i in range(6)] + [ask("b", "b")]
    found = decide_round(asked, state, NOW)

    assert admitted(found)[-1]


def busy(state: ClusterState) -> None:
    state.engines["d0"].report = make_report(running=1, waiting=1, queued_prefill_tokens=5000)


@pytest.mark.parametrize("targets", [SloTargets(), SloTargets(ttft_s=0.001, tpot_s=0.5)])
def test_without_a_promise_tenants_wait_their_turn_while_engines_are_busy_and_not_for_ever(
    targets: SloTargets,
) -> None:
    state = make_cluster(make_engine())
    known(state, "a", "b")
    busy(state)
    asked = [ask("r1", "a", targets=targets), ask("r2", "b", targets=targets)]

    found = decide_round(asked, state, NOW)
    assert all(isinstance(one, Deferral) and one.unpromised for one in found)

    later = NOW + 20.0
    late = [
        replace(one, deferral=held, query=replace(one.query, waited_s=20.0))
        for one, held in zip(asked, found, strict=True)
        if isinstance(held, Deferral)
    ]
    found = decide_round(late, state, later)
    assert any(isinstance(one, Decision) and one.placement.runs for one in found)


def test_what_has_waited_for_long_goes_by_the_weights_of_tenants_too() -> None:
    state = make_cluster(make_engine())
    weights = {"a": 1.0, "b": 3.0}
    known(state, *weights)
    went: Counter[str] = Counter()
    for number in range(40):
        busy(state)
        now = NOW + 100.0 + 0.01 * number
        asked = []
        for tenant, weight in weights.items():
            one = ask(f"{tenant}{number}", tenant, weight=weight, targets=SloTargets())
            asked.append(replace(one, query=replace(one.query, waited_s=30.0)))
        for one, found in zip(asked, decide_round(asked, state, now), strict=True):
            if isinstance(found, Decision):
                went[one.query.tenant] += 1
                state.tenants.placed(one.query, f"d-{number}", 0)

    assert went == {"a": 10, "b": 30}


def test_without_promises_the_least_served_tenant_comes_first() -> None:
    state = make_cluster(make_engine())
    known(state, "a", "b")
    serve(state.tenants, "a", 1000, 1.0, NOW)
    asked = [ask(f"a{i}", "a", targets=SloTargets()) for i in range(3)]

    found = decide_round([*asked, ask("b", "b", targets=SloTargets())], state, NOW)

    assert [isinstance(one, Decision) for one in found] == [False, False, False, True]


# ---- one tenant


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_of_one_tenant_every_decision_is_as_if_there_were_no_tenants(data: st.DataObject) -> None:
    """Whatever its name and weight, over rounds with all kinds of requests and answers."""
    weight = data.draw(st.floats(0.1, 10))
    rounds = data.draw(st.lists(_round(), min_size=1, max_size=4))

    def run(tenant: dict[str, Any]) -> list[list[Decision | Deferral | None]]:
        state = make_cluster(make_engine("d0"), make_engine("d1", max_running_requests=2))
        now, told, waiting = NOW, [], list[PendingRequest]()
        for number, (gap_s, requests) in enumerate(rounds):
            now += gap_s
            waiting += [
                PendingRequest(
                    query=make_query(f"{number}-{place}", **(request | tenant)),
                    arrived_at_s=now,
                    first_asked_at_s=now,
                )
                for place, request in enumerate(requests)
            ]
            asked = [
                replace(one, query=replace(one.query, waited_s=now - one.arrived_at_s))
                for one in waiting
            ]
            found = decide_round(asked, state, now)
            told.append(found)
            waiting = []
            for one, answer in zip(asked, found, strict=True):
                if isinstance(answer, Decision):
                    commit(state, one.query, answer, now)
                else:
                    waiting.append(replace(one, deferral=answer))
        return told

    assert run({}) == run({"tenant": "acme", "weight": weight})


@st.composite
def _round(draw: st.DrawFn) -> tuple[float, list[dict[str, Any]]]:
    targets = st.builds(
        SloTargets,
        ttft_s=st.one_of(st.none(), st.floats(0.05, 3)),
        tpot_s=st.one_of(st.none(), st.floats(0.01, 0.5)),
        on_refuse=st.sampled_from(OnRefuse),
        value=st.sampled_from((1.0, 5.0)),
    )
    request = st.fixed_dictionaries(
        {
            "targets": targets,
            "prompt_tokens": st.integers(1, 1500),
            "session_id": st.sampled_from((None, "s")),
        }
    )
    return draw(st.floats(0, 2)), draw(st.lists(request, max_size=8))


# ---- sessions


def test_a_session_of_one_tenant_is_not_that_of_another() -> None:
    sessions, engine = Sessions(), EngineRef(name="d0", engine_id="d0", address="x")
    own = make_query("r1", tenant="a", session_id="s", targets=TARGETS)
    sessions.enrich(own, 0.0)
    placement = Placement(
        decision_id="d", admission=Admission.ADMITTED, reason=Reason.NONE, decode=engine
    )
    sessions.placed(own, placement, 0.0)
    outcome = Outcome(
        decision_id="d", request_id="r1", finished="stop", output_tokens=5, ttft_s=0.1
    )
    sessions.ended(outcome, 1.0)

    same = make_query("r2", tenant="a", session_id="s")
    others = make_query("r3", tenant="b", session_id="s")

    assert sessions.enrich(same, 2.0).targets.ttft_s == TARGETS.ttft_s
    assert sessions.enrich(others, 2.0).targets.asks_for_nothing
