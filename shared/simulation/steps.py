"""What a step of a simulated engine does to rows and lives, as compiled code. Chooses nothing."""

import numpy as np
import numpy.typing as npt

from shared.batch_time.table import Numbers
from shared.compiled import compiled
from shared.scheduling.rows import (
    AVAILABLE,
    COMPUTED,
    DRAFT,
    GAIN,
    RESIDENT,
    TPOT,
    Rows,
)
from shared.scheduling.shares import EVICT, Tokens
from shared.scheduling.simulate import Times, apply
from shared.simulation.lives import (
    ACCEPTANCE,
    CHANGES_AT,
    EVICTED,
    LATER_PACE,
    OUTPUT,
    STARTED,
    TOKENS,
    Lives,
    give,
)

Who = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Fates = npt.NDArray[np.int8]
STAYS, ENDED, PREFILLED = 0, 1, 2
# What a step came to, in one array.
GIVEN, DROPPED, RESIDENTS, DRAFTING, USED_BLOCKS = range(5)
SUMS = 5


@compiled
def used_blocks(rows: Rows, tokens: Tokens, block_tokens: float) -> float:
    """Blocks that these rows hold, with those that the running step fills."""
    used = 0.0
    for i in range(len(rows)):
        if tokens[i] != EVICT:
            used += np.ceil((rows[i, COMPUTED] + tokens[i]) / block_tokens)
    return used


@compiled
def let_go(rows: Rows, now: float) -> float:
    """Those that wait give up what they found or were sent; how many tokens these were."""
    dropped = 0.0
    for i in range(len(rows)):
        if rows[i, RESIDENT] == 0 and rows[i, AVAILABLE] <= now:
            dropped += rows[i, COMPUTED]
            rows[i, COMPUTED] = 0.0
    return dropped


@compiled
def start(
    rows: Rows,
    after: Rows,
    seen: Times,
    tokens: Tokens,
    who: Who,
    lives: Lives,
    uniforms: Numbers,
    sums: Numbers,
    block_tokens: float,
    now: float,
    ends_s: float,
) -> None:
    """Fills `after` with what the step will have done, `seen` with the tokens that it gives, `sums`
    with what it comes to. How many drafts are accepted is settled here, by a uniform number each.
    """
    sums[:] = 0.0
    seen[:, 2] = 0.0
    after[:] = rows
    for i in range(len(rows)):
        life = lives[who[i]]
        if tokens[i] == EVICT:
            life[EVICTED] += 1
            sums[DROPPED] += rows[i, COMPUTED]
        elif tokens[i] > 0:
            sums[GIVEN] += tokens[i]
            if np.isnan(life[STARTED]):
                life[STARTED] = now
            if tokens[i] > 1 and rows[i, DRAFT] > 0 and len(uniforms):
                after[i, GAIN] = _gain(rows[i, DRAFT], life, uniforms[i])
                sums[DRAFTING] += 1
    apply(after, seen, tokens, ends_s, 0.0)
    for i in range(len(rows)):
        after[i, GAIN] = rows[i, GAIN]
        if tokens[i] > 0 or (rows[i, RESIDENT] > 0 and tokens[i] != EVICT):
            sums[RESIDENTS] += 1
    sums[USED_BLOCKS] = used_blocks(rows, tokens, block_tokens)


@compiled
def _gain(drafts: float, life: Numbers, chance: float) -> float:
    """One token and the drafts accepted before the first that is not: one uniform number says how
    many. Nobody gives more than it has to give.
    """
    most = min(drafts, life[OUTPUT] - life[TOKENS] - 1)
    reached, gain = life[ACCEPTANCE], 1.0
    while gain <= most and chance < reached:
        gain += 1
        reached *= life[ACCEPTANCE]
    return gain


@compiled
def finish(
    rows: Rows,
    who: Who,
    lives: Lives,
    seen: Times,
    tokens: Tokens,
    prefill_only: Flags,
    fates: Fates,
    now: float,
) -> int:
    """Gives the tokens of the step that ended to their lives; says who leaves, and how many do."""
    leave = 0
    for i in range(len(rows)):
        fates[i] = STAYS
        tokens[i] = 0
        if seen[i, 2] == 0:
            continue
        life = lives[who[i]]
        before = life[TOKENS]
        give(life, seen[i, 2], now)
        if before < life[CHANGES_AT] <= life[TOKENS]:
            rows[i, TPOT] = life[LATER_PACE]
        if life[TOKENS] >= life[OUTPUT]:
            fates[i] = ENDED
        elif prefill_only[i]:
            fates[i] = PREFILLED
        leave += fates[i] != STAYS
    return leave


@compiled
def close_up(rows: Rows, who: Who, prefill_only: Flags, fates: Fates) -> int:
    """Those that stay move up, in order; how many they are."""
    stay = 0
    for i in range(len(rows)):
        if fates[i] == STAYS:
            rows[stay] = rows[i]
            who[stay], prefill_only[stay] = who[i], prefill_only[i]
            stay += 1
    return stay
