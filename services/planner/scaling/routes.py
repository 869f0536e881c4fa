"""Places a replayed request: on the least loaded decode engine with room, by the quicker way to its
first token that breaks no other promise. Compiled.

A cheap approximation of `promises`: loads are sums over requests, without simulating engines.
"""

from typing import Final

import numpy as np

from services.planner.scaling.fleet_rows import Engines, Ints, kind_of, limits_of, table_of
from services.planner.scaling.recent_demand import (
    ARRIVES,
    CACHED,
    DRAFT,
    DUE,
    GAIN,
    OUTPUT,
    PACE,
    PROMPT,
    Demands,
)
from services.planner.tuning import KV_MARGIN, MOST_OF_DECODES
from shared.batch_time.table import (
    CHUNKS,
    COUNTS,
    DECODE_CONTEXT,
    DECODES,
    EARLIER,
    LONGEST_CONTEXT,
    LONGEST_PROMPT,
    PAIRS,
    PREFILL,
    SPECULATED,
    SPECULATION_STEPS,
    FloatArray,
    expected_s,
    sure_s,
)
from shared.compiled import compiled
from shared.scheduling import rows as of
from shared.scheduling.rows import PROMISED
from shared.scheduling.shares import BLOCK_TOKENS, FREE_BLOCKS, LONGEST_S, MAX_RESIDENT, ONE
from shared.scheduling.steady import likely_s

_MOST_TRIED: Final = 4  # decode engines that are looked at for one request
_HALF: Final = 0.5  # of its answer: what a request holds in KV on average
SHORT_OF_PREFILL, SHORT_OF_DECODE = -1, -2


@compiled
def route(fleet: Engines, demands: Demands, i: int, now: float, chosen: Ints) -> int:
    """Returns the engine that computes the prompt, and in `chosen` the one that decodes; or
    SHORT_OF_PREFILL or SHORT_OF_DECODE.
    """
    engines = len(fleet.used)
    shares = np.full(engines, np.inf)
    for engine in range(fleet.prefills, engines):
        if _has_room(fleet, engine, demands, i):
            share = _share(fleet, engine, demands, i)
            if share <= 1 or fleet.promises[engine] == 0:
                shares[engine] = share
    why = SHORT_OF_DECODE
    for _ in range(_MOST_TRIED):
        decode = int(np.argmin(shares))
        if shares[decode] == np.inf:
            return why
        why = SHORT_OF_PREFILL
        first, _ready_s = quickest(fleet, decode, demands, i, now)
        if first >= 0:
            chosen[0] = decode
            return first
        shares[decode] = np.inf
    return why


@compiled
def quickest(
    fleet: Engines, decode: int, demands: Demands, i: int, now: float
) -> tuple[int, float]:
    """The engine where the prompt is computed soonest, and when; -1 where it is late everywhere, or
    makes another one late.
    """
    best, best_s = -1, np.inf
    for engine in range(fleet.prefills + 1):
        where = decode if engine == fleet.prefills else engine
        ready_s = _ready_s(fleet, where, demands, i, now)
        if ready_s < best_s:
            best, best_s = where, ready_s
    return best, best_s


@compiled
def own_s(table: FloatArray, demands: Demands, i: int) -> float:
    """Seconds that its prompt adds to steps."""
    return _takes_s(table, demands[i, CACHED], demands[i, PROMPT])


@compiled
def _takes_s(table: FloatArray, computed: float, total: float) -> float:
    counts = np.zeros(COUNTS)
    empty_s = expected_s(table, counts)
    size = total - computed
    counts[CHUNKS], counts[PREFILL], counts[EARLIER] = 1.0, size, computed
    counts[PAIRS], counts[LONGEST_PROMPT] = size * (computed + size / 2), total
    return float(expected_s(table, counts) - empty_s)


