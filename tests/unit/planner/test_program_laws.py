"""The multi-SLO program against trying every subset, on problems drawn at random (plain seeds: the
compiled code makes thousands of them cheap).
"""

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from services.planner.admission.dynamic_program import (
    BLOCKS,
    FORCED,
    VALUE,
    Mask,
    Problem,
    best_set,
    holds,
)
from tests.unit.shared.scheduling.loads import TABLES

SEEDS = range(10)
PROBLEMS = 200  # of each seed
MOST_RUNNING, MOST_CANDIDATES, TIERS = 40, 8, 3


def problem(chance: random.Random, candidates: int | None = None) -> Problem:
    running = [_running(chance) for _ in range(chance.randint(0, MOST_RUNNING))]
    values = (1.0,) if chance.random() < 0.5 else (0.5, 1.0, 2.0, 3.5)
    number = candidates or chance.randint(1, MOST_CANDIDATES)
    waiting = [_candidate(chance, values) for _ in range(number)]
    return Problem(
        items=np.array(sorted([*running, *waiting])),
        paces_s=np.array(sorted(chance.uniform(0.015, 0.3) for _ in range(TIERS))),
        contexts=np.array([chance.uniform(0, 3000) for _ in range(TIERS)]),
        free_blocks=chance.choice((1e9, chance.uniform(0, 800))),
        busy_s=chance.choice((0.0, chance.uniform(0, 0.1))),
        max_tokens=chance.choice((512, 2048, 8192)),
        longest_s=chance.choice((0.0, 0.0, 0.1)),
        table=chance.choice(TABLES),
    )


def _running(chance: random.Random) -> tuple[float, ...]:
    tier = float(chance.randrange(TIERS))
    if chance.random() < 0.2:
        return chance.uniform(0, 2), float(chance.randint(1, 1500)), tier, 0.0, 1.0, 1.0
    return 0.0, 0.0, tier, 0.0, 1.0, 1.0


def _candidate(chance: random.Random, values: tuple[float, ...]) -> tuple[float, ...]:
    due_s, prompt = chance.uniform(0.02, 2), float(chance.randint(1, 3000))
    tier, blocks = float(chance.randrange(TIERS)), float(chance.randint(1, 200))
    return due_s, prompt, tier, blocks, chance.choice(values), 0.0


def subsets(one: Problem) -> Iterator[Mask]:
    """All sets of candidates, each with those that run."""
    waiting = np.flatnonzero(one.items[:, FORCED] == 0)
    for bits in range(1 << len(waiting)):
        accepted: Mask = one.items[:, FORCED] == 1
        accepted[waiting] = [bool(bits >> bit & 1) for bit in range(len(waiting))]
        yield accepted


def value(one: Problem, accepted: Mask) -> float:
    """Of the candidates among them."""
    return float(one.items[accepted & (one.items[:, FORCED] == 0), VALUE].sum())


def problems(seed: int, number: int) -> Iterator[tuple[random.Random, Problem]]:
    chance = random.Random(seed)
    for _ in range(number):
        yield chance, problem(chance)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_program_finds_what_trying_all_subsets_finds(seed: int) -> None:
    between = 0
    for _, one in problems(seed, PROBLEMS):
        accepted = best_set(one)

        assert holds(one, accepted)
        assert value(one, accepted) == max(value(one, s) for s in subsets(one) if holds(one, s))
        between += 0 < value(one, accepted) < one.items[one.items[:, FORCED] == 0, VALUE].sum()
    assert between > PROBLEMS / 4  # most others are all or nothing


@pytest.mark.parametrize("seed", SEEDS)
def test_a_search_among_more_candidates_finds_it_too(seed: int) -> None:
    chance = random.Random(seed)
    for candidates in (9, 10, 11):
        one = problem(chance, candidates)
        accepted = best_set(one)

        assert holds(one, accepted)
        assert value(one, accepted) == max(value(one, s) for s in subsets(one) if holds(one, s))


@pytest.mark.parametrize("seed", SEEDS)
def test_running_requests_stay_whatever_else_is_accepted(seed: int) -> None:
    for _, one in problems(seed, PROBLEMS):
        assert best_set(one)[one.items[:, FORCED] == 1].all()


@pytest.mark.parametrize("seed", SEEDS)
def test_without_one_of_its_requests_a_set_still_holds(seed: int) -> None:
    for _, one in problems(seed, PROBLEMS // 4):
        accepted = best_set(one)
        for gone in np.flatnonzero(accepted):
            rest = replace(one, items=np.delete(one.items, gone, 0))

            assert holds(rest, np.delete(accepted, gone))


@pytest.mark.parametrize("seed", SEEDS)
def test_more_capacity_never_makes_a_set_infeasible_or_the_best_one_worse(seed: int) -> None:
    for chance, one in problems(seed, PROBLEMS // 4):
        accepted = best_set(one)
        for more in (
            replace(one, free_blocks=one.free_blocks + chance.uniform(0, 500)),
            replace(one, max_tokens=one.max_tokens * 2),
            replace(one, table=one.table.slower(chance.uniform(0.5, 1.0))),
        ):
            assert holds(more, accepted)
            assert value(more, best_set(more)) >= value(one, accepted)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_candidate_more_never_makes_the_best_set_worth_less(seed: int) -> None:
    for chance, one in problems(seed, PROBLEMS // 4):
        another = np.array(_candidate(chance, (1.0,)))
        items = np.array(sorted([*map(tuple, one.items), tuple(another)]))
        more = replace(one, items=items)
        assert value(more, best_set(more)) >= value(one, best_set(one))


def test_accepted_memory_is_what_is_free_at_most() -> None:
    for _, one in problems(1, PROBLEMS):
        accepted = best_set(one) & (one.items[:, FORCED] == 0)

        assert one.items[accepted, BLOCKS].sum() <= one.free_blocks
