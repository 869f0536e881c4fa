"""The multi-SLO program: which of the requests that wait an engine can promise to serve, all at
once and at the greatest value. A fluid model of the engine; the exact simulation has the last word.

The paper's Algorithm 1 (arXiv 2504.08784, section 3) in its corrected form: requests in order of
their prefill deadlines, states of (value, memory, spare prefill tokens, accepted by tier) of which
only those are kept that no other one beats in all four.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.planner.admission.fluid import BUSY_S, spare_rate
from services.planner.admission.program_states import (
    HELD,
    SPARE,
    WORTH,
    Integers,
    keep_forced,
    most_worth,
    pareto,
    promising,
)
from shared.batch_time import StepTable
from shared.batch_time.table import Numbers
from shared.compiled import compiled

MOST_CANDIDATES = 62  # a set of them is one machine word
_FEW_STATES = 256  # not worth the search for those that are beaten
_MOST_STATES = 4096  # beyond, those of the least value go and the answer may not be the best one
_FEW_CANDIDATES = 8  # not worth a search before the search
_NARROW = 16
_ROUNDING = 1e-9
_ITEM = (DUE_S, PROMPT, TIER, BLOCKS, VALUE, FORCED) = range(6)

Items = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """One engine and those who want it, all times in seconds from now.

    `items`: a row for each request by prefill deadline: DUE_S, PROMPT (tokens left to compute),
    TIER, BLOCKS (KV it will need), VALUE, FORCED (1: it runs already and stays). `paces_s` are
    those of the tiers, `contexts` the KV that a decode of each reads. The engine is free after
    `busy_s`, computes at most `max_tokens` in a step of at most `longest_s` (0: of any length).
    """

    items: Items
    paces_s: Numbers
    contexts: Numbers
    free_blocks: float
    busy_s: float
    max_tokens: float
    longest_s: float
    table: StepTable


def best_set(problem: Problem) -> Mask:
    """Which items to accept: all forced ones, and of the others the set of the greatest value.

    Raises ValueError for more than MOST_CANDIDATES others.
    """
    candidates = np.flatnonzero(problem.items[:, FORCED] == 0)
    if len(candidates) > MOST_CANDIDATES:
        raise ValueError(f"{len(candidates)} candidates at once, at most {MOST_CANDIDATES}")
    arguments = _arguments(problem)
    # What a narrow search finds bounds the wide one: states that cannot come up to it are dropped.
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
    """Whether this very set is feasible in the program's model of the engine."""
    return bool(_holds(*_arguments(problem), accepted))


def _arguments(problem: Problem) -> tuple[Items, Numbers, Numbers, float, Numbers, Numbers]:
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
    """Time of the engine between the deadline before and this one."""
    before_s = items[i - 1, DUE_S] if i > 0 else 0.0
    return float(max(0.0, items[i, DUE_S] - max(before_s, busy_s)))


@compiled
def _least_spare(
    items: Items, paces_s: Numbers, contexts: Numbers, engine: Numbers, table: Numbers
) -> Numbers:
    """The spare tokens after each item with nobody accepted but the forced: below nothing it may
    not sink further. Such an engine is behind already, and nobody else may make it worse.
    """
    floor = np.zeros(len(items))
    decodes = np.zeros(len(paces_s))
    spare = 0.0
    for i in range(len(items)):
        passed_s = _passed_s(items, i, engine[BUSY_S])
        if passed_s > 0:
            spare += passed_s * max(0.0, spare_rate(decodes, paces_s, contexts, engine, table))
        if items[i, FORCED] == 1:
            spare -= items[i, PROMPT]
            decodes[int(items[i, TIER])] += 1
        floor[i] = min(0.0, spare)
    return floor


@compiled
def _finally(items: Items, tiers: int) -> Numbers:
    """How many of each tier decode in the end if nobody new comes."""
    decodes = np.zeros(tiers)
    for i in range(len(items)):
        decodes[int(items[i, TIER])] += items[i, FORCED]
    return decodes


@compiled
def _holds(
    items: Items,
    paces_s: Numbers,
    contexts: Numbers,
    free_blocks: float,
    engine: Numbers,
    table: Numbers,
    accepted: Mask,
) -> bool:
    floor = _least_spare(items, paces_s, contexts, engine, table)
    decodes, in_the_end = np.zeros(len(paces_s)), _finally(items, len(paces_s))
    spare, held = 0.0, 0.0
    for i in range(len(items)):
        passed_s = _passed_s(items, i, engine[BUSY_S])
        if passed_s > 0:
            spare += passed_s * max(0.0, spare_rate(decodes, paces_s, contexts, engine, table))
        if not accepted[i]:
            continue
        spare -= items[i, PROMPT]
        decodes[int(items[i, TIER])] += 1
        if spare < floor[i]:
            return False
        if items[i, FORCED] == 0:
            held += items[i, BLOCKS]
            in_the_end[int(items[i, TIER])] += 1
            slow = spare_rate(in_the_end, paces_s, contexts, engine, table) < 0
            if held > free_blocks or slow:
                return False
    return True


@compiled
def _best_mask(
    items: Items,
    paces_s: Numbers,
    contexts: Numbers,
    free_blocks: float,
    engine: Numbers,
    table: Numbers,
    least: float,
    most_states: int,
) -> int:
    """The set of the greatest value, as bits, given that there is one worth `least`.

    States side by side: numbers, accepted by tier, and the set of candidates. Of more than
    `most_states` those of the least value go.
    """
    tiers = len(paces_s)
    to_come = 0.0
    for i in range(len(items)):
        to_come += items[i, VALUE] * (1.0 - items[i, FORCED])
    floor = _least_spare(items, paces_s, contexts, engine, table)
    room = _room(items)
    states, taken = np.zeros((room, 3)), np.zeros((room, tiers), dtype=np.int64)
    masks = np.zeros(room, dtype=np.int64)
    # What has been computed for so many of each tier: the rate up to here, and that in the end.
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
    """States that can come up at once."""
    candidates = 0
    for i in range(len(items)):
        candidates += int(items[i, FORCED] == 0)
    return 2 * _MOST_STATES if candidates > 12 else 1 << (candidates + 1)


@compiled
def _span(items: Items, tiers: int) -> Integers:
    """The places that one more of each tier is apart in a table over all numbers by tier."""
    span = np.ones(tiers + 1, dtype=np.int64)
    for tier in range(tiers):
        wanted = 0
        for i in range(len(items)):
            wanted += int(items[i, TIER] == tier and items[i, FORCED] == 0)
        span[tier + 1] = span[tier] * (wanted + 1)
    return span


@compiled
def _rate(
    known: Numbers,
    span: Integers,
    always: Numbers,
    taken: Integers,
    paces_s: Numbers,
    contexts: Numbers,
    engine: Numbers,
    table: Numbers,
) -> float:
    """The spare rate beside `always` and `taken`, from what is known where it is."""
    place = 0
    for tier in range(len(taken)):
        place += taken[tier] * span[tier]
    if np.isnan(known[place]):
        known[place] = spare_rate(always + taken, paces_s, contexts, engine, table)
    return float(known[place])
