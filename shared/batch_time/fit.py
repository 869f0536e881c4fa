"""Fits a form to measured steps: which piece each step is on, then non-negative least squares.

Deterministic. Errors are relative to the measured time. Beyond a few times the median they count
linearly (Huber), so that a step that met a pause moves little.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.batch_time.curve import StepCurve
from shared.batch_time.forms import Feature, Form, features
from shared.batch_time.nnls import Floats, non_negative
from shared.batch_time.steps import Kind, Step
from shared.batch_time.tuning import LEAST_TAIL, TAIL

Places = NDArray[np.intp]  # (groups, steps): the piece that each step is on
_ROUNDS, _TRIAL_ROUNDS = 60, 10
_SEARCHED, _SEED = 3000, 1  # this many steps suffice to find where the pieces belong
_EXACT = 1e-20  # a smaller loss is rounding error
_SHARES = (0.8, 0.5, 0.2, 0.05)  # of steps that a new piece is tried on
_MARGIN_LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A curve and how the steps of its fit deviate from it.

    `margins`: by kind of step, measured over predicted time at each of `levels`. `trust`: for each
    coefficient, the mean square of the share in a step's time that a coefficient of 1 would have.
    An online fit starts from it.
    """

    curve: StepCurve
    steps: int
    margins: Mapping[Kind, tuple[float, ...]]
    trust: tuple[float, ...]
    levels: tuple[float, ...] = _MARGIN_LEVELS

    def upper(self, step: Step, level: float) -> float:
        """Seconds that a share `level` of such steps keeps within, by the steps of the fit."""
        return self.curve.step_time(step) * self.margin(step.kind, level)

    def margin(self, kind: Kind, level: float) -> float:
        """Measured over predicted time at this level; for a kind without steps, the widest.

        A mixed step's is no less than that of its parts: more work is never promised sooner.
        """
        own = kind in self.margins and kind is not Kind.MIXED
        known = [self.margins[kind]] if own else list(self.margins.values())
        return max(float(np.interp(level, self.levels, one)) for one in known)


def fit_curve(form: Form, steps: Sequence[Step], times_s: Sequence[float]) -> Fit:
    """The curve of `form` nearest to the measured times. Raises ValueError without any step."""
    if not steps or len(steps) != len(times_s) or min(times_s) <= 0:
        raise ValueError("a fit needs steps, and a time above zero for each of them")
    values, times = np.array([features(step) for step in steps]), np.array(times_s)
    some = np.random.default_rng(_SEED).permutation(len(steps))[:_SEARCHED]
    search = _Search(form, values, times)
    weights = search.refine(_Search(form, values[some], times[some]).best())
    curve = StepCurve(form=form, coefficients=tuple(float(one) for one in weights))
    ratios = search.times / np.maximum(search.predict(weights), 1e-12)
    design = search.design(search.places(weights)) / search.times[:, None]
    return Fit(
        curve=curve,
        steps=len(steps),
        margins=_margins([step.kind for step in steps], ratios),
        trust=tuple(float(one) for one in (design**2).mean(axis=0)),
    )


def _margins(kinds: Sequence[Kind], ratios: Floats) -> dict[Kind, tuple[float, ...]]:
    found = {}
    for kind in Kind:
        own = ratios[[one == kind for one in kinds]]
        if len(own):
            levels = np.quantile(own, _MARGIN_LEVELS, method="higher")
            found[kind] = tuple(float(one) for one in levels)
    return found