@compiled
def _ready_s(fleet: Engines, engine: int, demands: Demands, i: int, now: float) -> float:
    """When its first token would come here with prompts in EDF order; infinite where that is late,
    or makes a prompt late that is in time without it.
    """
    table, limits = table_of(fleet, engine), limits_of(fleet, engine)
    due_s, own = demands[i, ARRIVES] + demands[i, DUE], own_s(table, demands, i)
    step_s = expected_s(table, np.zeros(COUNTS))
    slower = 1.0
    if engine >= fleet.prefills:
        left = 1.0 - min(MOST_OF_DECODES, _share(fleet, engine, demands, -1))
        slower = 1.0 / left
    starts_s = fleet.next_s[engine] if fleet.stepping[engine] else now
    count = fleet.used[engine]
    if count == fleet.rows.shape[1]:
        return np.inf
    dues_s, works_s, prompts = np.empty(count + 1), np.empty(count + 1), 0
    for j in range(count):
        row = fleet.rows[engine, j]
        computed = row[of.COMPUTED] + fleet.tokens[engine, j]
        if row[of.KIND] == PROMISED and row[of.TOTAL] - computed > ONE:
            dues_s[prompts] = row[of.DEADLINE]
            works_s[prompts] = _takes_s(table, computed, row[of.TOTAL])
            prompts += 1
    dues_s[prompts], works_s[prompts] = due_s, own
    prompts += 1
    per_step_s = np.inf
    if limits[LONGEST_S] > 0:
        per_step_s = max(step_s, limits[LONGEST_S] - step_s)
    work_s, ready_s, added = 0.0, np.inf, False
    for j in np.argsort(dues_s[:prompts]):
        work_s += works_s[j]
        steps = np.ceil(max(work_s / per_step_s, 1.0))
        ends_s = starts_s + slower * work_s + steps * step_s
        if j == prompts - 1:
            ready_s, added = ends_s, True
            if ends_s > due_s:
                return np.inf
        elif added and ends_s > dues_s[j] and ends_s - slower * own <= dues_s[j]:
            return np.inf
    return float(ready_s)


@compiled
def _share(fleet: Engines, engine: int, demands: Demands, newcomer: int) -> float:
    """The share of a decode engine's time that the TPOTs of its requests take, as in
    `scheduling.steady`, with one more request (-1: none).
    """
    table, tightest_s = table_of(fleet, engine), np.inf
    promises = fleet.promises[engine]
    for j in range(promises + 1):
        i = fleet.promised[engine, j] if j < promises else newcomer
        if i >= 0:
            tightest_s = min(tightest_s, _step_pace_s(demands, i))
    if tightest_s == np.inf:
        return 0.0
    counts = np.zeros(COUNTS)
    for j in range(promises + 1):
        i = fleet.promised[engine, j] if j < promises else newcomer
        if i >= 0 and demands[i, PACE] < np.inf:
            share = tightest_s / _step_pace_s(demands, i)
            context = demands[i, PROMPT] + _HALF * demands[i, OUTPUT]
            counts[DECODES] += share
            counts[SPECULATED] += share * demands[i, DRAFT]
            counts[SPECULATION_STEPS] = max(counts[SPECULATION_STEPS], demands[i, DRAFT])
            counts[DECODE_CONTEXT] += share * context
            counts[LONGEST_CONTEXT] = max(counts[LONGEST_CONTEXT], context)
    return float(likely_s(sure_s(table, counts), table, counts) / tightest_s)


@compiled
def _step_pace_s(demands: Demands, i: int) -> float:
    gain = demands[i, GAIN] if demands[i, DRAFT] > 0 else 1.0
    return float(demands[i, PACE] * gain)


@compiled
def _has_room(fleet: Engines, engine: int, demands: Demands, i: int) -> bool:
    limits, promises = limits_of(fleet, engine), fleet.promises[engine]
    if promises + 1 > min(limits[MAX_RESIDENT], fleet.promised.shape[1]):
        return False
    if promises == 0:
        return True
    blocks = _blocks(demands, i, limits)
    for j in range(promises):
        blocks += _blocks(demands, fleet.promised[engine, j], limits)
    return bool(KV_MARGIN * blocks <= limits[FREE_BLOCKS])


@compiled
def _blocks(demands: Demands, i: int, limits: FloatArray) -> float:
    return float(np.ceil((demands[i, PROMPT] + _HALF * demands[i, OUTPUT]) / limits[BLOCK_TOKENS]))


@compiled
def route_plain(fleet: Engines, chosen: Ints) -> int:
    """Places a request without targets where the fewest are; SHORT_OF_DECODE: all are full."""
    decode = _emptiest(fleet, fleet.promises, fleet.prefills, len(fleet.used))
    prefill = _emptiest(fleet, fleet.used, 0, fleet.prefills)
    chosen[0] = decode
    if decode < 0:
        return SHORT_OF_DECODE
    return prefill if prefill >= 0 else decode


@compiled
def _emptiest(fleet: Engines, load: Ints, start: int, end: int) -> int:
    best = -1
    for engine in range(start, end):
        most = min(fleet.promised.shape[1], limits_of(fleet, engine)[MAX_RESIDENT])
        room = load[engine] < most and fleet.used[engine] < fleet.rows.shape[1]
        if room and (best < 0 or load[engine] < load[best]):
            best = engine
    return best


@compiled
def has_no_slo(demands: Demands, i: int) -> bool:
    return kind_of(demands, i) != PROMISED
