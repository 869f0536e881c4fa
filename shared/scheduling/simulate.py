"""Simulates an engine without new arrivals: the step former on a virtual clock.

Steps take slightly longer than the table expects. A token counts as on time only if it still is
where its own step takes as long as its bound. That every step takes its bound is too unlikely to
plan for.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.batch_time import StepTable
from shared.batch_time.table import (
    COUNTS,
    FloatArray,
    expected_s,
)
from shared.compiled import compiled, inlined
from shared.scheduling.due import due_after
from shared.scheduling.expired import ROUNDING_S, settle_expired
from shared.scheduling.kernel import form
from shared.scheduling.prompt_times import prompt_s
from shared.scheduling.rows import (
    AVAILABLE,
    COMPUTED,
    DEADLINE,
    DRAFT,
    EXPIRED,
    GENERATED,
    KIND,
    PROMISED,
    REMAINING,
    RESIDENT,
    TOKENS_PER_STEP,
    TOTAL,
    TPOT,
    Rows,
)
from shared.scheduling.shares import ONE, Tokens, add_decode
from shared.scheduling.steady import held_for_ever, likely_s
from shared.scheduling.tried import may_be_in_time
from shared.scheduling.tuning import PACES_AHEAD

Times = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
_MOST_STEPS = 2048
NOBODY: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """Results of a simulation, by row.

    `first_s` is when the first token of the simulation comes (inf: not within it), `worst_late_s`
    how much later than due its latest token is (-inf: it got none), `pace_s` the mean time from one
    token to the next (nan: below two tokens).
    """

    first_s: Times
    worst_late_s: Times
    pace_s: Times
    ended_s: float

    def late(self, rows: Rows) -> Flags:
        """Promised requests that get a token too late, or none although it was due."""
        starved = np.isinf(self.first_s) & (rows[:, DEADLINE] < self.ended_s)
        broken = (self.worst_late_s > ROUNDING_S) | starved
        result: Flags = broken & (rows[:, KIND] == PROMISED)
        return result


def simulate(
    rows: Rows,
    table: StepTable,
    limits: FloatArray,
    now: float,
    *,
    guarded: Flags | None = None,
    awaited: int = NOBODY,
    most_steps: int = _MOST_STEPS,
) -> Forecast:
    """Runs the engine from `now` until some paces after all promised prompts are computed, and the
    prompt of the row `awaited`. Ends early where this prompt, or a row of `guarded`, is late.

    `rows` are not changed. A request runs until its REMAINING is used up.
    """
    simulated = rows.copy()
    seen = np.empty((len(rows), 4))
    guards = np.zeros(len(rows), dtype=np.bool_) if guarded is None else guarded
    ended_s = run(simulated, seen, guards, awaited, table.numbers, limits, now, most_steps)
    with np.errstate(invalid="ignore", divide="ignore"):
        pace_s = np.where(seen[:, 2] > 1, (seen[:, 1] - seen[:, 0]) / (seen[:, 2] - 1), math.nan)
    return Forecast(
        first_s=seen[:, 0], worst_late_s=seen[:, 3], pace_s=pace_s, ended_s=float(ended_s)
    )


def at_stake(rows: Rows, table: StepTable, now: float) -> Flags:
    """Promised requests that could still get their next token on time if each had the next step to
    itself.
    """
    stakes = np.zeros(len(rows), dtype=np.bool_)
    _find_stakes(rows, stakes, table.numbers, now)
    return stakes


@compiled
def _find_stakes(rows: Rows, stakes: Flags, table: FloatArray, now: float) -> None:
    counts = np.zeros(COUNTS)
    for i in range(len(rows)):
        if rows[i, KIND] != PROMISED or rows[i, REMAINING] <= 0:
            continue
        if rows[i, TOTAL] - rows[i, COMPUTED] > ONE:
            likely_s = prompt_s(rows, i, table)
        else:
            counts[:] = 0.0
            add_decode(counts, rows, i)
            likely_s = expected_s(table, counts)
        stakes[i] = max(now, rows[i, AVAILABLE]) + likely_s <= rows[i, DEADLINE]


@compiled
def run(
    rows: Rows,
    seen: Times,
    guarded: Flags,
    awaited: int,
    table: FloatArray,
    limits: FloatArray,
    now: float,
    most_steps: int,
) -> float:
    """`simulate` on compiled data; returns when it ended. Changes `rows`; `seen` gets for each row:
    time of first and of last token, tokens, worst lateness.
    """
    n = len(rows)
    tokens = np.zeros(n, dtype=np.int64)
    counts = np.zeros(COUNTS)
    seen[:, 0] = np.inf
    seen[:, 1] = seen[:, 2] = 0.0
    seen[:, 3] = -np.inf
    kinds = rows[:, KIND].copy()
    loosest_s = 0.0
    for i in range(n):
        if rows[i, KIND] == PROMISED and rows[i, TPOT] < np.inf:
            loosest_s = max(loosest_s, rows[i, TPOT])
    goes_on_s = np.inf
    for _ in range(most_steps):
        if settle_expired(rows, table, now) > 0:
            _note_lost(rows, seen, kinds)
        lasts_s = form(rows, tokens, counts, table, limits, now)
        if lasts_s == 0:
            now = _next_arrival(rows, now)
            if now == np.inf:
                break
            continue
        taken_s = likely_s(lasts_s, table, counts)
        now += taken_s
        apply(rows, seen, tokens, now, lasts_s - taken_s)
        is_awaited = _is_awaited(rows, awaited)
        lost = is_awaited and not may_be_in_time(rows, awaited, table, now)
        if lost or _guard_is_late(rows, seen, guarded, now):
            break
        if goes_on_s == np.inf and not (is_awaited or _prompt_waits(rows)):
            settled = held_for_ever(rows, table, now)
            goes_on_s = now if settled else now + PACES_AHEAD * loosest_s
        if now >= goes_on_s:
            break
    return now


@compiled
def _note_lost(rows: Rows, seen: Times, kinds: FloatArray) -> None:
    """A promise that was given up is late, whenever its token comes."""
    for i in range(len(rows)):
        if rows[i, KIND] == EXPIRED and kinds[i] == PROMISED:
            seen[i, 3] = np.inf


@compiled
def _guard_is_late(rows: Rows, seen: Times, guarded: Flags, now: float) -> bool:
    """Whether a guarded row is late, also by a token that was due and has not come yet."""
    for i in range(len(rows)):
        if not guarded[i]:
            continue
        if rows[i, REMAINING] > 0:
            seen[i, 3] = max(seen[i, 3], now - rows[i, DEADLINE])
        if seen[i, 3] > ROUNDING_S:
            return True
    return False


@compiled
def apply(rows: Rows, seen: Times, tokens: Tokens, now: float, unsure_s: float) -> None:
    """Updates the rows after a step that is expected to end at `now`, and surely ends `unsure_s`
    later.
    """
    for i in range(len(rows)):
        if tokens[i] < 0:
            rows[i, COMPUTED] = rows[i, RESIDENT] = 0.0
        if tokens[i] <= 0:
            continue
        rows[i, RESIDENT] = 1.0
        total, computed = rows[i, TOTAL], rows[i, COMPUTED]
        decodes = total - computed <= ONE
        rows[i, COMPUTED] = total if decodes else min(total, computed + tokens[i])
        if rows[i, COMPUTED] < total:
            continue
        gain = rows[i, TOKENS_PER_STEP] if decodes and rows[i, DRAFT] > 0 else 1.0
        _produce(rows, seen, i, gain, now, unsure_s)


@inlined
def _produce(rows: Rows, seen: Times, i: int, gain: float, now: float, unsure_s: float) -> None:
    if rows[i, DEADLINE] < np.inf:
        seen[i, 3] = max(seen[i, 3], now + unsure_s - rows[i, DEADLINE])
    if seen[i, 2] == 0:
        seen[i, 0] = now
    seen[i, 1] = now
    seen[i, 2] += gain
    rows[i, DEADLINE] = due_after(rows, i, gain, now)
    rows[i, GENERATED] += gain
    rows[i, REMAINING] -= gain
    rows[i, COMPUTED] += gain - 1.0
    rows[i, TOTAL] += gain
    if rows[i, REMAINING] <= 0:
        rows[i, RESIDENT] = rows[i, COMPUTED] = rows[i, TOTAL] = 0.0


@inlined
def _is_awaited(rows: Rows, i: int) -> bool:
    return bool(i >= 0 and rows[i, GENERATED] == 0)


@compiled
def _next_arrival(rows: Rows, now: float) -> float:
    soonest = np.inf
    for i in range(len(rows)):
        if rows[i, REMAINING] > 0 and rows[i, AVAILABLE] > now:
            soonest = min(soonest, rows[i, AVAILABLE])
    return soonest


@compiled
def _prompt_waits(rows: Rows) -> bool:
    for i in range(len(rows)):
        promised = rows[i, KIND] == PROMISED and rows[i, REMAINING] > 0
        if promised and rows[i, AVAILABLE] < np.inf and rows[i, GENERATED] == 0:
            return True
    return False
