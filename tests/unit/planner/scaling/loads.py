"""Windows of requests and engines for the laws of scaling; step costs are known."""

import numpy as np

from services.planner.scaling.fleet_size import FleetSize
from services.planner.scaling.numbers import ScalingNumbers
from services.planner.scaling.recent_demand import (
    ARRIVES,
    DEMAND_COLUMNS,
    DUE,
    GAIN,
    OUTPUT,
    PACE,
    PROMPT,
    TPOT,
    Demands,
)
from services.planner.scaling.scaler import Question
from services.planner.scaling.site import Site
from shared.batch_time import BatchTimeModel, StepCost
from shared.scheduling.former import engine_limits

COST = StepCost(fixed_s=0.01, per_prefill_token_s=0.0002, per_decode_token_s=0.0005)
WINDOW_S = 20.0


def site() -> Site:
    table = BatchTimeModel(COST).table
    assert table is not None
    limits = engine_limits(max_tokens=2048, block_tokens=16, max_resident=64, free_blocks=4096)
    return Site(
        limits=np.array([limits, limits]),
        prefill_table=table.numbers,
        decode_table=table.numbers,
        link_fixed_s=0.005,
        link_token_s=1e-6,
    )


def window(
    rate: float,
    *,
    prompt: int = 200,
    output: int = 50,
    ttft_s: float = 0.5,
    tpot_s: float = 0.05,
    seed: int = 1,
    seconds: float = 2 * WINDOW_S,
) -> Demands:
    """Requests at random times up to 0, with lengths around those given."""
    chance = np.random.default_rng(seed)
    count = max(1, round(rate * seconds))
    demands = np.zeros((count, DEMAND_COLUMNS))
    demands[:, ARRIVES] = np.sort(chance.uniform(-seconds, 0.0, count))
    demands[:, PROMPT] = np.maximum(1, np.round(prompt * chance.uniform(0.5, 1.5, count)))
    demands[:, OUTPUT] = np.maximum(1, np.round(output * chance.uniform(0.5, 1.5, count)))
    demands[:, DUE], demands[:, TPOT] = ttft_s, tpot_s
    demands[:, PACE], demands[:, GAIN] = tpot_s, 1.0
    return demands


def twice(demands: Demands) -> Demands:
    """Each request comes twice, at the same time."""
    return np.repeat(demands, 2, axis=0)


def question(demands: Demands, size: FleetSize, **numbers: float) -> Question:
    return Question(
        demands=demands,
        site=site(),
        size=size,
        numbers=ScalingNumbers(window_s=WINDOW_S, **numbers),  # type: ignore[arg-type] # all floats
        window_s=WINDOW_S,
    )
