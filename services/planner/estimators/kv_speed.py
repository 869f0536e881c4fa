"""Learns the KV transfer time of one link by bytes: ridge regression with exponential decay.

A transfer takes fixed seconds and seconds per byte. Both are learned as factors of the configured
ones (`Line`), from relative errors, so that small and large transfers count alike.
"""

import math
from dataclasses import dataclass, field
from typing import Final

from services.planner.tuning import LEAST_TRANSFER, TRANSFER_HALF_LIFE_S, TRANSFER_WEIGHT

_PRIOR: Final = 0.5  # weight of the prior beside one transfer


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Seconds of a transfer: `fixed_s`, and `s_per_byte` for each byte."""

    fixed_s: float
    s_per_byte: float = 0.0

    def seconds(self, moved_bytes: float) -> float:
        return self.fixed_s + self.s_per_byte * moved_bytes

    def scaled(self, factors: "Factors") -> "Line":
        return Line(
            fixed_s=self.fixed_s * max(LEAST_TRANSFER, factors.fixed),
            s_per_byte=self.s_per_byte * max(LEAST_TRANSFER, factors.per_byte),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """Factors of the two parts of a `Line`."""

    fixed: float = 1.0
    per_byte: float = 1.0


@dataclass(slots=True)
class Speed:
    """Decaying sums of x x', x y and 1 over transfers. x are the shares of the two parts in the
    predicted time of the line, y is the ratio of the measured time to it.
    """

    _fixed2: float = 0.0
    _cross: float = 0.0
    _bytes2: float = 0.0
    _fixed_y: float = 0.0
    _bytes_y: float = 0.0
    _weight: float = 0.0
    _at_s: float = field(default=-math.inf)

    def learn(self, line: Line, moved_bytes: float, seconds: float, now: float) -> None:
        foreseen_s = line.seconds(moved_bytes)
        if not foreseen_s > 0:
            return
        self._fade(now)
        fixed, measured = line.fixed_s / foreseen_s, seconds / foreseen_s
        self._fixed2 += fixed * fixed
        self._cross += fixed * (1 - fixed)
        self._bytes2 += (1 - fixed) ** 2
        self._fixed_y += fixed * measured
        self._bytes_y += (1 - fixed) * measured
        self._weight += 1.0

    def factors(self, before: Factors, now: float) -> Factors:
        """The least-squares factors, shrunk toward `before` where little was seen lately."""
        left = self._left(now)
        a = left * self._fixed2 + _PRIOR
        b = left * self._cross
        c = left * self._bytes2 + _PRIOR
        u = left * self._fixed_y + _PRIOR * before.fixed
        v = left * self._bytes_y + _PRIOR * before.per_byte
        determinant = a * c - b * b
        return Factors(fixed=(c * u - b * v) / determinant, per_byte=(a * v - b * u) / determinant)

    def _left(self, now: float) -> float:
        return math.exp2((self._at_s - now) / TRANSFER_HALF_LIFE_S) if self._weight else 0.0

    def _fade(self, now: float) -> None:
        """Lets the sums decay until `now`, and to TRANSFER_WEIGHT at most."""
        left = self._left(now)
        if self._weight * left > TRANSFER_WEIGHT:
            left = TRANSFER_WEIGHT / self._weight
        self._fixed2 *= left
        self._cross *= left
        self._bytes2 *= left
        self._fixed_y *= left
        self._bytes_y *= left
        self._weight *= left
        self._at_s = now
