"""Errors of fits on held-out steps, by kind of step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.bench.fit_tables import Table, Timed
from shared.batch_time import Fit, Form, Kind, fit_curve

ALL, EXTRAPOLATED = "all", "extrapolated"
KINDS = (ALL, *Kind, EXTRAPOLATED)
_SEED = 1
_HELD_OUT = 0.3
_FEW, _FOLDS = 100, 4  # tables with fewer steps are cross-validated in folds
_NEAR = 0.85  # the share of steps, by tokens and by contexts, that an extrapolating fit sees
_LEAST_STEPS = 12
_PROMISED = 0.95

Floats = NDArray[np.float64]
Indexes = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Relative errors in percent.

    `within_upper` is the share of steps within the 95 % bound; `r2` is None if all steps took the
    same time.
    """

    steps: int
    r2: float | None
    p50: float
    p95: float
    worst: float
    within_upper: float

    @classmethod
    def of(cls, measured: Floats, predicted: Floats, upper: Floats) -> "Errors":
        """Errors of at least one step; all arrays have shape (steps,), in seconds."""
        off = 100 * np.abs(predicted / measured - 1)
        spread = float(np.sum((measured - measured.mean()) ** 2))
        missed = float(np.sum((measured - predicted) ** 2))
        return cls(
            steps=len(measured),
            r2=1 - missed / spread if spread else None,
            p50=float(np.quantile(off, 0.5)),
            p95=float(np.quantile(off, 0.95)),
            worst=float(off.max()),
            within_upper=float((measured <= upper).mean()),
        )

    def as_json(self) -> dict[str, float | int | None]:
        return {
            "steps": self.steps,
            "r2": None if self.r2 is None else round(self.r2, 4),
            "p50_percent": round(self.p50, 2),
            "p95_percent": round(self.p95, 2),
            "max_percent": round(self.worst, 1),
            "within_upper_95": round(self.within_upper, 4),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One form on one table: its fit of all steps, and errors by kind on held-out steps."""

    form: Form
    fit: Fit
    errors: Mapping[str, Errors]


def measure(table: Table, form: Form) -> Measured:
    """Cross-validates a form on a table. Raises ValueError with too few steps to hold any out."""
    if len(table.rows) < _LEAST_STEPS:
        raise ValueError(f"{table.name} has {len(table.rows)} steps")
    held = _errors_of(table.rows, form, _splits(len(table.rows)))
    near = _near(table.rows)
    far = np.flatnonzero(~near)
    errors = {kind: one for kind, one in held.items() if one is not None}
    if len(far):
        beyond = _errors_of(table.rows, form, [(np.flatnonzero(near), far)])[ALL]
        errors |= {EXTRAPOLATED: beyond} if beyond else {}
    return Measured(form=form, fit=_fit(table.rows, form), errors=errors)


def _errors_of(
    rows: Sequence[Timed], form: Form, splits: Sequence[tuple[Indexes, Indexes]]
) -> dict[str, Errors | None]:
    """Errors by kind. `splits` are pairs of indexes: steps to fit, steps to predict."""
    tested = [rows[i] for _, test in splits for i in test]
    predicted, upper = [], []
    for seen, test in splits:
        fit = _fit([rows[i] for i in seen], form)
        predicted += [fit.curve.step_time(rows[i].step) for i in test]
        upper += [fit.upper(rows[i].step, _PROMISED) for i in test]
    columns = np.array([[row.seconds for row in tested], predicted, upper])
    kinds = np.array([row.step.kind for row in tested])
    chosen: dict[str, NDArray[np.bool_]] = {kind: kinds == kind for kind in Kind}
    chosen[ALL] = np.ones(len(tested), dtype=bool)
    return {
        kind: Errors.of(*columns[:, mask]) if mask.any() else None for kind, mask in chosen.items()
    }


def _fit(rows: Sequence[Timed], form: Form) -> Fit:
    return fit_curve(form, [row.step for row in rows], [row.seconds for row in rows])


def _splits(count: int) -> list[tuple[Indexes, Indexes]]:
    order = np.random.default_rng(_SEED).permutation(count)
    if count >= _FEW:
        held = round(_HELD_OUT * count)
        return [(order[held:], order[:held])]
    return [(np.setdiff1d(order, fold), fold) for fold in np.array_split(order, _FOLDS)]


def _near(rows: Sequence[Timed]) -> NDArray[np.bool_]:
    """Steps with neither the most tokens nor the most context."""
    sizes = np.array([[row.step.tokens, _context_tokens(row)] for row in rows])
    within: NDArray[np.bool_] = (sizes <= np.quantile(sizes, _NEAR, axis=0)).all(axis=1)
    return within


def _context_tokens(row: Timed) -> float:
    return row.step.decode_context_tokens + row.step.earlier_tokens
