"""The effect of a change: the mean of paired differences over loads, with its standard error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final

_TELLING: Final = 2.0  # standard errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Points of the share kept that a change gains on so many loads."""

    mean: float
    error: float
    least: float
    loads: int

    @property
    def is_telling(self) -> bool:
        """Whether it is beyond two standard errors."""
        return abs(self.mean) > _TELLING * self.error


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeEffect:
    """A change of a number, and its effects on the applications and on drawn loads."""

    number: str
    was: float
    value: float
    applications: Effect
    drawn: Effect

    @property
    def is_telling(self) -> bool:
        return self.applications.is_telling or self.drawn.is_telling


def effect_of(changed: Sequence[float], unchanged: Sequence[float]) -> Effect:
    """The effect from shares kept on the same loads, in the same order. Raises ValueError where the
    numbers of loads differ or are 0.
    """
    points = [100 * (one - other) for one, other in zip(changed, unchanged, strict=True)]
    if not points:
        raise ValueError("an effect needs at least one load")
    error = stdev(points) / math.sqrt(len(points)) if len(points) > 1 else math.inf
    return Effect(mean=fmean(points), error=error, least=min(points), loads=len(points))
