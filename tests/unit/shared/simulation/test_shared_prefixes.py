"""Prefixes that several requests of one engine begin with."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.scheduling.rows import COMPUTED, RESIDENT, SHARED, TOTAL, Rows, empty
from shared.simulation.prefix_cache import PrefixCache
from shared.simulation.shared_prefixes import Indexes, SharedPrefixes

BLOCK = 16


def of_requests(*indexes: int, tokens: int = 100) -> SharedPrefixes:
    shared = SharedPrefixes(cache=PrefixCache(BLOCK))
    for index in indexes:
        shared.add(index, "system", tokens)
    return shared


def computed_and_found() -> tuple[SharedPrefixes, Rows, Indexes]:
    """Request 4 runs and has computed the prefix; 5 waits and has found it."""
    shared = of_requests(4, 5)
    rows, indexes = empty(2), np.array([4, 5])
    rows[:, TOTAL] = 120
    rows[0, RESIDENT], rows[0, COMPUTED] = 1, 120
    shared.computed([4])
    shared.look_up(rows, indexes)
    return shared, rows, indexes


def test_a_prefix_is_cached_in_whole_blocks_from_its_computation_to_the_end_of_its_request() -> (
    None
):
    shared = of_requests(7)
    before = shared.cache.tokens("system")

    shared.computed([7])
    during = shared.cache.tokens("system")
    shared.ended([7])

    assert (before, during, shared.cache.tokens("system")) == (0, 96, 0)
    assert shared.cache.blocks == 0


@given(st.permutations([1, 2, 3]), st.integers(0, 3))
def test_a_prefix_is_found_until_the_last_request_that_holds_it_is_evicted_or_ends(
    order: list[int], evicted: int
) -> None:
    shared = of_requests(1, 2, 3)
    shared.computed([1, 2, 3])

    found = []
    for place, index in enumerate(order):
        found.append(shared.cache.tokens("system"))
        (shared.evicted if place < evicted else shared.ended)([index])

    assert found == [96, 96, 96]
    assert shared.cache.tokens("system") == 0


def test_waiting_prompts_find_what_is_cached_and_running_ones_keep_what_they_computed() -> None:
    shared = of_requests(4, 5, 6)
    rows, indexes = empty(3), np.array([4, 5, 6])
    rows[:, TOTAL] = (120, 120, 40)  # the last one has one token beyond 39 that may be cached
    rows[0, RESIDENT], rows[0, COMPUTED] = 1, 120
    shared.computed([4])

    first = shared.look_up(rows, indexes)
    again = shared.look_up(rows, indexes)

    assert rows[:, COMPUTED].tolist() == [120, 96, 32]
    assert (first, again) == (96 + 32, 0)


def test_waiting_prompts_no_longer_find_what_has_been_evicted() -> None:
    shared, rows, indexes = computed_and_found()

    shared.evicted([4])

    assert shared.look_up(rows, indexes) == -96
    assert rows[1, COMPUTED] == 0


def test_blocks_are_shared_by_all_that_found_a_prefix_and_by_one_that_computed_it() -> None:
    """Two computed it at the same time: each has a copy. Two others wait for it, one of them runs
    then.
    """
    shared = of_requests(1, 2, 3, 4)
    rows, indexes = empty(4), np.array([1, 2, 3, 4])
    rows[:, TOTAL] = 120
    rows[:2, RESIDENT], rows[:2, COMPUTED] = 1, 120
    shared.computed([1, 2])

    shared.look_up(rows, indexes)
    assert rows[:, SHARED].tolist() == [96, 0, 96, 96]
    assert shared.blocks == 6

    shared.begun([3])
    rows[2, RESIDENT], rows[2, COMPUTED] = 1, 120
    shared.look_up(rows, indexes)
    assert rows[:, SHARED].tolist() == [96, 0, 96, 96]
    assert shared.blocks == 6


def test_the_last_that_holds_a_shared_prefix_holds_it_alone_and_frees_it() -> None:
    shared, rows, indexes = computed_and_found()
    shared.begun([5])
    rows[1, RESIDENT], rows[1, COMPUTED] = 1, 120

    shared.ended([4])
    still = shared.blocks
    shared.look_up(rows[1:], indexes[1:])
    alone = shared.blocks, rows[1, SHARED]
    shared.ended([5])

    assert (still, alone, shared.blocks) == (6, (0, 0.0), 0)
