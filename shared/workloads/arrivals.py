"""Arrival processes: Poisson, or bursts like those of a real coding service."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.workloads.lengths import levels

Times = NDArray[np.float64]  # s


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """The distribution of gaps between arrivals, correlated within spells.

    Attributes:
        gaps: Quantiles of a gap, as multiples of the mean, interpolated in the logarithm; without
            them gaps are exponential.
        at: The levels of these quantiles.
        spell_share: Share of the variance of a gap's normal score that its spell explains.
        spell_gaps: Mean number of gaps in a spell.
    """

    name: str
    gaps: tuple[float, ...] = ()
    at: tuple[float, ...] = ()
    spell_share: float = 0.0
    spell_gaps: float = 1.0

    def times(self, draw: np.random.Generator, count: int) -> Times:
        """`count` arrivals between 0 and 1, ascending."""
        gaps = self._gaps(draw, count + 1)
        ends = np.cumsum(gaps)
        times: Times = ends[:-1] / ends[-1]
        return times

    def _gaps(self, draw: np.random.Generator, count: int) -> NDArray[np.float64]:
        at = levels(draw, self._scores(draw, count))
        exponential: NDArray[np.float64] = -np.log1p(-at)
        return np.exp(np.interp(at, self.at, np.log(self.gaps))) if self.gaps else exponential

    def _scores(self, draw: np.random.Generator, count: int) -> NDArray[np.float64]:
        spell = np.cumsum(draw.random(count) < 1 / self.spell_gaps)
        of_spell = draw.standard_normal(count + 1)[spell]
        own = draw.standard_normal(count)
        share = self.spell_share
        scores: NDArray[np.float64] = math.sqrt(share) * of_spell + math.sqrt(1 - share) * own
        return scores


POISSON: Final = Arrivals(name="stable")

# Gaps of the Azure LLM inference trace 2023, code: 8,819 requests in 57 minutes, as multiples of
# 0.39 s. Independent gaps of these sizes have the trace's CV of 13.1, its empty minutes (one in
# five) and three quarters of its index of dispersion at 1 to 60 s. With spells the index is 12 at
# 1 s, 68 at 10 s and 174 at 60 s, where the trace has 13, 72 and 164.
AZURE_CODE: Final = Arrivals(
    name="bursty",
    gaps=(
        *(1.54e-5, 5.69e-5, 2.26e-4, 5.36e-4, 5.33e-3, 0.164, 0.267, 0.7, 1.03, 2.05, 5.66),
        *(25.6, 106.0, 203.0, 340.0, 557.0),
    ),
    at=(
        *(0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99),
        *(0.995, 0.998, 0.999, 0.9995, 1.0),
    ),
    spell_share=0.15,
    spell_gaps=40.0,
)
