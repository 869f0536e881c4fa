"""Who gets how many tokens in one engine step: compiled code over rows, used by the engine, by the
planner's simulation and by anybody who wants to know what an engine would do. Keeps nothing.

The order of service follows the cumulative deadlines of the paper's demand lines (arXiv 2504.08784,
Algorithm 2), with steps as long as the next deadline allows rather than as the tightest pace.
"""

import numpy as np
import numpy.typing as npt

from shared.batch_time.table import (
    CHUNKS,
    DECODES,
    EARLIER,
    LONGEST_PROMPT,
    PAIRS,
    PREFILL,
    Numbers,
    sure_s,
)
from shared.compiled import compiled
from shared.scheduling.decodes import CATCH_UP, decodes_before, unhurried_s
from shared.scheduling.pressure import (
    BEFORE_DUE,
    pressure,
    prompt_s,
    saving_s,
    surely_adds_s,
)
from shared.scheduling.recovery import at_least_one, give_in_turn, make_room
from shared.scheduling.rows import (
    AVAILABLE,
    BEST_EFFORT,
    COMPUTED,
    DRAFT,
    DUE,
    KIND,
    LEFT,
    LOST,
    PROMISED,
    RESIDENT,
    TOTAL,
    Rows,
)
from shared.scheduling.shares import (
    FREE_BLOCKS,
    KEPT,
    LONGEST_S,
    MAX_RESIDENT,
    MAX_TOKENS,
    ONE,
    PROMISED_DECODE,
    PROMISED_PROMPT,
    SET_ASIDE,
    Sorts,
    Tokens,
    add_decode,
    decode_fits,
    evict_one,
    give_chunk,
    give_decode,
    held_blocks,
    step_pace_s,
)
from shared.scheduling.tried import SORTS, TRIED_DECODE, TRIED_PROMPT, may_be_in_time, tried

_KINDS = 4
_AT_EASE = 0.25  # prompts that need less of the time left to them than this can do with less
_IN_HURRY = 0.5  # below it every decode shares the step, where it costs least
_COMPANY = 4.0  # a prompt that ends in a step waits for others up to so many steps without prompts
_SECOND_STEP = 2.0  # steps: a prompt with less time than that should end in this one if it can
# Best effort may make a step so many times as long: whoever decodes slower holds KV for longer,
# which is what the next promise may be short of where less is free than the promised hold.
_BESIDE, _BESIDE_IN_ROOM, _ROOM = 1.02, 1.15, 1.0
_BEST_EFFORT_DECODE = int(2 * BEST_EFFORT)  # its sort


@compiled
def form(
    rows: Rows, tokens: Tokens, counts: Numbers, table: Numbers, limits: Numbers, now: float
) -> float:
    """Fills `tokens` (one for each row; EVICT drops its KV) and `counts` (those of the step).

    Returns the seconds within which the step surely ends, 0 when there is nothing to do.
    """
    tokens[:] = 0
    counts[:] = 0.0
    left = limits.copy()
    work = np.empty(len(rows), dtype=np.int8)
    of_sort = _sort_all(rows, work, left, table, now)
    _set_aside(rows, work, tokens, left, of_sort)
    until_s = np.inf
    if of_sort[PROMISED_DECODE] > 0:
        prompts_wait = of_sort[PROMISED_PROMPT] > 0
        until_s = _urgent_decodes(rows, work, tokens, counts, table, left, now, prompts_wait)
    until_s = _bounded(until_s, left)
    if of_sort[PROMISED_DECODE] + of_sort[PROMISED_PROMPT] > 0:
        until_s = _promised_prompts(rows, work, tokens, counts, table, left, now, until_s)
    if of_sort[TRIED_DECODE] + of_sort[TRIED_PROMPT] > 0:
        until_s = tried(rows, work, tokens, counts, table, left, now, until_s)
    for sort in range(2, 2 * _KINDS, 2):
        if of_sort[sort] + of_sort[sort + 1] > 0:
            until_s = _beside(rows, until_s, counts, table, left, sort)
            _rest_of_sort(rows, work, tokens, counts, table, left, until_s, sort)
    if counts[DECODES] + counts[PREFILL] == 0:
        at_least_one(rows, work, tokens, counts, left)
    if counts[DECODES] + counts[PREFILL] == 0:
        make_room(rows, work, tokens, counts, left)
    if counts[DECODES] + counts[PREFILL] == 0:
        return 0.0
    return sure_s(table, counts)


