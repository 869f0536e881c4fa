import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.evaluation.baselines.room import set_drafts
from shared.batch_time.table import COUNTS, FloatArray
from shared.scheduling.former import engine_limits
from shared.scheduling.rows import (
    AVAILABLE,
    COMPUTED,
    DRAFT,
    GENERATED,
    REMAINING,
    RESIDENT,
    TOKENS_PER_STEP,
    TOTAL,
    Rows,
)
from shared.scheduling.shares import EVICT, ONE
from shared.scheduling.simulate import apply
from tests.unit.evaluation.baselines.steps import (
    BLOCK_TOKENS,
    FORMERS,
    TABLE,
    Formed,
    decode,
    prompt,
    step,
)

CHANCES = st.integers(0, 2**32).map(random.Random)
NAMES = pytest.mark.parametrize("name", FORMERS)
_MOST_TOKENS = 700


def _requests(chance: random.Random, number: int) -> list[FloatArray]:
    return [_request(chance) for _ in range(number)]


def _request(chance: random.Random) -> FloatArray:
    tokens, due_s, key = (
        chance.randint(1, _MOST_TOKENS),
        chance.uniform(-1, 3),
        chance.randint(0, 2),
    )
    later = {"available_s": chance.choice((0.0, 0.0, 1.0)), "due_s": due_s, "key": key}
    if chance.random() < 0.5:
        return decode(tokens, runs=chance.random() < 0.8, **later)
    begun = chance.random() < 0.3
    computed = (
        chance.randint(0, tokens - 1) if begun else 16 * chance.randint(0, (tokens - 1) // 16)
    )
    return prompt(tokens, computed, runs=begun, **later)


def _blocks(rows: Rows, given: FloatArray | float = 0.0) -> float:
    """That they hold after so many tokens more; a cached prefix counts once its request runs."""
    decodes = rows[:, TOTAL] - rows[:, COMPUTED] <= ONE
    holds = (rows[:, RESIDENT] > 0) | decodes | (given > 0)
    return float(np.ceil((rows[:, COMPUTED] + given) / BLOCK_TOKENS)[holds].sum())


@NAMES
@given(chance=CHANCES, number=st.integers(0, 30), drafts=st.integers(0, 4))
def test_a_step_never_gives_out_what_is_not_there(
    name: str, chance: random.Random, number: int, drafts: int
) -> None:
    requests = _requests(chance, number)
    max_tokens, free_blocks = chance.choice((33, 256, 512)), float(chance.randint(0, 60))
    places = sum(int(row[RESIDENT]) for row in requests) + chance.randint(0, 3)

    formed = step(
        FORMERS[name],
        *requests,
        max_tokens=max_tokens,
        free_blocks=free_blocks,
        max_resident=places,
        drafts=drafts,
    )

    rows, tokens = formed.rows, np.array(formed.tokens, dtype=np.float64)
    given_, evicted = np.maximum(tokens, 0), tokens == EVICT
    kept = ~evicted
    had = _blocks(rows)
    assert given_.sum() <= max_tokens
    assert _blocks(rows[kept], given_[kept]) <= had + free_blocks
    assert ((rows[:, RESIDENT] > 0) & kept | (tokens > 0)).sum() <= places
    missing = rows[:, TOTAL] - rows[:, COMPUTED] + rows[:, DRAFT]
    assert (given_ <= missing).all()


@NAMES
@given(chance=CHANCES, number=st.integers(1, 30))
def test_a_request_goes_on_whenever_one_can(name: str, chance: random.Random, number: int) -> None:
    requests = _requests(chance, number)
    can_run = [row for row in requests if row[AVAILABLE] <= 0]
    holding = _blocks(np.array(can_run)) if can_run else 0.0
    most_blocks = np.ceil((_MOST_TOKENS + 1) / BLOCK_TOKENS)
    places = sum(int(row[RESIDENT]) for row in requests) + 1

    formed = step(
        FORMERS[name],
        *requests,
        free_blocks=max(0.0, most_blocks - holding),
        max_resident=places,
    )

    assert (formed.lasts_s > 0) == bool(can_run)
    assert (max(formed.tokens) > 0) == bool(can_run)


@NAMES
@settings(max_examples=30)
@given(chance=CHANCES, number=st.integers(1, 8), drafts=st.sampled_from((0, 3)))
def test_each_request_gets_all_tokens_in_the_end_however_little_kv_there_is(
    name: str, chance: random.Random, number: int, drafts: int
) -> None:
    rows = np.array([_short(chance) for _ in range(number)])
    memory = np.ceil(rows[:, TOTAL].max() / BLOCK_TOKENS) + 3
    wanted = rows[:, REMAINING].copy()

    steps = _run(name, rows, memory, drafts)

    assert (rows[:, REMAINING] <= 0).all(), f"{rows[:, REMAINING]} after {steps} steps"
    assert (rows[:, GENERATED] == wanted).all()


def _short(chance: random.Random) -> FloatArray:
    row = prompt(chance.randint(1, 200), key=chance.randint(0, 2), due_s=chance.uniform(0, 1))
    row[REMAINING] = chance.randint(1, 20)
    return row


def _run(name: str, rows: Rows, memory: float, drafts: int) -> int:
    """Each step as an engine would do it whose drafts are all refused."""
    tokens, counts = np.zeros(len(rows), dtype=np.int64), np.zeros(COUNTS)
    now, seen = 0.0, np.zeros((len(rows), 4))
    for number in range(2000):
        free = memory - _blocks(rows)
        assert free >= 0
        limits = engine_limits(
            max_tokens=64, block_tokens=BLOCK_TOKENS, max_resident=4, free_blocks=free
        )
        set_drafts(rows, float(drafts))
        lasts_s = FORMERS[name](rows, tokens, counts, TABLE.numbers, limits, now)
        if lasts_s == 0:
            return number
        now += lasts_s
        rows[:, TOKENS_PER_STEP] = 1.0
        apply(rows, seen, tokens, now, 0.0)
    return 2000


@NAMES
def test_a_step_counts_what_it_gives(name: str) -> None:
    formed: Formed = step(FORMERS[name], decode(), decode(), max_tokens=512)

    assert formed.tokens == [1, 1]
    assert formed.counts[0] == 2
    assert formed.lasts_s == pytest.approx(0.0102)
