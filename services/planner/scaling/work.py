"""The least engines that can compute all work of a window, however late: a lower bound that also
counts requests without targets. Sums, without a simulation.
"""

import math

import numpy as np

from services.planner.scaling.fleet_size import FleetSize
from services.planner.scaling.recent_demand import ARRIVES, OUTPUT, PROMPT, Demands
from services.planner.scaling.routes import own_s
from services.planner.scaling.site import Site
from services.planner.tuning import MOST_BUSY
from shared.batch_time import StepTable
from shared.batch_time.table import FloatArray
from shared.compiled import compiled
from shared.scheduling.shares import BLOCK_TOKENS, FREE_BLOCKS, MAX_RESIDENT


def least_for_work(demands: Demands, site: Site, size: FleetSize, window_s: float) -> FleetSize:
    """The least size for the work. At least one decode engine; prefill engines only where `size`
    has some.
    """
    first = int(np.searchsorted(demands[:, ARRIVES], -window_s))
    window = demands[first:]
    prompts_s = float(prompts_work_s(window, site.prefill_table))
    decodes_s = _decodes_work_s(window, site)
    able_s = MOST_BUSY * max(window_s, 1e-9)
    engines = max(1, math.ceil((prompts_s + decodes_s) / able_s))
    if not size.prefill:
        return FleetSize(prefill=0, decode=engines)
    decode = max(1, math.ceil(decodes_s / able_s))
    return FleetSize(prefill=max(1, engines - decode), decode=decode)


@compiled
def prompts_work_s(demands: Demands, table: FloatArray) -> float:
    """Seconds that all prompts add to steps."""
    total_s = 0.0
    for i in range(len(demands)):
        total_s += own_s(table, demands, i)
    return total_s


def _decodes_work_s(demands: Demands, site: Site) -> float:
    """Seconds that all tokens of answers take in steps as full as the KV cache allows."""
    if not len(demands):
        return 0.0
    context = float((demands[:, PROMPT] + demands[:, OUTPUT] / 2).mean())
    limits = site.limits[1]
    blocks = math.ceil(context / limits[BLOCK_TOKENS])
    together = max(1.0, min(limits[MAX_RESIDENT], limits[FREE_BLOCKS] // blocks))
    step_s = StepTable(site.decode_table).decodes_s(together, together * context)
    return float(demands[:, OUTPUT].sum() * step_s / together)
