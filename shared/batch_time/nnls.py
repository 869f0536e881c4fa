"""Least squares with no coefficient below zero (Lawson and Hanson's active set)."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_NEGLIGIBLE = 1e-10


def non_negative(gram: Floats, wanted: Floats) -> Floats:
    """The x >= 0 with the least x'(gram)x - 2 wanted'x; gram (n, n), wanted (n,)."""
    scale = np.sqrt(np.diag(gram))
    scale[scale == 0] = 1.0
    solved: Floats = _solve(gram / np.outer(scale, scale), wanted / scale) / scale
    return solved


def _solve(gram: Floats, wanted: Floats) -> Floats:
    n = len(wanted)
    x, free = np.zeros(n), np.zeros(n, dtype=bool)
    enough = _NEGLIGIBLE * float(np.abs(wanted).max(initial=0.0))
    for _ in range(3 * n):
        gain = np.where(free, -np.inf, wanted - gram @ x)
        best = int(np.argmax(gain))
        if gain[best] <= enough:
            break
        free[best] = True
        x = _settle(gram, wanted, x, free)
    return x


def _settle(gram: Floats, wanted: Floats, x: Floats, free: NDArray[np.bool_]) -> Floats:
    """Moves to the optimum over the free coefficients and fixes (in `free` too) those that reach
    zero.
    """
    while free.any():
        goal = np.zeros_like(x)
        goal[free] = np.linalg.lstsq(gram[np.ix_(free, free)], wanted[free], rcond=1e-12)[0]
        below = free & (goal <= 0)
        if not below.any():
            return goal
        way = float(np.min(x[below] / (x[below] - goal[below] + np.finfo(float).tiny)))
        x = np.maximum(0.0, x + way * (goal - x))
        free &= ~(below & (x <= _NEGLIGIBLE * max(1.0, float(x.max()))))
        x = np.where(free, x, 0.0)
        # The one that bounds the way is at zero up to rounding.
        free[np.flatnonzero(below)[np.argmin(x[below])]] = False
    return np.zeros_like(x)
