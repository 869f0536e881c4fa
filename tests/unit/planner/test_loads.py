from services.planner.engine_state import Hold
from services.planner.ways import Loads, open_ways
from shared.requests import SloTargets
from shared.scheduling.rows import new_row
from tests.unit.planner.builders import LONG_AFTER_S, make_cluster, make_engine, make_query


def test_of_a_large_fleet_the_least_loaded_are_tried_and_the_engine_with_the_prefix() -> None:
    state = make_cluster(*(make_engine(f"d{number:02}") for number in range(40)))
    for number, engine in enumerate(state.engines.values()):
        for one in range(40 - number):
            row = new_row(key=100 * number + one + 1, tokens=10, left=5, due_s=2000.0, tpot_s=0.1)
            hold = Hold(
                decision_id=f"{number}-{one}",
                request_id="r",
                prefill_tokens=10,
                kv_tokens=15,
                class_name="",
                due_at_s=LONG_AFTER_S,
                row=row,
            )
            engine.hold(hold)
    query = make_query(targets=SloTargets(ttft_s=1.0))
    ways = open_ways(query, state, LONG_AFTER_S)

    few = Loads().least_of(ways, home="d03")

    expected = {"d03", *(f"d{number}" for number in range(25, 40))}
    for side in (few.colocated, few.prefills, few.decodes):
        assert {engine.name for engine in side} == expected
    assert len(ways.colocated) == 40


def test_a_small_fleet_is_tried_as_a_whole() -> None:
    state = make_cluster(*(make_engine(f"d{number}") for number in range(16)))
    ways = open_ways(make_query(), state, LONG_AFTER_S)

    assert Loads().least_of(ways, home="") == ways