class _Search:
    """`values`: (steps, features); `times`: (steps,) in seconds."""

    def __init__(self, form: Form, values: Floats, times: Floats) -> None:
        self.times = times
        self._slices = form.slices
        self._inputs = [
            [values[:, [int(one) for one in piece]] for piece in group] for group in form.groups
        ]
        self._columns = values[:, [int(one) for one in form.columns]]
        self._pieces = [
            (group, piece)
            for group, pieces in enumerate(form.groups)
            for piece in range(1, len(pieces))
        ]
        self._form = form

    def best(self) -> Floats:
        """Starts with one piece in each group and tries each other one on steps where it may
        belong.

        Does so twice: the use of one piece may show only once another has found its place.
        """
        used = np.ones(len(self._slices), dtype=np.intp)
        places = np.zeros((len(used), len(self.times)), dtype=np.intp)
        loss, weights = self._descend(places, used, _ROUNDS)
        for group, piece in self._pieces * 2:
            used[group] = max(used[group], piece + 1)
            now = self.places(weights, used)
            if (now[group] == piece).any() or loss < _EXACT:  # else two pieces would be the same
                continue
            tried = [(loss, weights)]
            for chosen in self._where(group, piece, weights):
                places = now.copy()
                places[group, chosen] = piece
                tried.append(self._descend(places, used, _TRIAL_ROUNDS))
            _, weights = min(tried, key=lambda one: one[0])
            loss, weights = self._descend(self.places(weights, used), used, _ROUNDS)
        return weights

    def refine(self, weights: Floats) -> Floats:
        """Fits the same pieces to all of these steps."""
        used = np.array([len(slices) for slices in self._slices])
        return self._descend(self.places(weights), used, _ROUNDS)[1]

    def predict(self, weights: Floats) -> Floats:
        total = np.zeros(len(self.times))
        for group, slices in zip(self._inputs, self._slices, strict=True):
            total += np.max(
                [x @ weights[one] for x, one in zip(group, slices, strict=True)], axis=0
            )
        return total

    def places(self, weights: Floats, used: NDArray[np.intp] | None = None) -> Places:
        found = []
        for i, (group, slices) in enumerate(zip(self._inputs, self._slices, strict=True)):
            count = len(group) if used is None else int(used[i])
            times = [x @ weights[one] for x, one in zip(group[:count], slices, strict=False)]
            found.append(np.argmax(times, axis=0))
        return np.array(found, dtype=np.intp)

    def design(self, places: Places) -> Floats:
        """(steps, coefficients): each step's features in the columns of the pieces it is on."""
        x = self._columns.copy()
        for group, slices in enumerate(self._slices):
            for piece, columns in enumerate(slices):
                x[places[group] != piece, columns] = 0.0
        return x

    def _descend(self, places: Places, used: NDArray[np.intp], rounds: int) -> tuple[float, Floats]:
        """Alternates between fitting and moving steps to their pieces; returns the best of all
        rounds.
        """
        best = (np.inf, np.zeros(self._columns.shape[1]))
        calm = np.ones(len(self.times))
        for _ in range(rounds):
            x = self.design(places) * (calm / self.times)[:, None]
            weights = non_negative(x.T @ x, x.T @ calm)
            errors = np.abs(self.predict(weights) / self.times - 1)
            tail = max(LEAST_TAIL, TAIL * float(np.median(errors)))
            calm = np.sqrt(np.minimum(1.0, tail / np.maximum(errors, 1e-12)))
            loss = float(np.mean((calm * errors) ** 2))
            if loss < best[0]:
                best = (loss, weights)
            moved = self.places(weights, used)
            if (moved == places).all() and loss > best[0] * (1 - 1e-6):
                break
            places = moved
        return best

    def _where(self, group: int, piece: int, weights: Floats) -> Iterator[NDArray[np.bool_]]:
        """Steps that a new piece may be for: those that took longer than predicted, those with
        most or least of one of its features, and those that took least for how much they have.
        """
        measures = [self.times / np.maximum(self.predict(weights), 1e-12)]
        for feature in self._form.groups[group][piece]:
            if feature != Feature.FIXED:
                value = self._columns[:, self._form.columns.index(feature)]
                measures += [value, -value, value / self.times]
        for measure in measures:
            for share in _SHARES:
                yield measure >= np.quantile(measure, 1 - share)
