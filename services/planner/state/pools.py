"""Divides an overloaded fleet into two pools of the greatest value per second. Compiled.

The first pool serves classes that leave a share `tight` of an engine or more to all work, the
second one those that leave `loose` or more. Classes are rows of PER_S to WAITS_S, those of the
greatest value per second of work first (fractional knapsack; Dantzig, 1957).
"""

import numpy as np
import numpy.typing as npt

from shared.batch_time.table import FloatArray
from shared.compiled import compiled, inlined

Sizes = npt.NDArray[np.int64]
(
    PER_S,  # requests per second
    WORK_S,  # seconds of an engine that each takes
    VALUE,
    LEAVES,  # the share of the engine's time that its TPOT leaves to all work while it decodes
    DECODES_S,  # for how long it decodes
    WAITS_S,  # how long its first token may wait
) = range(6)


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

    A tight TPOT counts as always there: to keep a class apart costs it little, to leave it out all.
    """
    tight = shares[0]
    together = filled(classes, tight, tight, engines * tight, 0.0)
    if together >= enough:
        return 0, 0
    found, best = (0, 0), worth_leaving_out * together
    for place in range(1, len(shares)):
        for k in range(len(sizes)):
            loose = shares[place]
            here, there = sizes[k] * tight, (engines - sizes[k]) * loose
            value = filled(classes, tight, loose, here, there)
            if value > best:
                found, best = (place, k), value
    return found


@compiled
def _most_value(classes: FloatArray, shares: FloatArray, sizes: Sizes, engines: int) -> float:
    """The greatest value per second with the classes that leave `shares[0]` or more."""
    tight = shares[0]
    all_s = engines * left_to_work(classes, tight, np.inf, engines)
    most = filled(classes, tight, tight, all_s, 0.0)
    for loose in shares[1:]:
        for size in sizes:
            others = engines - size
            here_s = size * left_to_work(classes, tight, loose if others > 0 else np.inf, size)
            there_s = others * left_to_work(classes, loose, np.inf, others)
            most = max(most, filled(classes, tight, loose, here_s, there_s))
    return most


@compiled
def filled(classes: FloatArray, tight: float, loose: float, here_s: float, there_s: float) -> float:
    """The value per second of pools with so much time per second for all work; the second fills
    first.
    """
    value = 0.0
    for i in range(len(classes)):
        if classes[i, LEAVES] < tight:
            continue
        wanted = classes[i, PER_S] * classes[i, WORK_S]
        given = min(there_s, wanted) if classes[i, LEAVES] >= loose else 0.0
        there_s -= given
        more = min(here_s, wanted - given)
        here_s -= more
        served = (given + more) / wanted if wanted > 0 else 1.0
        value += served * classes[i, PER_S] * classes[i, VALUE]
    return value


@inlined
def _busy_s(per_s: float, lasts_s: float) -> float:
    """The mean busy period of an M/G/infinity queue: arrivals per second that stay for so long."""
    return float(np.expm1(per_s * lasts_s) / per_s) if per_s > 0 else lasts_s


@compiled
def left_to_work(classes: FloatArray, tight: float, loose: float, engines: int) -> float:
    """The mean share of an engine's time that is left to all work by the classes that leave from
    `tight` to below `loose` and are spread over so many engines.

    At any time the tightest class that decodes on the engine counts. The decodes of a class there
    are taken as those of an M/G/infinity queue. Where its busy periods are longer than the looser
    classes can wait, it counts as always there.
    """
    without, left = 1.0, 0.0  # `without`: the share of time without a tighter class
    for i in np.argsort(classes[:, LEAVES]):
        if engines == 0 or not tight <= classes[i, LEAVES] < loose:
            continue
        waits_s, per_s = np.inf, classes[i, PER_S] / engines
        for j in range(len(classes)):
            if classes[i, LEAVES] < classes[j, LEAVES] < loose:
                waits_s = min(waits_s, classes[j, WAITS_S])
        busy_s = _busy_s(per_s, classes[i, DECODES_S])
        present = 1.0 if busy_s > waits_s else -np.expm1(-per_s * classes[i, DECODES_S])
        left += without * present * classes[i, LEAVES]
        without *= 1.0 - present
    return float(left + without)
