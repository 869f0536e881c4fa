"""Tracks how far recent steps lie from their predictions: drift, and margins for promises."""

from collections.abc import Mapping

from shared.batch_time.steps import Kind
from shared.batch_time.tuning import (
    DRIFT_FALL,
    DRIFT_RISE,
    LEAST_RATIO,
    MARGIN_GAIN,
    MOST_MARGIN,
    MOST_RATIO,
)


class Drift:
    """A factor of at least one on every prediction, while an engine is slower than its fit.

    It is an EWMA that rises faster than it falls. A faster engine is left to the fit, which follows
    more slowly: a promise may rest on its predictions.
    """

    def __init__(self) -> None:
        self._excess = 0.0

    @property
    def factor(self) -> float:
        return 1.0 + max(0.0, self._excess)

    def observe(self, ratio: float) -> None:
        """`ratio`: a step's measured time over what the fit alone predicted."""
        error = min(max(ratio, LEAST_RATIO), MOST_RATIO) - 1.0 - self._excess
        self._excess += (DRIFT_RISE if error > 0 else DRIFT_FALL) * error


class Margins:
    """Tracks by kind of step the factor on a prediction that a share `level` of steps keeps within.

    A mixed step's is no less than that of its parts, so that more work is never promised sooner.
    """

    def __init__(self, level: float, known: Mapping[Kind, float] | None = None) -> None:
        self._level = level
        known = known or {}
        self._factors = {kind: min(MOST_MARGIN, max(1.0, known.get(kind, 1.0))) for kind in Kind}

    def of(self, kind: Kind) -> float:
        return max(self._factors.values()) if kind is Kind.MIXED else self._factors[kind]

    def observe(self, kind: Kind, ratio: float) -> None:
        """Tracks the quantile `level` by stochastic approximation."""
        factor = self._factors[kind]
        push = self._level if ratio > factor else self._level - 1.0
        self._factors[kind] = min(MOST_MARGIN, max(1.0, factor + MARGIN_GAIN * push))
