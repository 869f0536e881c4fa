"""Fluid model of an engine: the prompt tokens per second that it can compute beside decodes with a
promised TPOT.
"""

import numpy as np

from shared.batch_time.table import (
    CHUNKS,
    COUNTS,
    DECODE_CONTEXT,
    DECODES,
    EARLIER,
    LONGEST_CONTEXT,
    LONGEST_PROMPT,
    PAIRS,
    PREFILL,
    FloatArray,
    sure_s,
)
from shared.compiled import compiled

# Columns of the engine array.
BUSY_S, MAX_TOKENS, LONGEST_S = range(3)


@compiled
def prefill_throughput(
    decodes: FloatArray,
    paces_s: FloatArray,
    contexts: FloatArray,
    engine: FloatArray,
    table: FloatArray,
) -> float:
    """Prompt tokens per second beside so many decodes of each tier (PB* of arXiv 2504.08784);
    negative when the decodes alone miss their TPOT.

    A step lasts as long as the tightest TPOT allows; decodes with a looser one skip steps.
    """
    period_s = np.inf
    for tier in range(len(paces_s)):
        if decodes[tier] > 0:
            period_s = min(period_s, paces_s[tier])
    if engine[LONGEST_S] > 0:
        period_s = min(period_s, engine[LONGEST_S])
    counts = np.zeros(COUNTS)
    _take_part(counts, decodes, paces_s, contexts, period_s)
    if sure_s(table, counts) > period_s:
        return -1.0
    for _ in range(3):  # a step that the token limit ends early needs fewer decodes
        most = engine[MAX_TOKENS] - np.ceil(counts[DECODES])
        chunk = _longest_chunk(counts, table, period_s, most)
        lasts_s = _with_chunk_s(counts, table, chunk)
        if chunk < most or lasts_s >= period_s or chunk < 1:
            break
        period_s = lasts_s
        _take_part(counts, decodes, paces_s, contexts, period_s)
    return float(chunk / period_s) if chunk >= 1 else 0.0


@compiled
def _take_part(
    counts: FloatArray,
    decodes: FloatArray,
    paces_s: FloatArray,
    contexts: FloatArray,
    period_s: float,
) -> None:
    counts[:] = 0.0
    for tier in range(len(paces_s)):
        if decodes[tier] > 0:
            share = decodes[tier] * min(1.0, period_s / paces_s[tier])
            counts[DECODES] += share
            counts[DECODE_CONTEXT] += share * contexts[tier]
            counts[LONGEST_CONTEXT] = max(counts[LONGEST_CONTEXT], contexts[tier])


@compiled
def _with_chunk_s(counts: FloatArray, table: FloatArray, chunk: float) -> float:
    step = counts.copy()
    if chunk > 0:
        step[CHUNKS], step[PREFILL], step[EARLIER] = 1.0, chunk, 0.0
        step[PAIRS], step[LONGEST_PROMPT] = chunk * chunk / 2, chunk
    return sure_s(table, step)


@compiled
def _longest_chunk(counts: FloatArray, table: FloatArray, period_s: float, most: float) -> float:
    if most < 1:
        return 0.0
    if _with_chunk_s(counts, table, most) <= period_s:
        return float(most)
    low, high = 0.0, most
    while high - low > 1:
        middle = np.floor((low + high) / 2)
        if _with_chunk_s(counts, table, middle) <= period_s:
            low = middle
        else:
            high = middle
    return float(low)
