"""The least engines that can compute all work of a window, however late: a lower bound that also
counts requests without targets. Sums, without a simulation.
"""

import math

import numpy as np

from services.planner.scaling.demanded import ARRIVES, OUTPUT, PROMPT, Asks
from services.planner.scaling.fleet_size import FleetSize
from services.planner.scaling.replay import Site
from services.planner.scaling.routes import own_s
from services.planner.tuning import MOST_BUSY
from shared.batch_time import StepTable
from shared.batch_time.table import FloatArray
from shared.compiled import compiled
from shared.scheduling.shares import BLOCK_TOKENS, FREE_BLOCKS, MAX_RESIDENT


def least_for_work(asks: Asks, site: Site, size: FleetSize, window_s: float) -> FleetSize:
    """The least size for the work. At least one decode engine; prefill engines only where `size`
    has some.
    """
    first = int(np.searchsorted(asks[:, ARRIVES], -window_s))
    window = asks[first:]
    prompts_s = float(prompts_work_s(window, site.prefill_table))
    decodes_s = _decodes_work_s(window, site)
    able_s = MOST_BUSY * max(window_s, 1e-9)
    engines = max(1, math.ceil((prompts_s + decodes_s) / able_s))
    if not size.prefill:
        return FleetSize(prefill=0, decode=engines)
    decode = max(1, math.ceil(decodes_s / able_s))
    return FleetSize(prefill=max(1, engines - decode), decode=decode)


@compiled
def prompts_work_s(asks: Asks, table: FloatArray) -> float:
    """Seconds that all prompts add to steps."""
    total_s = 0.0
    for i in range(len(asks)):
        total_s += own_s(table, asks, i)
    return total_s


def _decodes_work_s(asks: Asks, site: Site) -> float:
    """Seconds that all tokens of answers take in steps as full as the KV cache allows."""
    if not len(asks):
        return 0.0
    context = float((asks[:, PROMPT] + asks[:, OUTPUT] / 2).mean())
    limits = site.limits[1]
    blocks = math.ceil(context / limits[BLOCK_TOKENS])
    together = max(1.0, min(limits[MAX_RESIDENT], limits[FREE_BLOCKS] // blocks))
    step_s = StepTable(site.decode_table).decodes_s(together, together * context)
    return float(asks[:, OUTPUT].sum() * step_s / together)
