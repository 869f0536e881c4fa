"""The row of a request that has just come, by what it asked for. Pure."""

import math

from shared.batch_time.table import FloatArray
from shared.scheduling.rows import BEST_EFFORT, NO_SLO, PROMISED, key_of, new_row
from shared.scheduling.terms import Terms

# All have been available for long; the longest goes first.
_BACK_S, _STEP_S, _MOST_PRIORITY = 2e6, 1e3, 1000


def row_of(
    terms: Terms,
    *,
    tokens: int,
    left: int,
    computed: int = 0,
    shared: int = 0,
    came_s: float = 0.0,
    priority: int = 0,
) -> FloatArray:
    """The row of a request with `tokens` to compute, `computed` of them found cached, of which
    `shared` are in blocks of running requests, that may give `left`.

    Infinite `came_s`: it cannot run yet. Those that asked for nothing go by `priority`, lower
    first, then by when they came.
    """
    place_s = came_s - _BACK_S + _STEP_S * max(-_MOST_PRIORITY, min(_MOST_PRIORITY, priority))
    due_s, tpot_s = terms.first_token_due_s, pace_s(terms, 0)
    asks = min(due_s, tpot_s) < math.inf
    kind = BEST_EFFORT if terms.best_effort else PROMISED if asks else NO_SLO
    return new_row(
        key=key_of(terms.decision_id),
        tokens=tokens,
        computed=computed,
        produced=terms.produced_tokens,
        left=left,
        due_s=due_s,
        tpot_s=tpot_s,
        grace_s=terms.grace_s,
        kind=kind,
        available_s=place_s,
        shared=shared,
    )


def pace_s(terms: Terms, stage: int) -> float:
    """Of one stage of its answer; infinite where none was asked for."""
    if terms.stages:
        return terms.stages[min(stage, len(terms.stages) - 1)].tpot_s
    return math.inf if terms.tpot_s is None else terms.tpot_s
