"""The greedy algorithm that forms a step: which requests of one rank get tokens, given how long the
step may last. Compiled.

It combines three rules. The envelope: a step ends before the earliest next token is due
(FairBatching, arXiv 2510.14392). Decodes and prompts go by deadline (EDF), and of prompts that
cannot all be on time the longest go last (`prompt_order`). Before these, while prompts have time,
decodes share the step, because their tokens cost least.
"""

import numpy as np

from shared.batch_time.table import (
    CHUNKS,
    COUNTS,
    DECODES,
    EARLIER,
    LONGEST_PROMPT,
    PAIRS,
    PREFILL,
    FloatArray,
    sure_s,
)
from shared.compiled import compiled, inlined
from shared.scheduling.prompt_order import due_order, lost_after, order_prompts
from shared.scheduling.prompt_times import prompt_s, saving_s
from shared.scheduling.recovery import give_in_turn
from shared.scheduling.rows import DEADLINE, DRAFT, GRACE, TPOT, Rows
from shared.scheduling.shares import (
    LONGEST_S,
    Order,
    Tokens,
    WorkClasses,
    add_chunk,
    add_decode,
    add_decodes,
    give_chunk,
    missing,
    step_pace_s,
)
from shared.scheduling.tuning import (
    AHEAD,
    BATCHING_WINDOW,
    BEFORE_DUE,
    CATCH_UP,
    LOW_LOAD,
    MODERATE_LOAD,
)

PROMISED_RANK, TRIED_RANK = range(2)  # the first of the ranks of `kernel`


@compiled
def serve(
    rows: Rows,
    work: WorkClasses,
    tokens: Tokens,
    counts: FloatArray,
    table: FloatArray,
    left: FloatArray,
    now: float,
    rank: int,
    bound_s: float,
) -> float:
    """Fills `tokens` and `counts` for the requests of a rank that have deadlines.

    The step lasts for `bound_s` seconds at most, longer only for promised decodes that cannot wait
    and to save a promised prompt. Some prompts without a promise may be in time now, but
    not after a step of the promised decodes. Where no promised prompt waits, they are served
    together with these decodes, as far as these stay ahead of their paces. Returns how many seconds
    the step may last for the ranks below.
    """
    decodes = waiting(work, tokens, 2 * rank)
    prompts = waiting(work, tokens, 2 * rank + 1)
    least_s, free_s, lead = _least_s(table), bound_s, 0.0
    ahead_s = _getting_ahead_s(rows, decodes, least_s, now)
    promised = rank == PROMISED_RANK and len(prompts) > 0
    if rank == PROMISED_RANK and not promised:
        beside_s = _with_decodes_s(rows, decodes, counts, table)
        prompts = waiting(work, tokens, 2 * TRIED_RANK + 1)
        prompts = lost_after(rows, prompts, table, now + beside_s)
        if len(prompts) > 0:
            # Its decodes count as well: its prompts must not starve them.
            decodes = np.concatenate((decodes, waiting(work, tokens, 2 * TRIED_RANK)))
            free_s = min(max(least_s, ahead_s), rows[prompts, DEADLINE].max() - now)
            lead = AHEAD  # for these prompts no promised decode gives up its lead
    free_s = min(free_s, _envelope_s(rows, decodes, table, least_s, now))
    step_s = within_longest(free_s, left)
    all_s = _with_decodes_s(rows, decodes, counts, table)
    cannot_wait = decodes
    if len(prompts) > 0 or all_s > step_s:
        wait_s = rows[decodes, DEADLINE] - now - lead * rows[decodes, TPOT]
        cannot_wait = decodes[wait_s < step_s + all_s]
    give_decodes(rows, work, tokens, counts, table, left, cannot_wait, bound_s)
    prompts, prompt_load, spare_s = order_prompts(rows, prompts, table, now)
    if prompt_load < LOW_LOAD:
        step_s = min(step_s, max(sure_s(table, counts), ahead_s))
    if prompt_load < MODERATE_LOAD:
        can_wait, share_s = decodes[tokens[decodes] == 0], min(step_s, spare_s)
        give_decodes(rows, work, tokens, counts, table, left, can_wait, share_s)
    if promised:
        step_s = max(step_s, saving_s(rows, decodes, prompts[0], counts, table, now, step_s))
    can_wait = decodes[tokens[decodes] == 0]
    step_s = _give_by_due(
        rows, work, tokens, counts, table, left, now, can_wait, prompts, step_s, free_s
    )
    # Lower ranks must not keep decodes from getting ahead.
    return float(min(step_s, max(sure_s(table, counts), ahead_s)))


