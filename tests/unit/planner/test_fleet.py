import pytest

from services.planner.admission.placement_options import Fleet
from services.planner.state.engine_reservations import Reservation
from services.planner.tuning import MOST_TRIED
from shared.engines import Role
from shared.requests import PlacementMode, SloTargets
from shared.scheduling.rows import new_row
from tests.unit.planner.builders import LONG_AFTER_S, make_cluster, make_engine, make_query


def test_of_a_large_fleet_the_least_loaded_are_tried_and_the_engine_with_the_prefix() -> None:
    state = make_cluster(*(make_engine(f"d{number:02}") for number in range(40)))
    for number, engine in enumerate(state.engines.values()):
        for one in range(40 - number):
            row = new_row(key=100 * number + one + 1, tokens=10, left=5, due_s=2000.0, tpot_s=0.1)
            hold = Reservation(
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
    fleet = Fleet(state)
    ways = fleet.open_ways(query, LONG_AFTER_S)

    few = fleet.least_of(ways, {"d03": 64})

    assert {engine.name for engine in few.colocated} == {
        "d03",
        *(f"d{number}" for number in range(33, 40)),
    }
    assert len(ways.colocated) == 40


@pytest.mark.parametrize("size", [MOST_TRIED, 20])
def test_where_many_decode_kv_moves_only_between_engines_that_are_there_for_it(size: int) -> None:
    names = [f"e{number:02}" for number in range(size)]
    decode_only = Fleet(make_cluster(*(make_engine(name) for name in names)))
    half = size // 2
    roles = [Role.PREFILL] * half + [Role.DECODE] * (size - half)
    split = Fleet(
        make_cluster(*(make_engine(name, role) for name, role in zip(names, roles, strict=True)))
    )

    whole, halves = (
        fleet.least_of(fleet.open_ways(make_query(), LONG_AFTER_S), {})
        for fleet in (decode_only, split)
    )

    assert not whole.pairs_exist
    assert len(whole.colocated) == min(8, size)
    assert (len(halves.prefills), len(halves.decodes)) == (min(8, half), min(8, size - half))


def test_all_of_a_request_fits_on_few_prefill_engines_beside_the_decode_engines() -> None:
    roles = {f"{role.value}{number}": role for role in Role for number in range(10)}
    fleet = Fleet(make_cluster(*(make_engine(name, role) for name, role in roles.items())))

    ways = fleet.least_of(fleet.open_ways(make_query(), LONG_AFTER_S), {})

    assert {engine.description.role for engine in ways.colocated} == {Role.DECODE}
    assert [engine.description.role for engine in ways.stand_ins] == [Role.PREFILL] * 2


def test_a_small_fleet_is_tried_as_a_whole() -> None:
    state = make_cluster(*(make_engine(f"d{number}") for number in range(MOST_TRIED - 1)))
    fleet = Fleet(state)
    ways = fleet.open_ways(make_query(), LONG_AFTER_S)

    assert fleet.least_of(ways, {}) == ways


def test_one_request_that_finds_fewer_ways_takes_none_from_the_next() -> None:
    fleet = Fleet(make_cluster(*(make_engine(f"d{number}") for number in range(3))))
    before = fleet.open_ways(make_query(), LONG_AFTER_S)

    forced = fleet.open_ways(make_query(forced_way=PlacementMode.COLOCATED), LONG_AFTER_S)

    assert not forced.decodes
    assert forced.rejected
    assert fleet.open_ways(make_query(), LONG_AFTER_S) == before
    assert len(before.decodes) == 3
    assert not before.rejected
