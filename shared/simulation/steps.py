"""Applies a step of a simulated engine to rows and metrics, in compiled code."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared.batch_time.table import FloatArray
from shared.compiled import compiled
from shared.scheduling.due import change_pace
from shared.scheduling.rows import (
    AVAILABLE,
    COMPUTED,
    DRAFT,
    RESIDENT,
    TOKENS_PER_STEP,
    TOTAL,
    TPOT,
    Rows,
)
from shared.scheduling.shares import EVICT, Tokens, holds_kv, shared_blocks
from shared.scheduling.simulate import Times, apply
from shared.simulation.request_metrics import (
    ACCEPTANCE,
    CHANGES_AT,
    EVICTED,
    LATER_PACE,
    OUTPUT,
    PACE,
    STARTED,
    TOKENS,
    RequestMetrics,
    give,
)

Indexes = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Sent = npt.NDArray[np.int64]
STAYS, ENDED, PREFILLED = 0, 1, 2
# Offsets into the sums of a step.
GIVEN, DROPPED, RESIDENTS, DRAFTING, USED_BLOCKS = range(5)
SUMS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafted:
    """Drafted and accepted tokens of the last step, by index of the request."""

    indexes: Indexes
    drafted: npt.NDArray[np.float64]
    accepted: npt.NDArray[np.float64]


@compiled
def used_blocks(rows: Rows, tokens: Tokens, block_tokens: float) -> float:
    """Blocks that these rows hold, those included that the running step fills.

    Prompts that have not begun hold none, whatever they found in the prefix cache. Blocks that
    several share are not counted.
    """
    used = 0.0
    for i in range(len(rows)):
        if tokens[i] != EVICT and (tokens[i] > 0 or holds_kv(rows, i)):
            used += np.ceil((rows[i, COMPUTED] + tokens[i]) / block_tokens)
            used -= shared_blocks(rows, i, block_tokens)
    return used


@compiled
def let_go(rows: Rows, now: float) -> float:
    """Drops the found or sent tokens of waiting rows; returns their number."""
    dropped = 0.0
    for i in range(len(rows)):
        if rows[i, RESIDENT] == 0 and rows[i, AVAILABLE] <= now:
            dropped += rows[i, COMPUTED]
            rows[i, COMPUTED] = 0.0
    return dropped


@compiled
def start(
    rows: Rows,
    after: Rows,
    seen: Times,
    tokens: Tokens,
    indexes: Indexes,
    metrics: RequestMetrics,
    uniforms: FloatArray,
    sums: FloatArray,
    block_tokens: float,
    now: float,
    ends_s: float,
) -> None:
    """Computes a step at its start.

    Fills `after` with the rows after the step, `seen` with the tokens that it produces, and `sums`.
    One of `uniforms` for each row decides how many drafts are accepted.
    """
    sums[:] = 0.0
    seen[:, 2] = 0.0
    after[:] = rows
    for i in range(len(rows)):
        request = metrics[indexes[i]]
        if tokens[i] == EVICT:
            request[EVICTED] += 1
            sums[DROPPED] += rows[i, COMPUTED]
        elif tokens[i] > 0:
            sums[GIVEN] += tokens[i]
            if np.isnan(request[STARTED]):
                request[STARTED] = now
            if tokens[i] > 1 and rows[i, DRAFT] > 0 and len(uniforms):
                after[i, TOKENS_PER_STEP] = _gain(rows[i, DRAFT], request, uniforms[i])
                sums[DRAFTING] += 1
    apply(after, seen, tokens, ends_s, 0.0)
    for i in range(len(rows)):
        after[i, TOKENS_PER_STEP] = rows[i, TOKENS_PER_STEP]
        if tokens[i] > 0 or (rows[i, RESIDENT] > 0 and tokens[i] != EVICT):
            sums[RESIDENTS] += 1
    sums[USED_BLOCKS] = used_blocks(rows, tokens, block_tokens)


@compiled
def _gain(drafts: float, request: FloatArray, chance: float) -> float:
    """One token plus the accepted drafts, by one uniform number; at most the tokens left."""
    most = min(drafts, request[OUTPUT] - request[TOKENS] - 1)
    reached, gain = request[ACCEPTANCE], 1.0
    while gain <= most and chance < reached:
        gain += 1
        reached *= request[ACCEPTANCE]
    return gain


@compiled
def finish(
    rows: Rows,
    indexes: Indexes,
    metrics: RequestMetrics,
    seen: Times,
    tokens: Tokens,
    prefill_only: Flags,
    before: Rows,
    ended_indexes: Indexes,
    started_indexes: Indexes,
    sent: Sent,
    now: float,
) -> tuple[int, int, int]:
    """Records the tokens of a step in the metrics; the rows that stay move up, in order.

    Fills `ended_indexes` with the requests that have all their tokens, `started_indexes` with those
    that have their first token, and `sent` with index and tokens of each request that moves on
    after its prefill. Returns the numbers of ended, moved and started ones.
    """
    ended, moved, started = 0, 0, 0
    for i in range(len(rows)):
        tokens[i] = 0
        state = STAYS
        if seen[i, 2] > 0:
            if metrics[indexes[i], TOKENS] == 0:
                started_indexes[started] = indexes[i]
                started += 1
            state = _settle(rows[i], metrics[indexes[i]], seen[i, 2], prefill_only[i], now)
        if state == ENDED:
            ended_indexes[ended] = indexes[i]
            ended += 1
        elif state == PREFILLED:
            sent[moved, 0], sent[moved, 1] = indexes[i], before[i, TOTAL]
            moved += 1
        elif ended + moved > 0:
            place = i - ended - moved
            rows[place] = rows[i]
            indexes[place], prefill_only[place] = indexes[i], prefill_only[i]
    return ended, moved, started


@compiled
def _settle(
    row: FloatArray, request: FloatArray, gained: float, prefill_only: bool, now: float
) -> int:
    before = request[TOKENS]
    give(request, gained, now)
    if before < request[CHANGES_AT] <= request[TOKENS]:
        change_pace(row, row[TPOT] * (request[LATER_PACE] / request[PACE]), 0, now)
    if request[TOKENS] >= request[OUTPUT]:
        return ENDED
    return PREFILLED if prefill_only else STAYS