@compiled
def _give_by_due(
    rows: Rows,
    work: WorkClasses,
    tokens: Tokens,
    counts: FloatArray,
    table: FloatArray,
    left: FloatArray,
    now: float,
    decodes: Order,
    prompts: Order,
    step_s: float,
    free_s: float,
) -> float:
    """Serves prompts in their order, before each the decodes that are due no later, then the other
    decodes. Stops at the first prompt that is cut short, so that no other overtakes it.

    Returns how many seconds the step may last then: no longer than until the first token of any
    prompt that ends in it is due.
    """
    for j in prompts:
        if tokens[j] != 0:  # evicted
            continue
        due_before = decodes[
            (rows[decodes, DEADLINE] <= rows[j, DEADLINE]) & (tokens[decodes] == 0)
        ]
        give_decodes(rows, work, tokens, counts, table, left, due_before, step_s)
        left_s, limit_s = rows[j, DEADLINE] - now, step_s
        if step_s + prompt_s(rows, j, table) > left_s:  # it has no time for a second step
            whole_s = _with_prompt_s(rows, j, counts, table)
            if whole_s <= min(left_s, free_s):
                limit_s = max(limit_s, whole_s)
        if not give_chunk(rows, work, tokens, counts, table, left, j, limit_s):
            break
        ready_s = sure_s(table, counts)
        window_s = min(BEFORE_DUE * left_s, BATCHING_WINDOW * _without_prompts_s(counts, table))
        step_s = min(max(step_s, ready_s), max(ready_s, window_s))
    rest = decodes[tokens[decodes] == 0]
    give_decodes(rows, work, tokens, counts, table, left, rest, step_s)
    return step_s


@compiled
def waiting(work: WorkClasses, tokens: Tokens, work_class: int) -> Order:
    """Rows of this class of work without tokens or eviction in this step."""
    found = np.empty(len(work), dtype=np.intp)
    count = 0
    for i in range(len(work)):
        if work[i] == work_class and tokens[i] == 0:
            found[count] = i
            count += 1
    return found[:count]


@inlined
def within_longest(until_s: float, left: FloatArray) -> float:
    """`until_s`, or the longest step that the engine's policy allows if that is shorter."""
    return float(min(until_s, left[LONGEST_S])) if left[LONGEST_S] > 0 else until_s


@compiled
def give_decodes(
    rows: Rows,
    work: WorkClasses,
    tokens: Tokens,
    counts: FloatArray,
    table: FloatArray,
    left: FloatArray,
    decodes: Order,
    until_s: float,
) -> None:
    """Gives each decode a token and its drafts. Where the step would then take more than `until_s`
    seconds, only those that are due first get them.
    """
    if len(decodes) == 0:
        return
    if until_s < np.inf and _with_decodes_s(rows, decodes, counts, table) > until_s:
        decodes = due_order(rows, decodes)
        decodes = decodes[: fitting(rows, decodes, counts, table, until_s)]
    for i in decodes:
        if tokens[i] == 0:  # one before it may have evicted it
            give_in_turn(rows, work, tokens, counts, left, i)


