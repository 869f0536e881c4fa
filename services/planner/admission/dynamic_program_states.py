"""The states of the admission DP, and which of them the search keeps.

A state has its numbers (WORTH, HELD, SPARE), accepted requests by tier, and their set as bits.
"""

import numpy as np
import numpy.typing as npt

from shared.batch_time.table import FloatArray
from shared.compiled import compiled

WORTH, HELD, SPARE = range(3)

Integers = npt.NDArray[np.int64]


@compiled
def keep_forced(
    states: FloatArray,
    taken: Integers,
    masks: Integers,
    count: int,
    prompt: float,
    floor: float,
) -> int:
    """Subtracts the tokens of a running request; drops states in which it would be late.

    The state without candidates stays.
    """
    kept = 0
    for k in range(count):
        if states[k, SPARE] - prompt >= floor or masks[k] == 0:
            states[kept], taken[kept], masks[kept] = states[k], taken[k], masks[k]
            states[kept, SPARE] -= prompt
            kept += 1
    return kept


@compiled
def promising(
    states: FloatArray,
    taken: Integers,
    masks: Integers,
    count: int,
    least: float,
) -> int:
    kept = 0
    for k in range(count):
        if states[k, WORTH] >= least:
            states[kept], taken[kept], masks[kept] = states[k], taken[k], masks[k]
            kept += 1
    return kept


@compiled
def pareto(states: FloatArray, taken: Integers, masks: Integers, count: int) -> int:
    """Drops every state that another one beats or equals in value, memory, spare and each tier.

    Leaves the states in descending order of value.
    """
    order = np.argsort(-states[:count, WORTH])
    states[:count], taken[:count], masks[:count] = (
        states[:count][order],
        taken[:count][order],
        masks[:count][order],
    )
    kept = 0
    for k in range(count):
        beaten = False
        for other in range(kept):
            if _beats(states[other], taken[other], states[k], taken[k]):
                beaten = True
                break
        if not beaten:
            states[kept], taken[kept], masks[kept] = states[k], taken[k], masks[k]
            kept += 1
    return kept


@compiled
def _beats(
    state: FloatArray,
    taken: Integers,
    other: FloatArray,
    other_taken: Integers,
) -> bool:
    if state[WORTH] < other[WORTH] or state[HELD] > other[HELD] or state[SPARE] < other[SPARE]:
        return False
    return bool(np.all(taken <= other_taken))


@compiled
def most_worth(states: FloatArray, masks: Integers, count: int) -> int:
    best = 0
    for k in range(1, count):
        if states[k, WORTH] > states[best, WORTH] or (
            states[k, WORTH] == states[best, WORTH] and states[k, SPARE] > states[best, SPARE]
        ):
            best = k
    return int(masks[best])
