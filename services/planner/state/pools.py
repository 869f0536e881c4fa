"""Divides an overloaded fleet into two pools of the greatest value per second. Compiled.

The first pool serves classes that leave a share `tight` of an engine or more to all work, the
second one those that leave `loose` or more. Classes are rows of PER_S to LEAVES, those of the
greatest value per second of work first (fractional knapsack; Dantzig, 1957).
"""

import numpy as np
import numpy.typing as npt

from shared.batch_time.table import FloatArray
from shared.compiled import compiled

Sizes = npt.NDArray[np.int64]
# The columns: requests per second; of each its seconds of an engine, its value, and the share of
# the engine's time that its TPOT leaves to all work.
PER_S, WORK_S, VALUE, LEAVES = range(4)


@compiled
def without_tight(
    classes: FloatArray,
    shares: FloatArray,
    sizes: Sizes,
    engines: int,
    enough: float,
    worth_leaving_out: float,
) -> int:
    """The place in `shares`, ascending, of the tightest TPOT to serve; 0 serves all classes: they
    complete `enough` value per second, or none is `worth_leaving_out`, a factor on that value.

    `sizes` are those of the first pool to try, in engines.
    """
    together = _most_value(classes, shares, sizes, engines)
    if together >= enough:
        return 0
    found, best = 0, worth_leaving_out * together
    for place in range(1, len(shares)):
        value = _most_value(classes, shares[place:], sizes, engines)
        if value > best:
            found, best = place, value
    return found


@compiled
def kept_apart(
    classes: FloatArray,
    shares: FloatArray,
    sizes: Sizes,
    engines: int,
    enough: float,
    worth_leaving_out: float,
) -> tuple[int, int]:
    """The place in `shares` of the tightest TPOT outside the first pool, and that in `sizes` of the
    pool; the first is 0 where pools do not pay. Arguments are those of `without_tight`.
    """
    tight = shares[0]
    together = filled(classes, tight, tight, engines, 0)
    if together >= enough:
        return 0, 0
    found, best = (0, 0), worth_leaving_out * together
    for place in range(1, len(shares)):
        for k in range(len(sizes)):
            value = filled(classes, tight, shares[place], sizes[k], engines - sizes[k])
            if value > best:
                found, best = (place, k), value
    return found


@compiled
def _most_value(classes: FloatArray, shares: FloatArray, sizes: Sizes, engines: int) -> float:
    """The greatest value per second with the classes that leave `shares[0]` or more."""
    most = -np.inf
    for loose in shares:
        for size in sizes:
            most = max(most, filled(classes, shares[0], loose, size, engines - size))
    return most


@compiled
def filled(classes: FloatArray, tight: float, loose: float, first: int, second: int) -> float:
    """The value per second of pools of `first` and `second` engines; the second fills first."""
    here, there, value = first * tight, second * loose, 0.0
    for i in range(len(classes)):
        if classes[i, LEAVES] < tight:
            continue
        wanted = classes[i, PER_S] * classes[i, WORK_S]
        given = min(there, wanted) if classes[i, LEAVES] >= loose else 0.0
        there -= given
        more = min(here, wanted - given)
        here -= more
        served = (given + more) / wanted if wanted > 0 else 1.0
        value += served * classes[i, PER_S] * classes[i, VALUE]
    return value
