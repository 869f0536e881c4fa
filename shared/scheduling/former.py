"""One engine's requests and the steps that it forms of them. Knows neither vLLM nor a clock."""

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared.batch_time import StepTable
from shared.batch_time.table import COUNTS, Numbers, expected_s
from shared.scheduling.kernel import form
from shared.scheduling.lost import settle_lost
from shared.scheduling.rows import COMPUTED, TOTAL, Rows, empty
from shared.scheduling.shares import (
    BLOCK_TOKENS,
    FREE_BLOCKS,
    LIMITS,
    LONGEST_S,
    MAX_RESIDENT,
    MAX_TOKENS,
    ONE,
    Tokens,
)

_FIRST_SLOTS = 64


@dataclass(frozen=True, slots=True, eq=False)
class StepPlan:
    """What one step is to compute.

    `order` are the slots that get tokens, in an order in which handing out the sum of `tokens` from
    front to back, as much to each as it can use, gives each its share; `tokens` is by slot (EVICT:
    its KV is to be dropped). `counts` are the step's, in the order of `shared.batch_time.table`;
    `sure_s` is what it surely keeps within, `expected_s` what it should take; both 0 where nothing
    is known of the engine's speed.
    """

    order: npt.NDArray[np.intp]
    evicted: npt.NDArray[np.intp]
    tokens: Tokens
    counts: Numbers
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
) -> Numbers:
    """The limits of an engine as compiled code takes them; `longest_s` 0: steps of any length."""
    limits = np.zeros(LIMITS)
    limits[MAX_TOKENS], limits[BLOCK_TOKENS] = max_tokens, block_tokens
    limits[MAX_RESIDENT], limits[FREE_BLOCKS] = max_resident, free_blocks
    limits[LONGEST_S] = longest_s
    return limits


class StepFormer:
    """Rows in slots that stay the same for as long as a request is here."""

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
        """All slots up to the last one that was ever needed; those of nobody have nothing left."""
        return self._all[: self._used]

    def add(self, row: Numbers) -> int:
        """Returns the slot of the request whose row this is."""
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
        tokens = np.zeros(len(rows), dtype=np.int64)
        counts = np.zeros(COUNTS)
        lost = settle_lost(rows, self.table.numbers, now)
        seconds = form(rows, tokens, counts, self.table.numbers, self.limits, now)
        return StepPlan(
            order=_order(rows, tokens),
            evicted=np.flatnonzero(tokens < 0),
            tokens=tokens,
            counts=counts,
            sure_s=float(seconds),
            expected_s=float(expected_s(self.table.numbers, counts)) if tokens.any() else 0.0,
            lost=int(lost),
        )

    def _grow(self) -> None:
        slots = len(self._all)
        self._all = np.concatenate([self._all, empty(slots)])
        self._free = list(range(slots, 2 * slots))


def _order(rows: Rows, tokens: Tokens) -> npt.NDArray[np.intp]:
    """Decodes, then prompts that end here, then those that are cut short."""
    chosen = np.flatnonzero(tokens > 0)
    missing = rows[chosen, TOTAL] - rows[chosen, COMPUTED]
    rank = (missing > ONE).astype(np.int64) + (missing > tokens[chosen])
    order: npt.NDArray[np.intp] = chosen[np.argsort(rank, kind="stable")]
    return order
