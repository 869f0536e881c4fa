"""The admission DP: the set of waiting requests of the greatest value that an engine can
serve, by a fluid model. `feasibility` then simulates that set.

A corrected form of Algorithm 1 of arXiv 2504.08784, section 3. A dynamic program takes requests by
prefill deadline. Of its states (value, memory, spare prefill tokens, accepted by tier) it keeps the
Pareto-optimal ones.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.planner.admission.dynamic_program_states import (
    HELD,
    SPARE,
    WORTH,
    Integers,
    keep_forced,
    most_worth,
    pareto,
    promising,
)
from services.planner.admission.fluid_model import BUSY_S, prefill_throughput
from shared.batch_time import StepTable
from shared.batch_time.table import FloatArray
from shared.compiled import compiled

MOST_CANDIDATES = 62  # a set of them is one machine word
_FEW_STATES = 256  # up to here dominated states are not searched for
_MOST_STATES = 4096  # beyond, the states of the least value go, and the answer may not be optimal
_FEW_CANDIDATES = 8  # up to here there is no narrow search before the wide one
_NARROW = 16
_ROUNDING = 1e-9
_ITEM = (DUE_S, PROMPT, TIER, BLOCKS, VALUE, FORCED) = range(6)

Items = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """One engine and its requests, all times in seconds from now.

    Attributes:
        items: A row for each request, by prefill deadline: DUE_S, PROMPT (tokens left to compute),
            TIER, BLOCKS (KV that it will need), VALUE, FORCED (1: it runs already and stays).
        paces_s: TPOT of each tier.
        contexts: Context tokens that a decode of each tier reads.
        busy_s: When the engine is free.
        max_tokens: Token budget of a step.
        longest_s: Limit of a step's time; 0: none.
    """

    items: Items
    paces_s: FloatArray
    contexts: FloatArray
    free_blocks: float
    busy_s: float
    max_tokens: float
    longest_s: float
    table: StepTable


def best_set(problem: Problem) -> Mask:
    """The accepted items: all forced ones, and of the candidates the set of the greatest value.

    Raises ValueError for more than MOST_CANDIDATES candidates.
    """
    candidates = np.flatnonzero(problem.items[:, FORCED] == 0)
    if len(candidates) > MOST_CANDIDATES:
        raise ValueError(f"{len(candidates)} candidates at once, at most {MOST_CANDIDATES}")
    arguments = _arguments(problem)
    # A narrow search gives a lower bound: the wide one drops states that cannot reach it.
    least = -np.inf
    if len(candidates) > _FEW_CANDIDATES:
        found = int(_best_mask(*arguments, least, _NARROW))
        taken = [i for bit, i in enumerate(candidates) if found >> bit & 1]
        least = float(problem.items[taken, VALUE].sum())
    chosen = int(_best_mask(*arguments, least, _MOST_STATES))
    accepted: Mask = problem.items[:, FORCED] == 1
    for bit, item in enumerate(candidates):
        accepted[item] = bool(chosen >> bit & 1)
    return accepted


def holds(problem: Problem, accepted: Mask) -> bool:
    """Whether this very set is feasible in the DP's model of the engine."""
    return bool(_holds(*_arguments(problem), accepted))


def _arguments(
    problem: Problem,
) -> tuple[Items, FloatArray, FloatArray, float, FloatArray, FloatArray]:
    engine = np.array([problem.busy_s, problem.max_tokens, problem.longest_s])
    return (
        problem.items,
        problem.paces_s,
        problem.contexts,
        float(problem.free_blocks),
        engine,
        problem.table.numbers,
    )


@compiled
def _passed_s(items: Items, i: int, busy_s: float) -> float:
    """Seconds that the engine has between the previous deadline and this one."""
    before_s = items[i - 1, DUE_S] if i > 0 else 0.0
    return float(max(0.0, items[i, DUE_S] - max(before_s, busy_s)))


@compiled
def _least_spare(
    items: Items, paces_s: FloatArray, contexts: FloatArray, engine: FloatArray, table: FloatArray
) -> FloatArray:
    """The least spare tokens allowed after each item: 0, or what the forced items alone leave where
    that is negative. Such an engine is late already, and candidates may not make it later.
    """
    floor = np.zeros(len(items))
    decodes = np.zeros(len(paces_s))
    spare = 0.0
    for i in range(len(items)):
        passed_s = _passed_s(items, i, engine[BUSY_S])
        if passed_s > 0:
            spare += passed_s * max(
                0.0, prefill_throughput(decodes, paces_s, contexts, engine, table)
            )
        if items[i, FORCED] == 1:
            spare -= items[i, PROMPT]
            decodes[int(items[i, TIER])] += 1
        floor[i] = min(0.0, spare)
    return floor


@compiled
def _finally(items: Items, tiers: int) -> FloatArray:
    """The forced decodes of each tier, once all prompts are computed."""
    decodes = np.zeros(tiers)
    for i in range(len(items)):
        decodes[int(items[i, TIER])] += items[i, FORCED]
    return decodes


