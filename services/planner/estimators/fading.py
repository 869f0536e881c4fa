"""Means that decay toward zero without new values, by key. Bounded."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeVar

from services.planner.tuning import TRANSFER_HALF_LIFE_S, TRANSFER_WEIGHT
from shared.bounded import remember

KEPT = 65_536
_K = TypeVar("_K")


@dataclass(slots=True)
class Fading:
    """An EWMA with a weight that halves within `TRANSFER_HALF_LIFE_S`.

    It fades because the planner avoids what looks bad, and then learns nothing new of it. A first
    use also has connections to make.
    """

    _mean: float = 0.0
    _weight: float = 0.0
    _at_s: float = 0.0

    def value(self, now: float) -> float:
        """Shrunk toward zero with a prior of weight 1."""
        weight = self._weight_at(now)
        return self._mean * weight / (weight + 1)

    def learn(self, value: float, now: float) -> None:
        weight = self._weight_at(now)
        self._mean += (value - self._mean) / (weight + 1)
        self._weight, self._at_s = min(TRANSFER_WEIGHT, weight + 1), now

    def _weight_at(self, now: float) -> float:
        return self._weight * math.exp2((self._at_s - now) / TRANSFER_HALF_LIFE_S)


UNSEEN = Fading()


def learn(store: OrderedDict[_K, Fading], key: _K, value: float, now: float) -> None:
    """Adds a value to the mean of a key. The key that was longest without one goes first."""
    known = store.get(key) or Fading()
    known.learn(value, now)
    remember(store, key, known, KEPT)
