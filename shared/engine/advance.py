"""How rows run ahead when a step takes off. Compiled."""

import numpy as np
import numpy.typing as npt

from shared.batch_time.table import COUNTS, FloatArray
from shared.compiled import compiled
from shared.scheduling.due import due_after
from shared.scheduling.rows import (
    AVAILABLE,
    COMPUTED,
    DEADLINE,
    EXPIRED,
    GENERATED,
    KIND,
    PROMISED,
    REMAINING,
    RESIDENT,
    TOTAL,
    Rows,
)
from shared.scheduling.shares import ONE, add_chunk, add_decode

Slots = npt.NDArray[np.intp]
Tokens = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@compiled
def run_planned(
    rows: Rows, order: Slots, tokens: Tokens, ends_s: float, due_s: FloatArray, first: Mask
) -> None:
    """Each row of `order` as it stands after a step that gives it its `tokens` (by slot), none of
    them drafted, and is to end at `ends_s`; fills in by place as `run_as`.
    """
    for place in range(len(order)):
        i = order[place]
        computed, total = rows[i, COMPUTED] + tokens[i], rows[i, TOTAL]
        gives = computed >= total
        due_s[place], first[place] = _run(rows, i, computed, total + gives, gives, ends_s)


@compiled
def run_as(
    rows: Rows,
    slots: Slots,
    computed: FloatArray,
    total: FloatArray,
    gives: Mask,
    ends_s: float,
    due_s: FloatArray,
    first: Mask,
) -> None:
    """Each row as it stands after a step that is to end at `ends_s`; `gives`: with one token more.

    Fills in by place when that token is due (inf: it gives none, or it was not promised) and
    whether it is the request's first.
    """
    for place in range(len(slots)):
        due_s[place], first[place] = _run(
            rows, slots[place], computed[place], total[place], gives[place], ends_s
        )


@compiled
def _run(
    rows: Rows, i: int, computed: float, total: float, gives: bool, ends_s: float
) -> tuple[float, bool]:
    """One row after the step; returns when its token is due and whether it is its first."""
    due_s, first = np.inf, False
    if gives:
        first = rows[i, GENERATED] == 0
        if rows[i, KIND] == PROMISED or rows[i, KIND] == EXPIRED:
            due_s = rows[i, DEADLINE]
        rows[i, DEADLINE] = due_after(rows, i, 1.0, ends_s)
        rows[i, GENERATED] += 1
        rows[i, REMAINING] -= 1
    rows[i, COMPUTED], rows[i, TOTAL] = computed, total
    rows[i, RESIDENT] = 1.0
    rows[i, AVAILABLE] = min(rows[i, AVAILABLE], ends_s)
    return due_s, first


@compiled
def land(
    rows: Rows,
    serials: Slots,
    slots: Slots,
    flown: Slots,
    due_s: FloatArray,
    first: Mask,
    early_s: float,
    now: float,
) -> tuple[int, float]:
    """After a step that ended at `now`, `early_s` before it was to: first tokens start their pace.

    `flown` are the serials that the `slots` had when the step took off; rows of other requests by
    now are left alone. Returns how many tokens were late, and by how much the worst.
    """
    late, worst_s = 0, 0.0
    for place in range(len(slots)):
        i = slots[place]
        if serials[i] != flown[place]:
            continue
        if first[place]:
            rows[i, DEADLINE] -= early_s
        if now > due_s[place]:
            late += 1
            worst_s = max(worst_s, now - due_s[place])
    return late, worst_s


@compiled
def run_freely(rows: Rows, slots: Slots, tokens: Tokens) -> FloatArray:
    """The same for rows of requests that asked for nothing, which compute so many `tokens` each, of
    which none is drafted. Returns the step's counts as the step former has them.
    """
    counts = np.zeros(COUNTS)
    for place in range(len(slots)):
        i, size = slots[place], tokens[place]
        if rows[i, TOTAL] - rows[i, COMPUTED] <= ONE:
            add_decode(counts, rows, i)
        else:
            add_chunk(counts, rows, i, float(size))
        rows[i, COMPUTED] += size
        rows[i, RESIDENT] = 1.0
        if rows[i, COMPUTED] >= rows[i, TOTAL]:
            rows[i, TOTAL] += 1
            rows[i, GENERATED] += 1
            rows[i, REMAINING] -= 1
    return counts


@compiled
def queued_tokens(rows: Rows) -> float:
    """Not computed yet of those that have given nothing."""
    queued = 0.0
    for i in range(len(rows)):
        if rows[i, GENERATED] == 0:
            queued += rows[i, TOTAL] - rows[i, COMPUTED]
    return queued
