"""Laws of the step former and its simulation, on loads drawn at random (plain seeds: the compiled
code makes thousands of them cheap).
"""

import random
from collections.abc import Iterator

import numpy as np
import pytest

from shared.batch_time import StepTable
from shared.batch_time.table import CHUNKS, COUNTS, DECODES, PREFILL, FloatArray, sure_s
from shared.scheduling.kernel import form
from shared.scheduling.rows import (
    AVAILABLE,
    BEST_EFFORT,
    COMPUTED,
    DEADLINE,
    EXPIRED,
    GENERATED,
    KIND,
    NO_SLO,
    PROMISED,
    RESIDENT,
    TOTAL,
    TPOT,
    Rows,
)
from shared.scheduling.shares import (
    FREE_BLOCKS,
    KEPT,
    LIMITS,
    MAX_RESIDENT,
    MAX_TOKENS,
    SET_ASIDE,
    Tokens,
)
from shared.scheduling.simulate import simulate
from tests.unit.shared.scheduling.loads import BLOCK_TOKENS, TABLES, limits, requests

SEEDS = range(8)
LOADS = 150  # of each seed


def formed(rows: Rows, table: StepTable, bounds: FloatArray) -> tuple[Tokens, FloatArray, float]:
    tokens, counts = np.zeros(len(rows), dtype=np.int64), np.zeros(COUNTS)
    lasts_s = form(rows, tokens, counts, table.numbers, bounds, 0.0)
    return tokens, counts, lasts_s


def mixed(chance: random.Random) -> Rows:
    """Of all kinds; what was not promised is never due."""
    kinds = [chance.choice((PROMISED, PROMISED, NO_SLO, EXPIRED, BEST_EFFORT)) for _ in range(4)]
    return never_due(
        np.concatenate([requests(chance, chance.randint(0, 8), kind) for kind in kinds])
    )


def never_due(rows: Rows) -> Rows:
    """The same, nothing being asked of those that were not promised."""
    for column in (DEADLINE, TPOT):
        rows[rows[:, KIND] > PROMISED, column] = np.inf
    return rows


def feasible(
    seed: int, slack: float = 1.0
) -> Iterator[tuple[random.Random, Rows, StepTable, FloatArray]]:
    """Loads whose promises are all kept, even where steps take `slack` times as long."""
    chance = random.Random(seed)
    for _ in range(LOADS):
        table, rows = chance.choice(TABLES), requests(chance, chance.randint(1, 25))
        bounds = limits(chance)
        if not simulate(rows, table.slower(slack), bounds, 0.0).late(rows).any():
            yield chance, rows, table, bounds


def blocks(tokens: FloatArray) -> FloatArray:
    return np.ceil(tokens / BLOCK_TOKENS)


