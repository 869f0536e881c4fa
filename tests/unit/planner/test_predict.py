"""Forecasts from loads that are read once per round."""

from hypothesis import given
from hypothesis import strategies as st

from services.planner.admission.predict import Loads
from services.planner.state.cluster import ClusterState
from services.planner.state.engine_reservations import Reservation
from services.planner.state.engine_state import EngineState
from shared.scheduling.rows import new_row
from tests.unit.planner.builders import make_cluster, make_engine

NOW_S = 100.0


def reservation(number: int, tokens: int, ends_at_s: float | None) -> Reservation:
    return Reservation(
        decision_id=f"d-{number}",
        request_id=f"r-{number}",
        prefill_tokens=tokens,
        kv_tokens=2 * tokens,
        class_name="",
        due_at_s=NOW_S,
        ends_at_s=ends_at_s,
        row=new_row(tokens=tokens, left=tokens),
    )


def loaded(held: list[tuple[int, float | None]], seen: int) -> tuple[ClusterState, EngineState]:
    state = make_cluster(make_engine(max_running_requests=4, kv_blocks=64))
    engine = next(iter(state.engines.values()))
    for number, (tokens, ends_at_s) in enumerate(held):
        hold = reservation(number, tokens, ends_at_s)
        if number < seen:
            engine.seen[hold.decision_id] = hold
        else:
            engine.hold(hold)
    return state, engine


@given(
    st.lists(st.tuples(st.integers(1, 400), st.none() | st.floats(0, 200)), max_size=6),
    st.integers(0, 6),
    st.integers(1, 1000),
)
def test_room_and_load_are_those_of_the_engine(
    held: list[tuple[int, float | None]], seen: int, kv_tokens: int
) -> None:
    state, engine = loaded(held, seen)
    load = Loads(state).of(engine)

    assert repr(load.room_in_s(kv_tokens, NOW_S)) == repr(engine.room_in_s(kv_tokens, NOW_S))
    assert load.requests == engine.requests
    assert load.context_tokens == engine.context_tokens + engine.unseen_kv_tokens
