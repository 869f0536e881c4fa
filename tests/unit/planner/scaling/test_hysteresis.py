"""The size grows at once, shrinks late, and cannot go back and forth quickly."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.planner.scaling.fleet_size import FleetSize
from services.planner.scaling.hysteresis import Hysteresis

HOLD_S, EVERY_S = 300.0, 10.0
sizes = st.builds(FleetSize, prefill=st.integers(0, 4), decode=st.integers(1, 4))


def fed(needs: list[FleetSize]) -> tuple[Hysteresis, list[tuple[float, FleetSize]]]:
    """With needs every 10 s; and the size after each."""
    kept = Hysteresis(hold_s=HOLD_S, size=FleetSize(prefill=1, decode=1), changed_at_s=0.0)
    history = []
    for number, need in enumerate(needs):
        now = (number + 1) * EVERY_S
        smaller = need.at_least(kept.size) == kept.size
        history.append(
            (now, kept.take(need.at_least(kept.size), need if smaller else kept.size, now))
        )
    return kept, history


@given(st.lists(sizes, max_size=200))
def test_the_size_is_never_below_what_is_needed_now(needs: list[FleetSize]) -> None:
    _, history = fed(needs)

    assert all(size.at_least(need) == size for need, (_, size) in zip(needs, history, strict=True))


@given(st.lists(sizes, max_size=300))
def test_it_shrinks_only_after_no_change_for_as_long_as_it_holds(needs: list[FleetSize]) -> None:
    _, history = fed(needs)

    changed_at_s, before = 0.0, FleetSize(prefill=1, decode=1)
    for now, size in history:
        if size != before:
            shrinks = size.at_least(before) != size
            assert not shrinks or now - changed_at_s >= HOLD_S
            changed_at_s, before = now, size


@given(st.lists(sizes, max_size=300))
def test_it_shrinks_to_no_less_than_what_was_needed_all_the_while(needs: list[FleetSize]) -> None:
    _, history = fed(needs)

    before = FleetSize(prefill=1, decode=1)
    for number, (now, size) in enumerate(history):
        if size.engines < before.engines:
            lately = [
                need
                for need, (at_s, _) in zip(needs[: number + 1], history, strict=False)
                if at_s > now - HOLD_S
            ]
            assert all(size.at_least(need) == size for need in lately)
        before = size


@given(st.lists(sizes, min_size=1, max_size=300))
def test_the_direction_changes_no_more_often_than_it_says(needs: list[FleetSize]) -> None:
    _, history = fed(needs)

    engines = [size.engines for _, size in history]
    signs = [b > a for a, b in pairwise(engines) if a != b]
    turns = sum(one != other for one, other in pairwise(signs))
    assert turns <= 2 * history[-1][0] / HOLD_S + 2


def test_a_steady_smaller_need_is_followed_after_the_hold() -> None:
    big, small = FleetSize(prefill=2, decode=3), FleetSize(prefill=1, decode=2)

    kept, history = fed([big, *[small] * 40])

    shrunk_at_s = next(now for now, size in history if size == small)
    assert kept.size == small
    assert HOLD_S <= shrunk_at_s - EVERY_S <= HOLD_S + 2 * EVERY_S
