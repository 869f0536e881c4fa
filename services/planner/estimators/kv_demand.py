"""Which requests come first where KV is short.

A request holds KV from its prompt to its last token. Where recent requests ask for more than the
engines can hold, the fleet completes the most value with those of the least cost, in tokens of KV
times steps for each value (fractional knapsack; Dantzig, "Discrete-Variable Extremum Problems",
1957). The others leave them room, as a trunk reservation does in a loss network (Key, "Optimal
Control and Trunk Reservation in Loss Networks", 1990): a long answer that takes the last blocks
would keep them from many short ones.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from services.planner.estimators.survival import AnswerSums, Survival
from services.planner.tuning import MIX_MEMORY_S
from shared.batch_time.table import FloatArray
from shared.bounded import remember

_KEPT_REQUESTS: Final = 1024
_KEPT_CLASSES: Final = 256
_AT_S, _CLASS, _PROMPT_TOKENS, _GAIN = range(4)
_LEAST_VALUE: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class KvFleet:
    """So many decode engines, with the KV tokens and the steps of each on average."""

    engines: int
    kv_tokens: float
    step_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCost:
    """What requests of a class cost."""

    sums: AnswerSums
    value: float

    def of(self, prompt_tokens: FloatArray, gain: FloatArray) -> FloatArray:
        """Token-steps of KV for each value; `gain`: tokens of a step."""
        cost: FloatArray = self.sums.token_steps(prompt_tokens) / (gain * self.value)
        return cost


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KvRanks:
    """The latest requests by their cost, while they ask for more KV than there is; else none.

    Attributes:
        costs: Of the requests, ascending.
        shares: The share of the fleet's KV that they hold on average with those before them.
        classes: The cost of each class.
        step_s: The steps of an engine.
        lasted_s: For how long KV has been short.
    """

    costs: FloatArray = field(default_factory=lambda: np.zeros(0))
    shares: FloatArray = field(default_factory=lambda: np.zeros(0))
    classes: Mapping[str, ClassCost] = field(default_factory=dict)
    step_s: float = 0.0
    lasted_s: float = 0.0

    def share_before(self, cost: float) -> float:
        """The share of the KV that requests of less cost hold, at most 1."""
        place = int(np.searchsorted(self.costs, cost))
        return min(1.0, float(self.shares[place - 1])) if place else 0.0

    def expected_cost(self, cost: float, tokens: float, gain: float) -> float:
        """The cost times the chance that KV stays short while the request runs for `tokens`. What
        has lasted for A seconds lasts for R more with a chance of A / (A + R) (Lindy's law).
        """
        runs_s = tokens / gain * self.step_s
        return cost * self.lasted_s / (self.lasted_s + runs_s) if runs_s > 0 else cost


@dataclass(slots=True)
class _Class:
    number: int
    value: float


class KvDemand:
    """The latest requests, each counted once. Bounded."""

    def __init__(self) -> None:
        self._asked = np.zeros((_KEPT_REQUESTS, 4))
        self._requests = 0
        self._classes: OrderedDict[str, _Class] = OrderedDict()
        self._numbers = 0
        self._began_s = self._short_since_s = math.inf

    def asked(self, name: str, prompt_tokens: int, value: float, gain: float, now: float) -> None:
        """Counts a request that was decided; `gain`: tokens of each of its steps."""
        self._began_s = min(self._began_s, now)
        one = self._classes.get(name)
        if one is None:
            self._numbers += 1
            one = _Class(self._numbers, value)
        one.value = max(_LEAST_VALUE, value)
        remember(self._classes, name, one, _KEPT_CLASSES)
        self._asked[self._requests % _KEPT_REQUESTS] = now, one.number, prompt_tokens, gain
        self._requests += 1

    def ranks(self, fleet: KvFleet, answers: Survival, now: float) -> KvRanks:
        """The latest requests by cost, where they ask for more KV than the fleet has."""
        if not self._requests or not fleet.step_s > 0:
            return KvRanks()
        asked = self._asked[: min(self._requests, _KEPT_REQUESTS)]
        counted_s = MIX_MEMORY_S * -math.expm1(-max(1.0, now - self._began_s) / MIX_MEMORY_S)
        per_s = np.exp((asked[:, _AT_S] - now) / MIX_MEMORY_S) / counted_s
        costs = np.full(len(asked), np.nan)  # of classes that are not kept any more
        shares = np.zeros(len(asked))
        held_s = fleet.step_s / (fleet.engines * fleet.kv_tokens)
        classes = {}
        for name, one in self._classes.items():
            own = asked[:, _CLASS] == one.number
            classes[name] = each = ClassCost(sums=answers.sums(name), value=one.value)
            costs[own] = each.of(asked[own, _PROMPT_TOKENS], asked[own, _GAIN])
            shares[own] = per_s[own] * costs[own] * one.value * held_s
        if shares.sum() <= 1.0:
            self._short_since_s = math.inf
            return KvRanks()
        self._short_since_s = min(now, self._short_since_s)
        order = np.argsort(costs)
        return KvRanks(
            costs=costs[order],
            shares=np.cumsum(shares[order]),
            classes=classes,
            step_s=fleet.step_s,
            lasted_s=now - self._short_since_s,
        )
