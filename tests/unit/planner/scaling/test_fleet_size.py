"""The smallest fleet, over replays that are made up: attained grows with engines of both roles."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.scaling.fleet_size import FleetSize, grown, shrunk
from services.planner.scaling.replay import Replayed

GOAL, MOST = 0.95, 64
REQUESTS = 1000
sizes = st.builds(FleetSize, prefill=st.integers(1, 6), decode=st.integers(1, 6))
LEAST = FleetSize(prefill=1, decode=1)


def needs(size: FleetSize) -> Callable[[FleetSize], Replayed]:
    """A window that needs just this fleet: short of a role it misses in proportion."""

    def replayed(have: FleetSize) -> Replayed:
        prefill = REQUESTS * max(0, size.prefill - have.prefill) // (2 * size.prefill)
        decode = REQUESTS * max(0, size.decode - have.decode) // (2 * size.decode)
        kept = REQUESTS - prefill - decode
        return Replayed(kept=kept, short_of_prefill=prefill, short_of_decode=decode, never=0)

    return replayed


@given(needed=sizes, start=sizes)
def test_a_fleet_grows_by_what_it_lacks_of_either_role(needed: FleetSize, start: FleetSize) -> None:
    assert grown(needs(needed), start, GOAL, MOST) == start.at_least(needed)


@given(needed=sizes, start=sizes)
def test_a_fleet_that_is_enough_shrinks_to_what_is_needed(
    needed: FleetSize, start: FleetSize
) -> None:
    enough = start.at_least(needed)

    assert shrunk(needs(needed), enough, LEAST, GOAL) == needed


@given(needed=sizes, start=sizes)
def test_a_fleet_without_prefill_engines_never_gets_one(
    needed: FleetSize, start: FleetSize
) -> None:
    alone = FleetSize(prefill=0, decode=start.decode)
    wanted = FleetSize(prefill=0, decode=needed.decode)

    def replayed(have: FleetSize) -> Replayed:
        assert have.prefill == 0
        return needs(FleetSize(prefill=1, decode=needed.decode))(
            FleetSize(prefill=1, decode=have.decode)
        )

    assert grown(replayed, alone, GOAL, MOST) == alone.at_least(wanted)


@given(start=sizes)
def test_engines_that_change_nothing_are_not_asked_for(start: FleetSize) -> None:
    """What is missed for another reason is no reason to buy engines."""

    def replayed(_: FleetSize) -> Replayed:
        return Replayed(kept=50, short_of_prefill=25, short_of_decode=25, never=0)

    assert grown(replayed, start, GOAL, MOST) == start


@pytest.mark.parametrize("most", [3, 8])
def test_no_more_than_the_most_are_asked_for_by_more_than_a_step(most: int) -> None:
    needed = FleetSize(prefill=40, decode=40)

    assert grown(needs(needed), LEAST, GOAL, most).engines <= 2 * most
