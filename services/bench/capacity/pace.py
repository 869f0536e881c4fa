"""The length of a point and the first rate of a search."""

from typing import Final

from services.bench.capacity.classes import ZeroLoad
from services.bench.capacity.options import CapacityOptions
from services.bench.capacity.workload import Load

_START_S: Final = 35.0  # to start one system and warm it up
_LEAST_S, _MOST_S = 10.0, 80.0
_BATCH: Final = 8  # requests that share a step on a well-used engine
_USED: Final = 0.6  # utilization of an engine at which a search begins
_LOOKED_AT: Final = 200  # requests of a load that are sampled for it


def speculation_rounds(options: CapacityOptions) -> int:
    """Rounds with drafts; fewer, as the search begins near the capacity without."""
    return max(2, options.rounds - 2)


def point_seconds(options: CapacityOptions, loads: int) -> float:
    """Seconds of arrivals in each point: as given, or what the budget leaves."""
    if options.point_s:
        return options.point_s
    points = len(options.token_budgets) - 1 + 2 * options.rounds * loads
    points += 2 * bool(options.overload)
    points += 2 * speculation_rounds(options) * bool(options.speculation_tokens)
    points += 2 * options.rounds * options.fleet
    points += 4 * options.saturation
    systems = len(options.token_budgets) + 1 + 2 * bool(options.speculation_tokens)
    left_s = options.budget_s - _START_S * (systems + 2 * options.fleet)
    return min(max(left_s / points - options.drain_s / 2, _LEAST_S), _MOST_S)


def first_rate(load: Load, zero_load: ZeroLoad) -> float:
    """Requests/s of a well-used engine: prompts one by one, answers in batches."""
    looked_at = load.arrivals[:_LOOKED_AT]
    work_s = sum(
        zero_load.ttft_of(one.prompt_tokens) + one.output_tokens * zero_load.tpot_s / _BATCH
        for one in looked_at
    )
    return _USED * len(looked_at) / work_s
