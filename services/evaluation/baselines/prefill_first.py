"""Forms steps that are either whole prompts or decodes, prompts first: vLLM before chunked prefill
(V0), as the paper ran it, and the engines of DistServe (arXiv 2401.09670). Compiled.
"""

import numpy as np

from services.evaluation.baselines.room import (
    all_blocks,
    begin,
    blocks_for,
    can_run,
    decodes,
    finish,
    give,
    make_room,
    try_decode,
)
from shared.batch_time.table import FloatArray
from shared.compiled import compiled
from shared.scheduling.rows import COMPUTED, RESIDENT, TOTAL, Rows
from shared.scheduling.shares import MAX_RESIDENT, MAX_TOKENS, Tokens

_WATERMARK = 0.01  # share of all blocks that stays free when a prompt begins


@compiled
def form(
    rows: Rows,
    tokens: Tokens,
    counts: FloatArray,
    table: FloatArray,
    limits: FloatArray,
    now: float,
    budget_tokens: float,
) -> float:
    """As `shared.scheduling.kernel.form`. `budget_tokens` bounds prompts that go together; a longer
    one goes alone, in parts where it exceeds the engine's longest step.
    """
    left = begin(rows, tokens, limits)
    if not _prompts(rows, tokens, left, now, budget_tokens):
        _decodes(rows, tokens, left, now)
    return float(finish(rows, tokens, counts, table, limits, now))


@compiled
def _prompts(
    rows: Rows, tokens: Tokens, left: FloatArray, now: float, budget_tokens: float
) -> bool:
    """Gives prompts their tokens in order of arrival, until one does not fit."""
    ranks, spare = np.zeros(len(rows)), _spare_blocks(rows, left)
    given = 0.0
    for i in range(len(rows)):
        if tokens[i] != 0 or decodes(rows, i) or not can_run(rows, i, now):
            continue
        rest = rows[i, TOTAL] - rows[i, COMPUTED]
        if given > 0 and (given + rest > budget_tokens or rest > left[MAX_TOKENS]):
            break
        place = 1.0 - rows[i, RESIDENT]
        need = blocks_for(rows, i, rest, left) + spare * place
        if left[MAX_RESIDENT] < place:
            break
        if not make_room(rows, tokens, left, i, need, ranks, False):
            break
        size = min(rest, left[MAX_TOKENS])
        give(rows, tokens, left, i, size)
        given += size
    return given > 0


@compiled
def _spare_blocks(rows: Rows, left: FloatArray) -> float:
    blocks = all_blocks(rows, left)
    return float(np.floor(_WATERMARK * blocks)) if blocks < np.inf else 0.0


@compiled
def _decodes(rows: Rows, tokens: Tokens, left: FloatArray, now: float) -> None:
    """Gives all decodes their tokens; where KV runs out, the last one is evicted."""
    ranks = np.zeros(len(rows))
    for i in range(len(rows)):
        if tokens[i] == 0 and decodes(rows, i) and can_run(rows, i, now):
            try_decode(rows, tokens, left, ranks, i)
