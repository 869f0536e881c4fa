"""One request as a row of numbers, for the step former, the simulation and the wire.

A set of requests is a float64 array of shape (requests, COLUMNS). Times are seconds on the clock of
the process that holds the rows.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float64]

COLUMNS: Final = 14
(
    KEY,  # the number of the decision that placed the request; 0: none
    TOTAL,  # tokens to compute before it produces its next one: prompt and all produced
    COMPUTED,  # of these, already in the KV cache or on their way into it
    GENERATED,  # tokens that it has produced
    REMAINING,  # the most tokens that it may still produce
    DEADLINE,  # when its next token is due; inf: never
    TPOT,  # seconds from one due token to the next; inf: no TPOT target
    KIND,  # one of the kinds below
    AVAILABLE,  # when it can run at the earliest; inf: unknown
    RESIDENT,  # 1 while it takes one of the engine's places, else 0
    DRAFT,  # drafted tokens that a step verifies for it
    TOKENS_PER_STEP,  # tokens that such a step yields on average, 1 without drafts
    GRACE,  # slack in seconds of each token after the first, beyond its pace from when the first
    # came; inf: due by its pace from when the first was due
    SHARED,  # of COMPUTED, tokens in whole KV blocks that other running requests hold as well
) = range(COLUMNS)

PROMISED: Final = 0.0
NO_SLO: Final = 1.0  # no SLO: comes after promises, is never evicted for them
EXPIRED: Final = 2.0  # its first token cannot be on time any more: best effort until its turn
BEST_EFFORT: Final = 3.0

_RELATIVE = (DEADLINE, AVAILABLE)
KEYS: Final = 1 << 24  # a float32 counts so far exactly; decision numbers are taken modulo this


def empty(requests: int) -> Rows:
    """Rows of requests that have nothing to do."""
    rows = np.zeros((requests, COLUMNS))
    rows[:, DEADLINE] = rows[:, TPOT] = math.inf
    rows[:, TOKENS_PER_STEP] = 1.0
    return rows


def new_row(
    *,
    key: int = 0,
    tokens: float,
    computed: float = 0,
    produced: float = 0,
    left: float,
    due_s: float = math.inf,
    tpot_s: float = math.inf,
    grace_s: float = 0.0,
    kind: float = PROMISED,
    available_s: float = 0.0,
    draft: float = 0.0,
    gain: float = 1.0,
    shared: float = 0.0,
) -> npt.NDArray[np.float64]:
    """The row of a request that needs `tokens` computed before it produces its next one."""
    row: npt.NDArray[np.float64] = empty(1)[0]
    row[KEY], row[KIND], row[AVAILABLE] = key % KEYS, kind, available_s
    row[TOTAL], row[COMPUTED], row[GENERATED], row[REMAINING] = tokens, computed, produced, left
    row[DEADLINE], row[TPOT] = due_s, tpot_s
    row[DRAFT], row[TOKENS_PER_STEP], row[GRACE] = draft, gain, grace_s
    row[SHARED] = shared
    return row


def key_of(decision_id: str) -> int:
    """The number at the end of a decision's id; 0 where there is none."""
    number = decision_id.rpartition("-")[2]
    return int(number) % KEYS if number.isdecimal() else 0


def to_wire(rows: Rows, now: float) -> bytes:
    """The columns before SHARED as float32, times relative to `now`: clocks differ between
    machines.
    """
    sent = rows[:, :SHARED].astype(np.float32)
    for column in _RELATIVE:
        sent[:, column] = rows[:, column] - now
    return sent.tobytes()


def shared_to_wire(rows: Rows) -> bytes:
    """SHARED of the rows as float32, which version 0.1 lacks; empty where it is 0 for all."""
    return rows[:, SHARED].astype(np.float32).tobytes() if rows[:, SHARED].any() else b""


def from_wire(data: bytes, now: float, shared: bytes = b"") -> Rows:
    """The inverse of `to_wire` and `shared_to_wire`, on this clock. Raises ValueError where the
    bytes are no rows.
    """
    if len(data) % (4 * SHARED):
        raise ValueError(f"{len(data)} bytes are no rows of {SHARED} numbers")
    rows = empty(len(data) // (4 * SHARED))
    rows[:, :SHARED] = np.frombuffer(data, dtype=np.float32).reshape(-1, SHARED)
    for column in _RELATIVE:
        rows[:, column] += now
    if shared:
        if len(shared) != 4 * len(rows):
            raise ValueError(f"{len(shared)} bytes are not one number for each of {len(rows)} rows")
        rows[:, SHARED] = np.frombuffer(shared, dtype=np.float32)
    return rows
