"""Recursive least squares with costs of at least zero, over the pieces of any form."""

import math
from collections.abc import Sequence
from operator import mul

from shared.batch_time.curve import StepCurve
from shared.batch_time.forms import USUAL, Form
from shared.batch_time.tuning import (
    FIRST_TRUST,
    OUTLIER,
    WEIGHT_KEPT,
    WEIGHT_KEPT_WHEN_SURPRISED,
)

_LEAST_TRUST = 1e-9  # of a given coefficient; with less, unused ones could not be solved for
_SWEEPS = 4


class RecursiveFit:
    """Each step moves the coefficients of the pieces that it is on.

    `trust` is the weight of given coefficients: for each, the sum over steps of the squared share
    in a step's time that a coefficient of one would have.
    """

    def __init__(
        self,
        form: Form,
        coefficients: Sequence[float] | None = None,
        trust: Sequence[float] | None = None,
    ) -> None:
        self.form = form
        self._columns = [int(feature) for feature in form.columns]
        # Scaled so that a first step is attributed to the kind of work that it mostly was.
        self._scales = [1 / USUAL[feature] for feature in form.columns]
        self._groups = [[range(one.start, one.stop) for one in group] for group in form.slices]
        self._costs = [0.0] * len(self._columns)
        self._information: list[list[float]] = []
        if coefficients is not None and trust is not None:
            self._costs = [a / b for a, b in zip(coefficients, self._scales, strict=True)]
            self._information = _diagonal(
                [max(_LEAST_TRUST, a * b * b) for a, b in zip(trust, self._scales, strict=True)]
            )

    @property
    def curve(self) -> StepCurve:
        scaled = zip(self._costs, self._scales, strict=True)
        return StepCurve(form=self.form, coefficients=tuple(a * b for a, b in scaled))

    def learn(self, values: Sequence[float], seconds: float) -> float:
        """Updates the fit by a step's features and seconds; returns the seconds it predicted."""
        if not self._information:
            self._information = _diagonal([FIRST_TRUST / seconds**2] * len(self._costs))
        scaled = [values[i] * scale for i, scale in zip(self._columns, self._scales, strict=True)]
        active = self._active(scaled)
        predicted_s = math.fsum(self._costs[i] * scaled[i] for i in active)
        seen = [i for i in active if scaled[i]]
        self._forget(seen, abs(seconds - predicted_s) / max(seconds, predicted_s))
        wanted = {i: self._dot(i) for i in active}
        scale_s = min(max(predicted_s, seconds / OUTLIER), seconds * OUTLIER)
        self._add(seen, scaled, seconds / scale_s**2, 1 / scale_s**2, wanted)
        for _ in range(_SWEEPS):
            self._descend(wanted)
        return predicted_s

    def _active(self, scaled: Sequence[float]) -> list[int]:
        """The coefficients of the longest piece of each group."""
        found: list[int] = []
        for group in self._groups:
            found += max(group, key=lambda piece: sum(self._costs[i] * scaled[i] for i in piece))
        return found

    def _forget(self, seen: Sequence[int], surprise: float) -> None:
        """Reduces the weight of earlier steps, but only for the coefficients seen now: an hour of
        decoding must not wipe out prefill.

        The reduction grows with `surprise` (0 to 1), to follow an engine that became slower or
        faster.
        """
        kept = WEIGHT_KEPT + surprise * (WEIGHT_KEPT_WHEN_SURPRISED - WEIGHT_KEPT)
        half = math.sqrt(kept)
        touched = set(seen)
        for i in seen:
            row = self._information[i]
            for j in range(len(row)):
                if j in touched:
                    row[j] *= kept
                elif row[j]:
                    row[j] *= half
                    self._information[j][i] = row[j]

    def _add(
        self,
        seen: Sequence[int],
        scaled: Sequence[float],
        pull: float,
        weight: float,
        wanted: dict[int, float],
    ) -> None:
        for i in seen:
            wanted[i] += pull * scaled[i]
            row = self._information[i]
            for j in seen:
                row[j] += weight * scaled[i] * scaled[j]

    def _descend(self, wanted: dict[int, float]) -> None:
        for i, goal in wanted.items():
            missing = goal - self._dot(i)
            self._costs[i] = max(0.0, self._costs[i] + missing / self._information[i][i])

    def _dot(self, i: int) -> float:
        total: float = sum(map(mul, self._information[i], self._costs))
        return total


def _diagonal(values: Sequence[float]) -> list[list[float]]:
    n = len(values)
    return [[values[i] if i == j else 0.0 for j in range(n)] for i in range(n)]
