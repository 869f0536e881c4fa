"""Holds the rows of one engine's requests and forms its steps."""

import heapq
from dataclasses import dataclass

import numpy as np

from shared.batch_time import StepTable
from shared.batch_time.table import COUNTS, FloatArray, expected_s
from shared.compiled import compiled
from shared.scheduling.expired import settle_expired
from shared.scheduling.kernel import form
from shared.scheduling.rows import COMPUTED, TOTAL, Rows, empty
from shared.scheduling.shares import (
    BLOCK_TOKENS,
    FREE_BLOCKS,
    LIMITS,
    LONGEST_S,
    MAX_RESIDENT,
    MAX_TOKENS,
    ONE,
    Order,
    Tokens,
)

_FIRST_SLOTS = 64
_NO_SLOTS = np.empty(0, dtype=np.intp)


@dataclass(frozen=True, slots=True, eq=False)
class StepPlan:
    """What one step is to compute.

    Attributes:
        order: slots that get tokens. Handing out `scheduled_tokens` from front to back, as much to
            each as it can use, gives each its share.
        cut: number of slots at the end of `order` that get less than they could use.
        evicted: slots that drop their KV.
        tokens: by slot (EVICT: it drops its KV).
        scheduled_tokens: the sum over the slots in `order`.
        counts: the step's, in the order of `shared.batch_time.table`.
        sure_s: the bound on the step's seconds; 0 where nothing is known of the engine's speed.
        expected_s: the expected seconds; 0 as above.
        lost: promises that were given up.
    """

    order: Order
    cut: int
    evicted: Order
    tokens: Tokens
    scheduled_tokens: int
    counts: FloatArray
    sure_s: float
    expected_s: float
    lost: int


def engine_limits(
    *,
    max_tokens: int,
    block_tokens: int,
    max_resident: int,
    free_blocks: float = np.inf,
    longest_s: float = 0.0,
) -> FloatArray:
    """The limits of an engine as compiled code takes them; `longest_s` 0: steps of any length."""
    limits = np.zeros(LIMITS)
    limits[MAX_TOKENS], limits[BLOCK_TOKENS] = max_tokens, block_tokens
    limits[MAX_RESIDENT], limits[FREE_BLOCKS] = max_resident, free_blocks
    limits[LONGEST_S] = longest_s
    return limits


class StepFormer:
    """Forms the steps of one engine. A request keeps its slot for as long as it is here."""

    def __init__(
        self, table: StepTable, *, max_tokens: int, block_tokens: int, max_resident: int
    ) -> None:
        self.table = table
        self.limits = engine_limits(
            max_tokens=max_tokens, block_tokens=block_tokens, max_resident=max_resident
        )
        self._all = empty(_FIRST_SLOTS)
        self._free = list(range(_FIRST_SLOTS))  # a heap: the lowest first keeps the used part short
        self._used = 0

    @property
    def rows(self) -> Rows:
        """All slots up to the highest one ever used; the rows of free slots have no tokens left."""
        return self._all[: self._used]

    def add(self, row: FloatArray) -> int:
        """Puts a request's row into a free slot and returns the slot."""
        if not self._free:
            self._grow()
        slot = heapq.heappop(self._free)
        self._all[slot] = row
        self._used = max(self._used, slot + 1)
        return slot

    def remove(self, slot: int) -> None:
        self._all[slot] = empty(1)[0]
        heapq.heappush(self._free, slot)

    def form(self, now: float) -> StepPlan:
        """Forms the step that starts at `now`; set FREE_BLOCKS of `limits` before."""
        rows = self.rows
        tokens, order = np.empty(len(rows), dtype=np.int64), np.empty(len(rows), dtype=np.intp)
        counts = np.empty(COUNTS)
        sure, expected, lost, chosen, cut, evicted, scheduled = _plan(
            rows, tokens, counts, order, self.table.numbers, self.limits, now
        )
        return StepPlan(
            order=order[:chosen],
            cut=cut,
            evicted=np.flatnonzero(tokens < 0) if evicted else _NO_SLOTS,
            tokens=tokens,
            scheduled_tokens=scheduled,
            counts=counts,
            sure_s=sure,
            expected_s=expected,
            lost=lost,
        )

    def _grow(self) -> None:
        slots = len(self._all)
        self._all = np.concatenate([self._all, empty(slots)])
        self._free = list(range(slots, 2 * slots))


@compiled
def _plan(
    rows: Rows,
    tokens: Tokens,
    counts: FloatArray,
    order: Order,
    table: FloatArray,
    limits: FloatArray,
    now: float,
) -> tuple[float, float, int, int, int, int, int]:
    """Fills `tokens`, `counts` and the front of `order`.

    All in one call, because each call from Python costs as much as ordering a hundred rows. Returns
    the sure and the expected seconds, how many promises were lost, how many slots are in `order`,
    how many of these are cut short, how many are evicted, and the sum of tokens.
    """
    lost = settle_expired(rows, table, now)
    sure = form(rows, tokens, counts, table, limits, now)
    evicted, scheduled = 0, 0
    for i in range(len(rows)):
        evicted += tokens[i] < 0
        scheduled += max(0, tokens[i])
    whole = _append(rows, tokens, order, 0, 0)
    whole = _append(rows, tokens, order, whole, 1)
    chosen = _append(rows, tokens, order, whole, 2)
    expected = expected_s(table, counts) if evicted + scheduled > 0 else 0.0
    return sure, expected, lost, chosen, chosen - whole, evicted, scheduled


@compiled
def _append(rows: Rows, tokens: Tokens, order: Order, place: int, rank: int) -> int:
    """Appends the rows of a rank: 0 decodes, 1 prompts that end in this step, 2 cut prompts."""
    for i in range(len(rows)):
        if tokens[i] > 0:
            missing = rows[i, TOTAL] - rows[i, COMPUTED]
            if int(missing > ONE) + int(missing > tokens[i]) == rank:
                order[place] = i
                place += 1
    return place