@compiled
def fitting(
    rows: Rows, decodes: Order, counts: FloatArray, table: FloatArray, until_s: float
) -> int:
    """How many decodes from the front fit, by bisection: each makes the step longer."""
    fit, too_many = 0, len(decodes)
    kept, more = counts.copy(), counts.copy()
    while fit < too_many:
        middle = (fit + too_many + 1) // 2
        more[:] = kept
        add_decodes(more, rows, decodes[fit:middle])
        if sure_s(table, more) <= until_s:
            kept[:] = more
            fit = middle
        else:
            too_many = middle - 1
    return fit


@compiled
def _envelope_s(rows: Rows, decodes: Order, table: FloatArray, least_s: float, now: float) -> float:
    """Seconds until the earliest next token of these decodes is due.

    A decode that is late in any case catches up over several steps. So does a decode with drafts
    that had poor luck: of several that draft one always had. Luck evens out only in answers that go
    on, so it counts as far as the slack goes that a likely answer makes up for.
    """
    until_s = np.inf
    for i in decodes:
        slack_s, back_s = rows[i, DEADLINE] - now, _back_s(rows, i, least_s)
        if slack_s < least_s:
            slack_s = max(slack_s, back_s)
        elif rows[i, DRAFT] > 0:
            slack_s = max(slack_s, _unlucky_s(rows, i, back_s, table))
        until_s = min(until_s, slack_s)
    return until_s


@compiled
def _unlucky_s(rows: Rows, i: int, back_s: float, table: FloatArray) -> float:
    """The longest step that a decode with drafts allows. Where even a step of this decode alone is
    longer than its pace and slack, all answers depend on luck that evens out.
    """
    until_s = rows[i, TPOT] + rows[i, GRACE]
    if until_s >= back_s:
        return back_s
    alone = np.zeros(COUNTS)
    add_decode(alone, rows, i)
    return float(back_s if sure_s(table, alone) > until_s else until_s)


@compiled
def _getting_ahead_s(rows: Rows, decodes: Order, least_s: float, now: float) -> float:
    """The longest step with which decodes still get ahead of their paces."""
    until_s = np.inf
    for i in decodes:
        lead_s = rows[i, DEADLINE] - now - rows[i, TPOT]
        spare_s = max(0.0, lead_s - AHEAD * rows[i, TPOT])
        until_s = min(until_s, _back_s(rows, i, least_s) + spare_s)
    return until_s


@inlined
def _back_s(rows: Rows, i: int, least_s: float) -> float:
    """The shortest step that a late decode may force to return to its pace: CATCH_UP of the way
    from a step of one decode (`least_s`) to the pace. Where one decode takes nearly all of the
    pace, a step as short as that would leave nothing to other requests.
    """
    pace_s = step_pace_s(rows, i)
    return float(pace_s - (1 - CATCH_UP) * max(0.0, pace_s - least_s))


@inlined
def _least_s(table: FloatArray) -> float:
    """Seconds of a step of one decode."""
    alone = np.zeros(COUNTS)
    alone[DECODES] = 1.0
    return float(sure_s(table, alone))


@inlined
def _without_prompts_s(counts: FloatArray, table: FloatArray) -> float:
    """Seconds within which the step would surely end without its prompts."""
    decodes = counts.copy()
    decodes[CHUNKS] = decodes[PREFILL] = decodes[EARLIER] = 0.0
    decodes[PAIRS] = decodes[LONGEST_PROMPT] = 0.0
    return float(sure_s(table, decodes))


@compiled
def _with_decodes_s(rows: Rows, decodes: Order, counts: FloatArray, table: FloatArray) -> float:
    more = counts.copy()
    add_decodes(more, rows, decodes)
    return sure_s(table, more)


@inlined
def _with_prompt_s(rows: Rows, j: int, counts: FloatArray, table: FloatArray) -> float:
    more = counts.copy()
    add_chunk(more, rows, j, missing(rows, j))
    return sure_s(table, more)
