"""The engines of a replayed fleet as arrays, and how a step changes them. Compiled.

Steps are formed by the kernel that engines use; `routes` places requests.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.planner.scaling.recent_demand import (
    ARRIVES,
    CACHED,
    DRAFT,
    DUE,
    GAIN,
    LATER,
    OUTPUT,
    PACE,
    PROMPT,
    Demands,
)
from shared.batch_time.table import COUNTS, FloatArray
from shared.compiled import compiled
from shared.scheduling import rows as of
from shared.scheduling.expired import settle_expired
from shared.scheduling.kernel import form
from shared.scheduling.rows import COLUMNS, NO_SLO, PROMISED, Rows
from shared.scheduling.shares import BLOCK_TOKENS, FREE_BLOCKS
from shared.scheduling.simulate import apply
from shared.scheduling.steady import likely_s

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
_STUCK_S: Final = 0.05  # after which an engine that could not form a step tries again
FIRST, LAST, GIVEN, LATE = range(4)  # columns of what a request got
GOT: Final = 4


class Engines(NamedTuple):
    """Arrays by engine; the first `prefills` are prefill engines, the others decode engines.

    Attributes:
        rows: (engines, places, COLUMNS): the requests of each.
        indexes: Those of these requests in the replayed `Demands`.
        tokens: What the running step gives each of them.
        used: How many places are taken.
        next_s: When the running step ends, or when an idle engine looks again.
        stepping: Whether a step runs.
        promised: The requests that a decode engine has to serve, wherever they are now.
        promises: How many these are.
        busy_s: The sum of its step times.
        limits: By role: prefill, decode.
    """

    rows: npt.NDArray[np.float64]
    indexes: Ints
    tokens: Ints
    used: Ints
    next_s: Floats
    stepping: Flags
    promised: Ints
    promises: Ints
    busy_s: Floats
    limits: Floats
    prefill_table: FloatArray
    decode_table: FloatArray
    prefills: int


@compiled
def table_of(fleet: Engines, engine: int) -> FloatArray:
    return fleet.prefill_table if engine < fleet.prefills else fleet.decode_table


@compiled
def limits_of(fleet: Engines, engine: int) -> FloatArray:
    role = 0 if engine < fleet.prefills else 1
    limits: FloatArray = fleet.limits[role]
    return limits


@compiled
def add_prompt(fleet: Engines, engine: int, demands: Demands, i: int, now: float) -> None:
    """Adds a request with its prompt to compute; a prefill engine gives its first token only."""
    row = _new_row(fleet, engine, i)
    row[of.TOTAL], row[of.COMPUTED] = demands[i, PROMPT], demands[i, CACHED]
    row[of.REMAINING] = 1.0 if engine < fleet.prefills else demands[i, OUTPUT]
    row[of.DEADLINE], row[of.AVAILABLE] = demands[i, ARRIVES] + demands[i, DUE], now
    row[of.KIND] = kind_of(demands, i)
    if engine >= fleet.prefills:
        _set_pace(row, demands, i)


@compiled
def add_answer(
    fleet: Engines, engine: int, demands: Demands, i: int, first_s: float, arrives_s: float
) -> None:
    """Adds a request that got its first token at `first_s`; its KV arrives at `arrives_s`."""
    row = _new_row(fleet, engine, i)
    row[of.TOTAL], row[of.COMPUTED] = demands[i, PROMPT] + 1.0, demands[i, PROMPT]
    row[of.GENERATED], row[of.REMAINING] = 1.0, demands[i, OUTPUT] - 1.0
    row[of.AVAILABLE], row[of.KIND] = arrives_s, kind_of(demands, i)
    _set_pace(row, demands, i)
    counts_from_s = first_s + max(demands[i, LATER], arrives_s - first_s)
    if demands[i, LATER] == np.inf:
        counts_from_s = demands[i, ARRIVES] + demands[i, DUE]
    row[of.DEADLINE] = counts_from_s + demands[i, PACE]


@compiled
def kind_of(demands: Demands, i: int) -> float:
    has_no_slo = demands[i, DUE] == np.inf and demands[i, PACE] == np.inf
    return NO_SLO if has_no_slo else PROMISED


@compiled
def _set_pace(row: FloatArray, demands: Demands, i: int) -> None:
    row[of.TPOT], row[of.GRACE] = demands[i, PACE], demands[i, LATER]
    row[of.DRAFT], row[of.TOKENS_PER_STEP] = demands[i, DRAFT], demands[i, GAIN]


@compiled
def _new_row(fleet: Engines, engine: int, i: int) -> FloatArray:
    place = fleet.used[engine]
    fleet.used[engine] += 1
    fleet.indexes[engine, place], fleet.tokens[engine, place] = i, 0
    row: FloatArray = fleet.rows[engine, place]
    row[:] = 0.0
    row[of.TOKENS_PER_STEP], row[of.TPOT] = 1.0, np.inf
    return row


@compiled
def begin_step(fleet: Engines, engine: int, now: float) -> None:
    """Forms the next step of an engine, if it has anything to do."""
    count = fleet.used[engine]
    fleet.stepping[engine] = False
    fleet.next_s[engine] = np.inf
    if count == 0:
        return
    rows, tokens = fleet.rows[engine, :count], fleet.tokens[engine, :count]
    table, counts = table_of(fleet, engine), np.zeros(COUNTS)
    limits = limits_of(fleet, engine).copy()
    for i in range(count):
        limits[FREE_BLOCKS] -= np.ceil(rows[i, of.COMPUTED] / limits[BLOCK_TOKENS])
    settle_expired(rows, table, now)
    lasts_s = form(rows, tokens, counts, table, limits, now)
    if lasts_s == 0:
        tokens[:] = 0
        fleet.next_s[engine] = _soonest(rows, now)
        return
    taken_s = likely_s(lasts_s, table, counts)
    fleet.stepping[engine] = True
    fleet.next_s[engine] = now + taken_s
    fleet.busy_s[engine] += taken_s


@compiled
def _soonest(rows: Rows, now: float) -> float:
    soonest_s = np.inf
    for i in range(len(rows)):
        if rows[i, of.AVAILABLE] > now:
            soonest_s = min(soonest_s, rows[i, of.AVAILABLE])
        else:
            soonest_s = min(soonest_s, now + _STUCK_S)
    return float(soonest_s)


@compiled
def end_step(fleet: Engines, engine: int, got: Floats, left: Ints, now: float) -> int:
    """Gives the tokens of the step that ends. Fills `left` with the requests that leave the engine
    and returns how many these are. The others move up, in order.
    """
    count = fleet.used[engine]
    rows, tokens = fleet.rows[engine, :count], fleet.tokens[engine, :count]
    seen = np.empty((count, GOT))
    seen[:, FIRST], seen[:, LATE] = np.inf, -np.inf
    seen[:, LAST] = seen[:, GIVEN] = 0.0
    apply(rows, seen, tokens, now, 0.0)
    leaving = 0
    for i in range(count):
        tokens[i] = 0
        one = fleet.indexes[engine, i]
        if seen[i, GIVEN] > 0:
            _note(got[one], seen[i], now)
        if rows[i, of.REMAINING] <= 0:
            left[leaving] = one
            leaving += 1
        elif leaving > 0:
            fleet.indexes[engine, i - leaving] = one
            for column in range(COLUMNS):
                rows[i - leaving, column] = rows[i, column]
    fleet.used[engine] -= leaving
    return leaving


@compiled
def _note(got: FloatArray, seen: FloatArray, now: float) -> None:
    if got[GIVEN] == 0:
        got[FIRST] = now
    got[LAST] = now
    got[GIVEN] += seen[GIVEN]
    got[LATE] = max(got[LATE], seen[LATE])


def empty_fleet(
    prefills: int, decodes: int, places: int, limits: Floats, tables: tuple[FloatArray, FloatArray]
) -> Engines:
    """Idle engines with room for `places` requests each."""
    engines = prefills + decodes
    return Engines(
        rows=np.zeros((engines, places, COLUMNS)),
        indexes=np.zeros((engines, places), dtype=np.int64),
        tokens=np.zeros((engines, places), dtype=np.int64),
        used=np.zeros(engines, dtype=np.int64),
        next_s=np.full(engines, np.inf),
        stepping=np.zeros(engines, dtype=np.bool_),
        promised=np.zeros((engines, places), dtype=np.int64),
        promises=np.zeros(engines, dtype=np.int64),
        busy_s=np.zeros(engines),
        limits=limits,
        prefill_table=tables[0],
        decode_table=tables[1],
        prefills=prefills,
    )
