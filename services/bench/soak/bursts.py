"""A seeded bursty load: clustered gaps between requests, quiet and busy phases."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Final

from services.bench.capacity.workload import Load, Offered, poisson

# The rate in each tenth of the run, relative to the mean: a quiet start, two peaks, a quiet end.
TENTHS: Final = (0.5, 0.8, 1.6, 1.2, 0.5, 0.6, 1.2, 1.9, 1.1, 0.6)


def bursty(classes: Sequence[str], seed: int, count: int, variation: float) -> Load:
    """Requests as in `poisson`, with Gamma gaps of coefficient of variation `variation`."""
    drawn = random.Random(f"{seed} gaps")  # noqa: S311 - no secret is made of it
    shape = 1 / (variation * variation)
    times = accumulate(drawn.gammavariate(shape, 1 / shape) for _ in range(count))
    requests = poisson("", classes, seed, count).arrivals
    arrivals = [replace(one, at=at) for one, at in zip(requests, times, strict=True)]
    return Load(name="bursty", arrivals=arrivals)


def busy_and_quiet(offered: Sequence[Offered], seconds: float) -> list[Offered]:
    """The same requests with times warped by TENTHS: closer together in busy tenths."""
    return [replace(one, at_s=seconds * _moved(one.at_s / seconds)) for one in offered]


def _moved(share: float) -> float:
    """The share of the run by which this share of all requests has come."""
    left, total = share * sum(TENTHS), 0.0
    for number, busy in enumerate(TENTHS):
        if left <= total + busy:
            return (number + (left - total) / busy) / len(TENTHS)
        total += busy
    return 1.0