@compiled
def _sort_all(
    rows: Rows, work: Sorts, left: Numbers, table: Numbers, now: float
) -> npt.NDArray[np.int64]:
    """Fills `work`; how many there are of each sort. Places that are taken are taken off `left`."""
    of_sort = np.zeros(SORTS, dtype=np.int64)
    for i in range(len(rows)):
        left[MAX_RESIDENT] -= rows[i, RESIDENT]
        work[i] = _sort_of(rows, i, table, now)
        if work[i] >= 0:
            of_sort[work[i]] += 1
    return of_sort


@compiled
def _set_aside(
    rows: Rows, work: Sorts, tokens: Tokens, left: Numbers, of_sort: npt.NDArray[np.int64]
) -> None:
    """Best effort makes room for what is set aside, and for what is kept beside promises."""
    if of_sort[PROMISED_DECODE] + of_sort[PROMISED_PROMPT] > 0:
        left[SET_ASIDE] += left[KEPT]
    while left[FREE_BLOCKS] < left[SET_ASIDE]:
        if not evict_one(rows, work, tokens, left):
            return


@compiled
def _sort_of(rows: Rows, i: int, table: Numbers, now: float) -> int:
    """Twice its kind, or that of what is tried in time, and one more for a prompt; -1 for what
    cannot run.
    """
    if rows[i, LEFT] <= 0 or rows[i, AVAILABLE] > now:
        return -1
    prompt = rows[i, TOTAL] - rows[i, COMPUTED] > ONE
    if rows[i, KIND] == BEST_EFFORT and may_be_in_time(rows, i, table, now):
        return TRIED_DECODE + int(prompt)
    return int(2 * rows[i, KIND]) + int(prompt)


@compiled
def _urgent_decodes(
    rows: Rows,
    work: Sorts,
    tokens: Tokens,
    counts: Numbers,
    table: Numbers,
    left: Numbers,
    now: float,
    prompts_wait: bool,
) -> float:
    """Gives a token to each that could not be on time any more if it waited for the next step.

    Returns the seconds that this step may last. A request that is late whatever is done is brought
    back bit by bit, not at the cost of all others; so is one whose drafts had poor luck, for luck
    evens out, and of several that draft somebody always had poor luck.
    """
    everyone = np.zeros(len(counts))
    everyone[DECODES] = 1.0
    least_s = sure_s(table, everyone)
    everyone[DECODES] = 0.0
    until_s = np.inf
    for i in range(len(rows)):
        if work[i] == PROMISED_DECODE:
            add_decode(everyone, rows, i)
            wait_s = rows[i, DUE] - now
            if wait_s < least_s or rows[i, DRAFT] > 0:
                wait_s = max(wait_s, CATCH_UP * step_pace_s(rows, i))
            until_s = min(until_s, wait_s)
    all_s = sure_s(table, everyone)
    may_wait_s = np.inf
    if prompts_wait or all_s > until_s:
        may_wait_s = max(_bounded(until_s, left), 0.0) + all_s
    for i in range(len(rows)):
        hurries = may_wait_s == np.inf or rows[i, DUE] - now < may_wait_s
        if work[i] == PROMISED_DECODE and hurries:
            give_decode(rows, work, tokens, counts, left, i)
    return until_s


@compiled
def _beside(
    rows: Rows, until_s: float, counts: Numbers, table: Numbers, left: Numbers, sort: int
) -> float:
    """How long the step may last for requests of this sort, with those that are in it already.

    Where nothing has a promise, best effort shares steps with what asked for nothing.
    """
    if sort < _BEST_EFFORT_DECODE or counts[DECODES] + counts[PREFILL] == 0:
        return until_s
    held, was_asked = 0.0, False
    for i in range(len(rows)):
        was_asked |= rows[i, KIND] == PROMISED or rows[i, KIND] == LOST
        if rows[i, KIND] == PROMISED:
            held += held_blocks(rows, i, left)
    if not was_asked:
        return until_s
    longer = _BESIDE_IN_ROOM if left[FREE_BLOCKS] > _ROOM * held else _BESIDE
    return float(min(until_s, longer * sure_s(table, counts)))