@compiled
def _holds(
    items: Items,
    paces_s: FloatArray,
    contexts: FloatArray,
    free_blocks: float,
    engine: FloatArray,
    table: FloatArray,
    accepted: Mask,
) -> bool:
    floor = _least_spare(items, paces_s, contexts, engine, table)
    decodes, in_the_end = np.zeros(len(paces_s)), _finally(items, len(paces_s))
    spare, held = 0.0, 0.0
    for i in range(len(items)):
        passed_s = _passed_s(items, i, engine[BUSY_S])
        if passed_s > 0:
            spare += passed_s * max(
                0.0, prefill_throughput(decodes, paces_s, contexts, engine, table)
            )
        if not accepted[i]:
            continue
        spare -= items[i, PROMPT]
        decodes[int(items[i, TIER])] += 1
        if spare < floor[i]:
            return False
        if items[i, FORCED] == 0:
            held += items[i, BLOCKS]
            in_the_end[int(items[i, TIER])] += 1
            slow = prefill_throughput(in_the_end, paces_s, contexts, engine, table) < 0
            if held > free_blocks or slow:
                return False
    return True


@compiled
def _best_mask(
    items: Items,
    paces_s: FloatArray,
    contexts: FloatArray,
    free_blocks: float,
    engine: FloatArray,
    table: FloatArray,
    least: float,
    most_states: int,
) -> int:
    """The set of the greatest value as bits, given that a set of value `least` exists.

    A state has its numbers, accepted requests by tier, and its set of candidates. Beyond
    `most_states`, the states of the least value are dropped.
    """
    tiers = len(paces_s)
    to_come = 0.0
    for i in range(len(items)):
        to_come += items[i, VALUE] * (1.0 - items[i, FORCED])
    floor = _least_spare(items, paces_s, contexts, engine, table)
    room = _room(items)
    states, taken = np.zeros((room, 3)), np.zeros((room, tiers), dtype=np.int64)
    masks = np.zeros(room, dtype=np.int64)
    # Memoized rates by accepted requests of each tier: at this item, and once all decode.
    span = _span(items, tiers)
    rates, last_rates = np.full(span[tiers], np.nan), np.full(span[tiers], np.nan)
    always, in_the_end = np.zeros(tiers), _finally(items, tiers)
    count, bit = 1, 0
    for i in range(len(items)):
        passed_s, tier = _passed_s(items, i, engine[BUSY_S]), int(items[i, TIER])
        for k in range(count if passed_s > 0 else 0):
            rate = _rate(rates, span, always, taken[k], paces_s, contexts, engine, table)
            states[k, SPARE] += max(0.0, rate) * passed_s
        if items[i, FORCED] == 1:
            always[tier] += 1
            rates[:] = np.nan
            count = keep_forced(states, taken, masks, count, items[i, PROMPT], floor[i])
            continue
        before = count
        for k in range(before):
            spare = states[k, SPARE] - items[i, PROMPT]
            held = states[k, HELD] + items[i, BLOCKS]
            if spare < floor[i] or held > free_blocks:
                continue
            taken[count] = taken[k]
            taken[count, tier] += 1
            together = taken[count]
            if _rate(last_rates, span, in_the_end, together, paces_s, contexts, engine, table) < 0:
                continue
            states[count, WORTH] = states[k, WORTH] + items[i, VALUE]
            states[count, HELD], states[count, SPARE] = held, spare
            masks[count] = masks[k] | (np.int64(1) << bit)
            count += 1
        bit += 1
        to_come -= items[i, VALUE]
        count = promising(states, taken, masks, count, least - to_come - _ROUNDING)
        if count > min(_FEW_STATES, most_states):
            count = pareto(states, taken, masks, count)
        count = min(count, most_states)
    return most_worth(states, masks, count)


@compiled
def _room(items: Items) -> int:
    """The most states that can exist at once."""
    candidates = 0
    for i in range(len(items)):
        candidates += int(items[i, FORCED] == 0)
    return 2 * _MOST_STATES if candidates > 12 else 1 << (candidates + 1)


@compiled
def _span(items: Items, tiers: int) -> Integers:
    """The stride of each tier in a table over all numbers of accepted requests by tier."""
    span = np.ones(tiers + 1, dtype=np.int64)
    for tier in range(tiers):
        wanted = 0
        for i in range(len(items)):
            wanted += int(items[i, TIER] == tier and items[i, FORCED] == 0)
        span[tier + 1] = span[tier] * (wanted + 1)
    return span


@compiled
def _rate(
    known: FloatArray,
    span: Integers,
    always: FloatArray,
    taken: Integers,
    paces_s: FloatArray,
    contexts: FloatArray,
    engine: FloatArray,
    table: FloatArray,
) -> float:
    """The spare rate beside the decodes `always` and `taken`, memoized in `known`."""
    place = 0
    for tier in range(len(taken)):
        place += taken[tier] * span[tier]
    if np.isnan(known[place]):
        known[place] = prefill_throughput(always + taken, paces_s, contexts, engine, table)
    return float(known[place])
