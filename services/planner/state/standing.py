"""Counts the promises among an engine's rows."""

from dataclasses import dataclass

import numpy as np

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
    """Promised requests of one engine, and the prompt tokens to compute for their first tokens;
    `due_prompt_tokens` of these for first tokens with a deadline.
    """

    requests: int = 0
    prompt_tokens: float = 0.0
    due_prompt_tokens: float = 0.0

    def __add__(self, more: "Promised") -> "Promised":
        return Promised(
            requests=self.requests + more.requests,
            prompt_tokens=self.prompt_tokens + more.prompt_tokens,
            due_prompt_tokens=self.due_prompt_tokens + more.due_prompt_tokens,
        )


def promised_in(rows: Rows) -> Promised:
    promised = rows[rows[:, KIND] == PROMISED]
    waiting = promised[promised[:, GENERATED] == 0]
    tokens = waiting[:, TOTAL] - waiting[:, COMPUTED]
    return Promised(
        requests=len(promised),
        prompt_tokens=float(tokens.sum()),
        due_prompt_tokens=float(tokens[np.isfinite(waiting[:, DEADLINE])].sum()),
    )


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
