"""A rate that no scheduler can exceed, from a relaxed problem: the true limit may lie below it.

The relaxed scheduler knows the whole load beforehand, pays `least_cost` for each program and
spreads work over all engines as if they were one. What remains is that work is done between its
arrival and its deadline: of any consecutive programs, those that are kept must fit between the
first arrival among them and their deadlines; once with all of their work, and once with the first
prompt alone and its TTFT. The least number of programs to give up is that of Moore (1968): go by
deadline, and where time runs out drop the dearest one.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.evaluation.least_cost import Seconds, least_costs
from services.evaluation.scenarios import allowed_s
from shared.hardware import Hardware
from shared.simulation.zero_load import ttft_s
from shared.workloads.calls import Load

_LEAST_STRETCH: Final = 8  # programs in the shortest stretch; lengths then double
_CLOSE: Final = 1.005


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Jobs:
    """`costs_s` of work on one engine, due `slacks_s` after the arrival, in order of arrival."""

    costs_s: Seconds
    slacks_s: Seconds


def upper_bound(load: Load, hardware: Hardware, *, engines: int, bar: float) -> float:
    """Programs per second for all engines together at which a share `bar` could still be kept."""
    arrivals = np.array([program.arrives_s for program in load]) - load[0].arrives_s
    now = (len(load) - 1) / arrivals[-1] if len(load) > 1 and arrivals[-1] else 1.0
    sorts = _jobs(load, hardware, engines)
    allowed = int((1 - bar) * len(load) + 1e-9)
    low, high = 0.0, 1.0
    while _given_up(sorts, arrivals * (now / high)) <= allowed and high < 1e6:
        low, high = high, 2 * high
    while high > low * _CLOSE and high > 1e-4:
        middle = (low * high) ** 0.5 if low else high / 2
        if _given_up(sorts, arrivals * (now / middle)) <= allowed:
            low = middle
        else:
            high = middle
    return high


def lasting_rate(load: Load, hardware: Hardware, *, engines: int, bar: float) -> float:
    """`upper_bound` for a load that never ends, so that work cannot be deferred past its end. A
    load that ends may exceed it, the more the shorter it is.
    """
    costs = np.sort(least_costs(load, hardware).whole_s)
    kept = len(load) - int((1 - bar) * len(load) + 1e-9)
    return float(engines * len(load) / costs[:kept].sum())


def _jobs(load: Load, hardware: Hardware, engines: int) -> tuple[_Jobs, _Jobs]:
    costs = least_costs(load, hardware)
    whole = np.array([allowed_s(program, hardware) for program in load])
    starts = np.array([ttft_s(program.calls[0], hardware) for program in load])
    return (
        _Jobs(costs_s=costs.whole_s / engines, slacks_s=whole),
        _Jobs(costs_s=costs.prompt_s / engines, slacks_s=starts),
    )


def _given_up(sorts: Sequence[_Jobs], arrivals: Seconds) -> int:
    """The greatest number given up by any of the cuts of the load into stretches."""
    return max(
        sum(_late(jobs, arrivals, stretch) for stretch in stretches)
        for jobs in sorts
        for stretches in _cuts(len(arrivals))
    )


def _cuts(programs: int) -> Iterator[list[slice]]:
    size = _LEAST_STRETCH
    while size < 2 * programs:
        yield [slice(start, start + size) for start in range(0, programs, size)]
        size *= 2


def _late(jobs: _Jobs, arrivals: Seconds, stretch: slice) -> int:
    """The least number of late programs in a stretch, if none of their work is done before the
    first has arrived.
    """
    came = arrivals[stretch] - arrivals[stretch][0]
    due, costs = came + jobs.slacks_s[stretch], jobs.costs_s[stretch]
    taken: list[float] = []
    busy_s, late = 0.0, 0
    for one in np.argsort(due, kind="stable").tolist():
        heapq.heappush(taken, -costs[one])
        busy_s += costs[one]
        if busy_s > due[one]:
            busy_s += heapq.heappop(taken)
            late += 1
    return late
