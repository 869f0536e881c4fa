"""Forecasts how many KV blocks an engine's requests will need, from the answer lengths of their
classes.

The chance that a request goes on beyond n tokens is the share of its class's answers that were
longer. At several points ahead, each a number of further tokens of all requests, the mean of the
blocks in use is known. The largest of these means is the need.
"""

import math
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from services.planner.estimators.kv_demand import ClassCost, KvRanks
from services.planner.estimators.survival import BIN_TOKENS, Survival
from shared.batch_time.table import FloatArray
from shared.compiled import compiled
from shared.scheduling.rows import GENERATED, REMAINING, SHARED, TOKENS_PER_STEP, TOTAL, Rows
from shared.scheduling.shares import shared_blocks

ClassIndices = npt.NDArray[np.int64]
_AHEAD: Final = np.array([0.0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384])
_PARTLY = 0.5  # blocks: the unused part of a last block, on average


class Classes:
    """Numbers the classes, for one round of decisions."""

    def __init__(self, answers: Survival, ranks: KvRanks) -> None:
        self._answers, self._ranks = answers, ranks
        self._indices: dict[str | None, int] = {None: -1}
        self._survivals: list[FloatArray] = []
        self._later_tokens: list[FloatArray] = []
        self._stacked: FloatArray | None = None
        self._stacked_later_tokens: FloatArray | None = None
        self._costs: list[ClassCost | None] = []

    def indices(self, names: Iterable[str | None]) -> ClassIndices:
        """The row of each class in `survivals`; -1 for None."""
        known = self._indices
        class_indices = [known[name] if name in known else self._index(name) for name in names]
        return np.array(class_indices, dtype=np.int64)

    def knows(self, name: str) -> bool:
        """Whether enough answers of the class have ended."""
        return self._answers.knows(name)

    def left_blocks(
        self,
        rows: Rows,
        class_indices: ClassIndices,
        newcomers: int,
        kv_blocks: int,
        block_tokens: int,
    ) -> float:
        """The blocks of an engine that the last rows, the newcomers, leave to requests that cost
        less and will come: the share of these, less what they hold.
        """
        ranks = self._ranks
        if not len(ranks.costs):
            return 0.0
        costs = self._costs_of(rows, class_indices)
        cost = max(
            ranks.expected_cost(costs[i], class_cost.sums.tokens, rows[i, TOKENS_PER_STEP])
            if (class_cost := self._costs[class_indices[i]]) is not None
            else 0.0
            for i in range(len(rows) - newcomers, len(rows))
        )
        held = np.ceil((rows[:, TOTAL] - rows[:, SHARED]) / block_tokens)[costs < cost].sum()
        return max(0.0, ranks.share_before(cost) * kv_blocks - float(held))

    def _costs_of(self, rows: Rows, class_indices: ClassIndices) -> FloatArray:
        """What each request costs; infinite where that is unknown."""
        costs = np.full(len(rows), np.inf)
        for index in np.unique(class_indices[class_indices >= 0]):
            if (class_cost := self._costs[index]) is not None:
                own = class_indices == index
                prompt_tokens = (rows[:, TOTAL] - rows[:, GENERATED] - rows[:, SHARED])[own]
                costs[own] = class_cost.of(prompt_tokens, rows[own, TOKENS_PER_STEP])
        return costs

    @property
    def survivals(self) -> FloatArray:
        """(classes, bins): the share of a class's answers longer than so many BIN_TOKENS."""
        if self._stacked is None:
            self._stacked = _stack(self._survivals)
        return self._stacked

    @property
    def later_tokens(self) -> FloatArray:
        """(classes, bins): the mean number of tokens after an answer has so many BIN_TOKENS."""
        if self._stacked_later_tokens is None:
            self._stacked_later_tokens = _stack(self._later_tokens)
        return self._stacked_later_tokens

    def _index(self, name: str | None) -> int:
        index = -1
        if name is not None:
            index = len(self._survivals)
            self._costs.append(self._ranks.classes.get(name))
            self._survivals.append(self._answers.longer(name))
            self._later_tokens.append(self._answers.later_tokens(name))
            self._stacked = self._stacked_later_tokens = None
        self._indices[name] = index
        return index


def _stack(of_classes: list[FloatArray]) -> FloatArray:
    return np.array(of_classes) if of_classes else np.zeros((1, 1))


def blocks_needed(
    rows: Rows, class_indices: ClassIndices, survivals: FloatArray, block_tokens: int
) -> float:
    """The most KV blocks that the rows will need at once, on average, without those that they
    share. `class_indices` are their rows in `survivals`; a request with -1 is taken to use up
    REMAINING.
    """
    if not len(rows):
        return 0.0
    means = np.zeros(len(_AHEAD))
    _add_up(rows, class_indices, survivals, float(block_tokens), means)
    return math.ceil(float(means.max()) - 1e-9)


@compiled
def _add_up(
    rows: Rows,
    class_indices: ClassIndices,
    survivals: FloatArray,
    block_tokens: float,
    means: FloatArray,
) -> None:
    for i in range(len(rows)):
        shared = shared_blocks(rows, i, block_tokens)
        for point in range(len(_AHEAD)):
            ahead = _AHEAD[point]
            if rows[i, REMAINING] <= 0 or ahead >= max(rows[i, REMAINING], 1.0):
                break
            goes_on = _goes_on(survivals, class_indices[i], rows[i, GENERATED], ahead)
            grown = max(
                ahead, min(block_tokens, rows[i, REMAINING])
            )  # a block each before any ends
            blocks = (rows[i, TOTAL] + grown) / block_tokens + _PARTLY - shared
            means[point] += goes_on * blocks


@compiled
def _goes_on(survivals: FloatArray, place: int, produced: float, ahead: float) -> float:
    """The chance that the answer goes on for `ahead` tokens more."""
    if place < 0:
        return 1.0
    last = survivals.shape[1] - 1
    now = survivals[place, min(last, int(produced // BIN_TOKENS))]
    return float(survivals[place, min(last, int((produced + ahead) // BIN_TOKENS))] / now)
