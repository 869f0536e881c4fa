"""Orders the prompts of a rank and computes the time that they leave to others. Compiled."""

import heapq

import numpy as np
import numpy.typing as npt

from shared.batch_time.table import COUNTS, FloatArray, expected_s
from shared.compiled import compiled
from shared.scheduling.expired import ROUNDING_S
from shared.scheduling.prompt_times import prompt_s
from shared.scheduling.rows import DEADLINE, Rows
from shared.scheduling.shares import Order
from shared.scheduling.tuning import BEFORE_DUE


@compiled
def order_prompts(
    rows: Rows, prompts: Order, table: FloatArray, now: float
) -> tuple[Order, float, float]:
    """Orders prompts by deadline (EDF). Where they cannot all be on time even with the engine to
    themselves, the longest are shed behind the others, which leaves the most on time (Moore and
    Hodgson, Management Science 15(1), 1968), O(n log n). Lengths are those of the work left, so
    that a started prompt is not shed for a fresh one.

    Returns the order, and two numbers of the prompts that are not shed: the greatest share of the
    time up to a deadline that they need, and the seconds that a step may take beside them all.
    """
    if len(prompts) == 0:
        return prompts, 0.0, np.inf
    order = due_order(rows, prompts)
    left_s = rows[order, DEADLINE] - now
    shared_s = expected_s(table, np.zeros(COUNTS))  # counted once: prompts may share a step
    takes_s = np.empty(len(order))
    for k in range(len(order)):
        takes_s[k] = prompt_s(rows, order[k], table) - shared_s
    shed = _shed(left_s, takes_s, shared_s)
    prompt_load, spare_s, work_s = 0.0, np.inf, 0.0
    for k in range(len(order)):
        if not shed[k]:
            work_s += takes_s[k]
            prompt_load = max(prompt_load, (shared_s + work_s) / max(left_s[k], ROUNDING_S))
            spare_s = min(spare_s, BEFORE_DUE * left_s[k] - work_s)
    return np.concatenate((order[~shed], order[shed])), prompt_load, spare_s


@compiled
def _shed(left_s: FloatArray, takes_s: FloatArray, shared_s: float) -> npt.NDArray[np.bool_]:
    shed = np.zeros(len(left_s), dtype=np.bool_)
    kept = [(0.0, 0) for _ in range(0)]  # a heap, the longest first; empty, but typed for numba
    work_s = shared_s
    for k in range(len(left_s)):
        heapq.heappush(kept, (-takes_s[k], k))
        work_s += takes_s[k]
        while len(kept) > 0 and work_s > left_s[k]:
            longest = heapq.heappop(kept)[1]
            shed[longest] = True
            work_s -= takes_s[longest]
    return shed


@compiled
def lost_after(rows: Rows, prompts: Order, table: FloatArray, now: float) -> Order:
    """The prompts that would be late if they began at `now`."""
    lost = np.zeros(len(prompts), dtype=np.bool_)
    for k in range(len(prompts)):
        lost[k] = now + prompt_s(rows, prompts[k], table) > rows[prompts[k], DEADLINE]
    return prompts[lost]


@compiled
def due_order(rows: Rows, those: Order) -> Order:
    """The rows by deadline, earliest first."""
    return those[np.argsort(rows[those, DEADLINE], kind="mergesort")]
