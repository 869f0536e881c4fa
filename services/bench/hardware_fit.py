"""Fits the true step of a simulated engine to measured steps.

The method is Levenberg-Marquardt on relative errors with Huber weights (linear beyond a tenth), in
the logarithms of the numbers, so that none becomes negative. It is deterministic.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.bench.fit_tables import Timed
from shared.batch_time.table import counts_of
from shared.compiled import compiled
from shared.hardware import TrueStep, true_s

Floats = NDArray[np.float64]
_ROUNDS, _TRIES = 80, 8
_TAIL = 0.1
_NUDGE = 1e-4
_MOST_MOVE = 1.0  # greatest change of a logarithm in one iteration
_CALM = 1e-7
_NOTHING = 1e-3  # share of all predicted time: a number that adds less becomes 0
_DIGITS = 4
_SHARPEST = 128.0  # beyond it a corner is as good as a maximum


@compiled
def true_times_s(numbers: Floats, counts: Floats) -> Floats:
    """Seconds of many steps; `counts` has shape (steps, COUNTS)."""
    times = np.empty(len(counts))
    for place in range(len(counts)):
        times[place] = true_s(numbers, counts[place])
    return times


@dataclass(frozen=True, slots=True)
class _Point:
    """One iterate: logarithms, relative errors, their weights and the loss."""

    at: Floats
    errors: Floats
    weights: Floats
    cost: float


def fit_true(start: TrueStep, free: Sequence[str], rows: Sequence[Timed]) -> TrueStep:
    """`start` with its `free` numbers, all above 0, fitted to `rows` and rounded to four digits."""
    counts = np.array([counts_of(row.step) for row in rows])
    times = np.array([row.seconds for row in rows])
    names = list(start.plain)
    places = [names.index(name) for name in free]

    def numbers(at: Floats) -> Floats:
        moved = start.numbers.copy()
        moved[places] = np.exp(at)
        return moved

    def errors(at: Floats) -> Floats:
        return np.asarray(true_times_s(numbers(at), counts) / times - 1.0)

    best = _descend(errors, np.log(start.numbers[places]))
    return _tidy(start, dict(zip(free, np.exp(best).tolist(), strict=True)), counts)


def _descend(errors: Callable[[Floats], Floats], at: Floats) -> Floats:
    here, damping = _point(errors, at), 1e-2
    for _ in range(_ROUNDS):
        slope = _slope(errors, here) * here.weights[:, None]
        square, pull = slope.T @ slope, slope.T @ (here.weights * here.errors)
        for _ in range(_TRIES):
            floor = np.diag(square) + 1e-9 * np.trace(square)
            move = np.linalg.solve(square + damping * np.diag(floor), -pull)
            there = _point(errors, here.at + np.clip(move, -_MOST_MOVE, _MOST_MOVE))
            if there.cost < here.cost:
                break
            damping *= 4
        else:
            return here.at
        calm = here.cost - there.cost < _CALM * here.cost
        here, damping = there, max(damping / 4, 1e-9)
        if calm:
            break
    return here.at


def _point(errors: Callable[[Floats], Floats], at: Floats) -> _Point:
    found = errors(at)
    weights = np.sqrt(np.minimum(1.0, _TAIL / np.maximum(np.abs(found), 1e-12)))
    return _Point(at, found, weights, float(np.mean((weights * found) ** 2)))


def _slope(errors: Callable[[Floats], Floats], here: _Point) -> Floats:
    nudges = np.eye(len(here.at)) * _NUDGE
    return np.array([(errors(here.at + one) - here.errors) / _NUDGE for one in nudges]).T


def _tidy(start: TrueStep, found: dict[str, float], counts: Floats) -> TrueStep:
    """Rounds the numbers, bounds the corner, and sets numbers that add almost nothing to 0."""
    rounded = {name: float(f"{value:.{_DIGITS}g}") for name, value in found.items()}
    corner = min(_SHARPEST, max(1.0, rounded.get("corner", start.corner)))
    tile_share = rounded.get("tile_share", start.tile_share)
    rounded |= {"corner": corner, "tile_share": tile_share if tile_share > _NOTHING else 0.0}
    step = start.changed(**rounded)
    whole = true_times_s(step.numbers, counts).sum()
    for name in (one for one in found if one.endswith("_s")):
        without = step.changed(**{name: 0.0})
        if whole - true_times_s(without.numbers, counts).sum() < _NOTHING * whole:
            step = without
    return step
