"""Counts the promises among an engine's rows."""

from dataclasses import dataclass

from shared.batch_time.table import FloatArray
from shared.scheduling.rows import (
    AVAILABLE,
    COMPUTED,
    DEADLINE,
    GENERATED,
    KIND,
    PROMISED,
    TOTAL,
    Rows,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promised:
    """Promised requests of one engine, and the prompt tokens to compute for their first tokens."""

    requests: int
    prompt_tokens: float


def promised_in(rows: Rows) -> Promised:
    promised = rows[rows[:, KIND] == PROMISED]
    waiting = promised[promised[:, GENERATED] == 0]
    tokens = float((waiting[:, TOTAL] - waiting[:, COMPUTED]).sum())
    return Promised(requests=len(promised), prompt_tokens=tokens)


def still_coming(row: FloatArray, now: float) -> FloatArray:
    """The row of a request on the way. KV that is overdue arrives now at the earliest, and its next
    token is due as much later: the engine is not behind for it.
    """
    late_s = now - row[AVAILABLE]
    if row[GENERATED] == 0 or late_s <= 0:
        return row
    later = row.copy()
    later[AVAILABLE], later[DEADLINE] = now, row[DEADLINE] + late_s
    return later