def taken_of(rows: Rows, tokens: Tokens, bounds: FloatArray) -> tuple[FloatArray, float]:
    """Blocks that each request takes in a step, and those that there are with what is evicted."""
    more = blocks(rows[:, COMPUTED] + tokens) - blocks(rows[:, COMPUTED])
    return more, bounds[FREE_BLOCKS] + blocks(rows[:, COMPUTED])[tokens < 0].sum()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_step_keeps_within_tokens_blocks_and_places(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(LOADS):
        rows = mixed(chance)
        places = rows[:, RESIDENT].sum() + chance.randint(0, 4)
        bounds = limits(chance, free_blocks=chance.randint(0, 300), max_resident=int(places))
        tokens, _, _ = formed(rows, chance.choice(TABLES), bounds)
        run, evicted = tokens > 0, tokens < 0
        computed = rows[:, COMPUTED]
        taken = (blocks(computed + tokens) - blocks(computed))[run].sum()
        new = (1 - rows[:, RESIDENT])[run].sum() - rows[evicted, RESIDENT].sum()

        assert tokens[run].sum() <= bounds[MAX_TOKENS]
        assert taken <= bounds[FREE_BLOCKS] + blocks(computed)[evicted].sum()
        assert rows[:, RESIDENT].sum() + new <= bounds[MAX_RESIDENT]
        assert (tokens[run] <= (rows[:, TOTAL] - computed)[run]).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_only_what_was_never_promised_or_is_lost_is_evicted(seed: int) -> None:
    chance = random.Random(seed)
    evictions = 0
    for _ in range(LOADS):
        rows = mixed(chance)
        bounds = limits(chance, free_blocks=chance.randint(0, 100))
        tokens, _, _ = formed(rows, chance.choice(TABLES), bounds)
        evictions += (tokens < 0).sum()

        assert (rows[tokens < 0, KIND] > NO_SLO).all()
    assert evictions > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_best_effort_makes_the_room_that_is_set_aside_and_takes_none_of_it(seed: int) -> None:
    chance = random.Random(seed)
    made = 0
    for _ in range(LOADS):
        rows = mixed(chance)
        bounds = limits(chance, free_blocks=chance.randint(0, 100))
        bounds[SET_ASIDE] = chance.randint(0, 200)
        tokens, _, _ = formed(rows, chance.choice(TABLES), bounds)
        run, evicted, beside = tokens > 0, tokens < 0, rows[:, KIND] > NO_SLO
        more, there = taken_of(rows, tokens, bounds)

        if there < bounds[SET_ASIDE]:  # all that could make room did
            assert not (beside & (rows[:, RESIDENT] > 0) & ~evicted).any()
        if more[run & beside].any():
            assert there - more[run].sum() >= bounds[SET_ASIDE]
        made += evicted.sum()
    assert made > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_best_effort_takes_none_of_what_is_kept_beside_promises(seed: int) -> None:
    chance = random.Random(seed)
    taken_alone = 0.0
    for _ in range(LOADS):
        rows = mixed(chance)
        bounds = limits(chance, free_blocks=chance.randint(0, 300))
        bounds[KEPT] = chance.randint(0, 200)
        table = chance.choice(TABLES)
        tokens, _, _ = formed(rows, table, bounds)
        run, beside = tokens > 0, rows[:, KIND] > NO_SLO
        more, there = taken_of(rows, tokens, bounds)
        runnable = (rows[:, KIND] == PROMISED) & (rows[:, AVAILABLE] <= 0)
        if runnable.any() and more[run & beside].any():
            assert there - more[run].sum() >= bounds[KEPT]

        alone = rows[rows[:, KIND] > PROMISED]
        free = bounds.copy()
        free[KEPT] = 0.0
        tokens, _, _ = formed(alone, table, bounds)
        assert (tokens == formed(alone, table, free)[0]).all()
        taken_alone += tokens.clip(0).sum()
    assert taken_alone > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_step_takes_as_long_as_the_table_says_of_what_is_in_it(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(LOADS):
        rows, table = mixed(chance), chance.choice(TABLES)
        tokens, counts, lasts_s = formed(rows, table, limits(chance))
        decodes = (rows[:, TOTAL] - rows[:, COMPUTED] == 1) & (tokens > 0)
        chunks = (tokens > 0) & ~decodes

        assert counts[DECODES] == decodes.sum()
        assert (counts[CHUNKS], counts[PREFILL]) == (chunks.sum(), tokens[chunks].sum())
        assert lasts_s == (sure_s(table.numbers, counts) if tokens.any() else 0.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_step_ends_before_any_token_is_due_that_could_still_be_on_time(seed: int) -> None:
    for _, rows, table, bounds in feasible(seed):
        tokens, _, lasts_s = formed(rows, table, bounds)
        decoding = rows[:, GENERATED] > 0

        assert (lasts_s <= rows[decoding, DEADLINE]).all()
        assert tokens.any()


@pytest.mark.parametrize("seed", SEEDS)
def test_forming_a_step_changes_no_request_and_comes_out_the_same_again(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(LOADS):
        rows, table, bounds = mixed(chance), chance.choice(TABLES), limits(chance)
        before = rows.copy()
        tokens, _, _ = formed(rows, table, bounds)

        assert (rows == before).all()
        assert (formed(before, table, bounds)[0] == tokens).all()
        assert len(bounds) == LIMITS


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_not_promised_never_delays_a_promise(seed: int) -> None:
    for chance, rows, table, bounds in feasible(seed):
        others = [requests(chance, chance.randint(0, 4), kind) for kind in (NO_SLO, BEST_EFFORT)]
        beside = never_due(np.concatenate([rows, *others]))

        assert not simulate(beside, table, bounds, 0.0).late(beside).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_without_one_of_its_requests_an_engine_keeps_the_promises_of_the_others(seed: int) -> None:
    for _, rows, table, bounds in feasible(seed):
        for gone in range(len(rows)):
            rest = np.delete(rows, gone, 0)

            assert not simulate(rest, table, bounds, 0.0).late(rest).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_slower_engine_holds_a_faster_one_holds(seed: int) -> None:
    for chance, rows, table, bounds in feasible(seed, slack=1.1):
        faster = table.slower(chance.uniform(0.3, 1.1))

        assert not simulate(rows, faster, bounds, 0.0).late(rows).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_more_tokens_in_a_step_break_no_promise(seed: int) -> None:
    for _, rows, table, bounds in feasible(seed):
        wider = bounds.copy()
        wider[MAX_TOKENS] *= 2

        assert not simulate(rows, table, wider, 0.0).late(rows).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_simulating_changes_nothing_and_says_the_same_again(seed: int) -> None:
    for _, rows, table, bounds in feasible(seed):
        before = rows.copy()
        first = simulate(rows, table, bounds, 0.0)

        assert (rows == before).all()
        assert (simulate(rows, table, bounds, 0.0).first_s == first.first_s).all()
