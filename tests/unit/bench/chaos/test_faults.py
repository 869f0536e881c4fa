"""Faults are drawn by a seed, from all kinds, for targets that they can befall."""

import random
from collections.abc import Sequence
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from services.bench.chaos.faults import KILLS, LINK_FAULTS, Fault, Kind, Targets, drawn

TARGETS = Targets(
    parts=["planner", "decode-0", "gateway-0"],
    engines=["decode-0"],
    links=["to decode-0", "decode-0 to planner"],
)
kinds = st.lists(st.sampled_from(Kind), min_size=1, unique=True)


def first(count: int, kinds: Sequence[Kind], seed: int, targets: Targets = TARGETS) -> list[Fault]:
    return list(islice(drawn(kinds, targets, random.Random(seed)), count))


@given(kinds, st.integers())
def test_every_kind_comes_before_one_comes_again(kinds: list[Kind], seed: int) -> None:
    for fault_round in (first(2 * len(kinds), kinds, seed)[: len(kinds)],):
        assert sorted(fault.kind for fault in fault_round) == sorted(kinds)


@given(kinds, st.integers())
def test_a_fault_befalls_what_it_can_and_lasts_unless_it_kills(
    kinds: list[Kind], seed: int
) -> None:
    for fault in first(20, kinds, seed):
        assert fault.target in TARGETS.of(fault.kind)
        assert (fault.lasts_s == 0) == (fault.kind in KILLS)
        assert str(fault).startswith(fault.kind.value)


@given(st.integers())
def test_a_seed_draws_the_same_faults_again(seed: int) -> None:
    assert first(30, list(Kind), seed) == first(30, list(Kind), seed)


def test_without_links_no_link_is_disturbed_and_without_targets_nothing_is() -> None:
    bare = Targets(parts=["planner"], engines=["decode-0"], links=[])

    assert not {one.kind for one in first(50, list(Kind), 1, bare)} & LINK_FAULTS
    assert first(5, list(LINK_FAULTS), 1, bare) == []
