import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.engines import Policy
from shared.scheduling.step_former import (
    Candidate,
    queue_priority,
    shape_step,
    speculation_limit,
    step_limit,
)
from shared.scheduling.terms import Terms

times = st.floats(min_value=0, max_value=1e6, allow_nan=False)
terms = st.builds(
    Terms,
    class_name=st.sampled_from(["chat", "code"]),
    arrived_at_s=times,
    first_token_due_s=times | st.just(math.inf),
    tpot_s=st.none() | st.floats(min_value=0.001, max_value=10),
    best_effort=st.booleans(),
)
candidates = st.lists(
    st.builds(
        Candidate,
        request_id=st.uuids().map(str),
        terms=terms,
        prefilling=st.booleans(),
        produced_tokens=st.integers(min_value=0, max_value=1000),
        drafted_tokens=st.integers(min_value=0, max_value=8),
    ),
    max_size=20,
    unique_by=lambda candidate: candidate.request_id,
)
policies = st.builds(
    Policy,
    max_step_tokens=st.integers(min_value=0, max_value=4096),
    speculation_tokens=st.none() | st.integers(min_value=0, max_value=8),
    speculation_by_class=st.dictionaries(st.sampled_from(["chat", "code"]), st.integers(0, 8)),
)


def make(name: str, due_s: float = 1.0, **changes: object) -> Candidate:
    fields: dict[str, object] = {
        "request_id": name,
        "terms": Terms(first_token_due_s=due_s),
        "prefilling": True,
        "produced_tokens": 0,
    }
    return Candidate(**{**fields, **changes})  # type: ignore[arg-type]


@given(candidates, policies)
def test_every_candidate_is_in_the_order_exactly_once(
    pool: list[Candidate], policy: Policy
) -> None:
    shape = shape_step(pool, policy, engine_max_tokens=2048)

    assert sorted(shape.order) == sorted(candidate.request_id for candidate in pool)


@given(candidates, policies)
def test_best_effort_never_goes_before_a_promise(pool: list[Candidate], policy: Policy) -> None:
    by_id = {candidate.request_id: candidate for candidate in pool}

    order = shape_step(pool, policy, engine_max_tokens=2048).order

    flags = [by_id[request_id].terms.best_effort for request_id in order]
    assert flags == sorted(flags)


@given(candidates, policies)
def test_only_prefills_that_are_due_later_are_held(pool: list[Candidate], policy: Policy) -> None:
    by_id = {candidate.request_id: candidate for candidate in pool}
    waiting = make("waiting", 10.0)

    held = shape_step(pool, policy, engine_max_tokens=64, next_waiting=waiting).held

    for each in (by_id[request_id] for request_id in held):
        assert each.prefilling
        assert each.terms.best_effort or each.terms.token_due_s(each.produced_tokens) > 10.0


def test_a_prefill_gives_way_to_a_more_urgent_request_that_waits() -> None:
    running, decode = make("running", 9.0), make("decode", 20.0, prefilling=False)

    shape = shape_step(
        [running, decode], Policy(), engine_max_tokens=64, next_waiting=make("urgent", 2.0)
    )

    assert shape.held == {"running"}


def test_a_prefill_does_not_give_way_to_its_equal() -> None:
    shape = shape_step(
        [make("running", 2.0)], Policy(), engine_max_tokens=64, next_waiting=make("equal", 2.0)
    )

    assert shape.held == frozenset()


@given(candidates, policies)
def test_a_draft_is_only_ever_cut(pool: list[Candidate], policy: Policy) -> None:
    cuts = shape_step(pool, policy, engine_max_tokens=2048).speculation_tokens

    for candidate in pool:
        allowed = cuts.get(candidate.request_id, candidate.drafted_tokens)
        assert 0 <= allowed <= candidate.drafted_tokens
        assert allowed <= speculation_limit(candidate, policy)


@given(st.integers(0, 10_000), st.integers(1, 4096))
def test_a_step_is_never_empty_and_never_above_the_engine(limit: int, engine: int) -> None:
    tokens = step_limit(Policy(max_step_tokens=limit), engine)

    assert 1 <= tokens <= engine


def test_decodes_go_before_prefills_and_the_earlier_deadline_first() -> None:
    late, soon = make("late", 9.0), make("soon", 2.0)
    decode = make("decode", 20.0, prefilling=False, produced_tokens=3)

    shape = shape_step([late, soon, decode], Policy(), engine_max_tokens=64)

    assert shape.order == ("decode", "soon", "late")


def test_equal_deadlines_keep_the_given_order() -> None:
    shape = shape_step([make("a"), make("b"), make("c")], Policy(), engine_max_tokens=64)

    assert shape.order == ("a", "b", "c")


def test_speculation_of_a_class_goes_before_the_general_one() -> None:
    drafted = make("a", drafted_tokens=4, terms=Terms(class_name="code"))
    policy = Policy(speculation_tokens=2, speculation_by_class={"code": 0})

    assert shape_step([drafted], policy, engine_max_tokens=64).speculation_tokens == {"a": 0}


@pytest.mark.parametrize(
    ("produced", "due_s"),
    [(0, 5.0), (1, 5.1), (10, 6.0)],
)
def test_the_deadline_of_a_token_is_cumulative(produced: int, due_s: float) -> None:
    promise = Terms(first_token_due_s=5.0, tpot_s=0.1)

    assert promise.token_due_s(produced) == pytest.approx(due_s)


def test_a_pace_alone_counts_from_the_arrival() -> None:
    assert Terms(arrived_at_s=3.0, tpot_s=0.5).token_due_s(4) == pytest.approx(5.0)


def test_without_a_pace_nothing_is_due_after_the_first_token() -> None:
    assert math.isinf(Terms(first_token_due_s=1.0).token_due_s(1))


@given(terms)
def test_the_queue_puts_best_effort_behind_all_promises(some: Terms) -> None:
    promised = Terms(arrived_at_s=some.arrived_at_s, first_token_due_s=some.arrived_at_s + 3600)
    leftover = Terms(arrived_at_s=some.arrived_at_s, best_effort=True)

    assert queue_priority(promised) < queue_priority(leftover)


def test_a_second_of_client_priority_is_a_second_of_deadline() -> None:
    promise = Terms(first_token_due_s=10.0)

    assert queue_priority(promise, client_priority=2) - queue_priority(promise) == 2000