@compiled
def _bounded(until_s: float, left: Numbers) -> float:
    if left[LONGEST_S] > 0:
        return float(min(until_s, left[LONGEST_S]))
    return until_s


@compiled
def _promised_prompts(
    rows: Rows,
    work: Sorts,
    tokens: Tokens,
    counts: Numbers,
    table: Numbers,
    left: Numbers,
    now: float,
    until_s: float,
) -> float:
    """Prompts by deadline; a decode that can wait comes before those that are due after it. Without
    hurry every decode shares the step as far as prompts then still end in time.

    A prompt that would be lost after this step ends in it, if decodes are then a little late.

    Returns how long the step may last now that some of the prompts end in it.
    """
    hurry, beside_s = pressure(rows, work, table, now)
    share = 1.0 if hurry > 1 else 0.0
    first = _first_prompt(rows, work, tokens, table, share)
    if hurry < _AT_EASE:
        until_s = min(until_s, max(sure_s(table, counts), unhurried_s(rows, work, now)))
    if hurry < _IN_HURRY:
        shared_s = min(until_s, beside_s)
        if first >= 0 and rows[first, DUE] - now < _SECOND_STEP * until_s:
            takes_s = surely_adds_s(rows, first, table)
            if takes_s < until_s:
                shared_s = min(shared_s, until_s - takes_s)
        decodes_before(rows, work, tokens, counts, table, left, shared_s, np.inf)
    if first >= 0:
        until_s = max(until_s, saving_s(rows, work, first, counts, table, now, until_s))
    while True:
        due_s = rows[first, DUE] if first >= 0 else np.inf
        decodes_before(rows, work, tokens, counts, table, left, until_s, due_s)
        if first < 0 or not give_chunk(rows, work, tokens, counts, table, left, first, until_s):
            return until_s
        ready_s = sure_s(table, counts)
        company_s = max(ready_s, _COMPANY * _alone_s(counts, table))
        until_s = min(until_s, max(ready_s, min(BEFORE_DUE * (due_s - now), company_s)))
        first = _first_prompt(rows, work, tokens, table, share)


@compiled
def _first_prompt(rows: Rows, work: Sorts, tokens: Tokens, table: Numbers, share: float) -> int:
    """The one that is due first; `share` of 1 adds the work that is left to what is compared, so
    that under overload short prompts are not lost behind long ones (QoServe, arXiv 2503.22562).
    """
    first, least_s = -1, np.inf
    for i in range(len(rows)):
        if work[i] == PROMISED_PROMPT and tokens[i] == 0:
            rank_s = rows[i, DUE] + (share * prompt_s(rows, i, table) if share > 0 else 0.0)
            if first < 0 or rank_s < least_s:
                first, least_s = i, rank_s
    return first


@compiled
def _alone_s(counts: Numbers, table: Numbers) -> float:
    """The step without its prompts."""
    decodes = counts.copy()
    decodes[CHUNKS] = decodes[PREFILL] = decodes[EARLIER] = 0.0
    decodes[PAIRS] = decodes[LONGEST_PROMPT] = 0.0
    return sure_s(table, decodes)


@compiled
def _rest_of_sort(
    rows: Rows,
    work: Sorts,
    tokens: Tokens,
    counts: Numbers,
    table: Numbers,
    left: Numbers,
    until_s: float,
    sort: int,
) -> None:
    """From what time is left: decodes, then prompts in the order in which they came. No prompt
    begins in a step in which one of its sort gave up its KV: it would take that again.
    """
    gave_up, by_arrival = False, np.argsort(rows[:, AVAILABLE], kind="mergesort")
    for i in by_arrival:
        if work[i] == sort and tokens[i] == 0:
            if until_s < np.inf and not decode_fits(rows, i, counts, table, until_s):
                break
            gave_up |= give_in_turn(rows, work, tokens, counts, left, i)
    if not np.any(work == sort + 1):
        return
    for i in by_arrival:
        if left[MAX_TOKENS] < 1:
            return
        if work[i] == sort + 1 and tokens[i] == 0 and (rows[i, RESIDENT] > 0 or not gave_up):
            give_chunk(rows, work, tokens, counts, table, left, i, until_s)
            if tokens[i] <= 0 and until_s < np.inf and left[FREE_BLOCKS] > 0:
                return
