"""Forms steps of chunked prefill with a budget computed for each, as the authors of SLOs-Serve ran
Sarathi-Serve: the most tokens that keep the tightest pace of the decodes. Compiled.
"""

import numpy as np

from services.evaluation.baselines.chunked import form as form_chunks
from services.evaluation.baselines.room import can_run, decodes
from shared.batch_time.table import (
    CHUNKS,
    COUNTS,
    DECODES,
    LONGEST_PROMPT,
    PAIRS,
    PREFILL,
    SPECULATED,
    FloatArray,
    sure_s,
)
from shared.compiled import compiled
from shared.scheduling.rows import RESIDENT, TPOT, Rows
from shared.scheduling.shares import MAX_TOKENS, Tokens, add_decode

GRAIN_TOKENS = 32.0


@compiled
def form(
    rows: Rows,
    tokens: Tokens,
    counts: FloatArray,
    table: FloatArray,
    limits: FloatArray,
    now: float,
    pace_share: float,
) -> float:
    """As `shared.scheduling.kernel.form`; steps take `pace_share` of the tightest pace at most."""
    until_s = np.inf
    counts[:] = 0.0
    for i in range(len(rows)):
        if rows[i, RESIDENT] > 0 and decodes(rows, i) and can_run(rows, i, now):
            add_decode(counts, rows, i)
            until_s = min(until_s, pace_share * rows[i, TPOT])
    narrowed = limits.copy()
    narrowed[MAX_TOKENS] = budget_tokens(counts, table, limits[MAX_TOKENS], until_s)
    return float(form_chunks(rows, tokens, counts, table, narrowed, now, False, 0.0))


@compiled
def budget_tokens(decoding: FloatArray, table: FloatArray, most: float, until_s: float) -> float:
    """The most tokens, in grains, of a step of these decodes and one chunk of a new prompt that
    surely ends in time, at most `most`; where none does, a grain more than the decodes.
    """
    own = decoding[DECODES] + decoding[SPECULATED]
    low, high = np.ceil(own / GRAIN_TOKENS) + 1.0, np.floor(most / GRAIN_TOKENS)
    more = np.zeros(COUNTS)
    while low < high:
        middle = np.ceil((low + high) / 2)
        more[:] = decoding
        size = middle * GRAIN_TOKENS - own
        more[CHUNKS], more[PREFILL], more[LONGEST_PROMPT] = 1.0, size, size
        more[PAIRS] = size * size / 2
        if sure_s(table, more) <= until_s:
            low = middle
        else:
            high = middle - 1.0
    return float(min(most, low * GRAIN_TOKENS)) if until_s < np.inf else float(most)
