"""Simulates a window of requests on a number of prefill and decode engines. Compiled.

Engines form steps as real ones do, and steps take as long as the table of step times says. A
request that finds no room waits while it can still be in time, and is then missed.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from services.planner.scaling.fleet_rows import (
    GOT,
    LATE,
    Engines,
    Floats,
    Ints,
    add_answer,
    add_prompt,
    begin_step,
    empty_fleet,
    end_step,
)
from services.planner.scaling.judged import (
    KEPT,
    MISSED_DECODE,
    MISSED_PREFILL,
    NEVER,
    OPEN,
    judged_of,
    missed,
    so_far,
)
from services.planner.scaling.recent_demand import (
    ARRIVES,
    DUE,
    OUTPUT,
    PROMPT,
    Demands,
)
from services.planner.scaling.routes import (
    SHORT_OF_DECODE,
    SHORT_OF_PREFILL,
    has_no_slo,
    own_s,
    route,
    route_plain,
)
from services.planner.scaling.site import Site
from services.planner.tuning import PATIENCE_S
from shared.batch_time.table import COUNTS, expected_s
from shared.compiled import compiled
from shared.scheduling.shares import MAX_RESIDENT

_MOST_WAITING: Final = 512  # requests that wait for room; beyond that the oldest is missed
_MOST_TRIED: Final = 8  # waiting requests that are tried when something is freed
_MOST_PLACES: Final = 1024  # requests on one engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """How many requests of a time were kept, missed for want of each role, or impossible even on an
    idle engine (`never`). `lenience` is added to the share where requests are few.
    """

    kept: int
    short_of_prefill: int
    short_of_decode: int
    never: int
    lenience: float = 0.0

    @property
    def judged(self) -> int:
        return self.kept + self.short_of_prefill + self.short_of_decode

    @property
    def share(self) -> float:
        """The kept share of the possible requests; 1 without any."""
        return self.kept / self.judged if self.judged else 1.0

    @property
    def attained(self) -> float:
        return self.share + self.lenience


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdicts:
    """The verdict of each request of a replay, in order of arrival."""

    arrives_s: Floats
    verdicts: Ints

    def since(self, from_s: float) -> Replayed:
        """The counts over requests that came at `from_s` or later."""
        judged = self.verdicts[self.arrives_s >= from_s]
        return Replayed(
            kept=int((judged == KEPT).sum()),
            short_of_prefill=int((judged == MISSED_PREFILL).sum()),
            short_of_decode=int((judged == MISSED_DECODE).sum()),
            never=int((judged == NEVER).sum()),
        )


def replay(
    demands: Demands, site: Site, prefills: int, decodes: int, *, until_s: float
) -> Verdicts:
    """Replays `demands`, in order of arrival; judges open requests at `until_s` as they stand."""
    most = int(min(_MOST_PLACES, 2 * site.limits[:, MAX_RESIDENT].max(), len(demands) + 1))
    tables = site.prefill_table, site.decode_table
    fleet = empty_fleet(prefills, decodes, most, site.limits, tables)
    verdicts = np.zeros(len(demands), dtype=np.int64)
    got = np.zeros((len(demands), GOT))
    got[:, LATE] = -np.inf
    run(fleet, demands, got, verdicts, site.link_fixed_s, site.link_token_s, until_s)
    return Verdicts(arrives_s=demands[:, ARRIVES], verdicts=verdicts)


@compiled
def run(
    fleet: Engines,
    demands: Demands,
    got: Floats,
    verdicts: Ints,
    link_fixed_s: float,
    link_token_s: float,
    until_s: float,
) -> None:
    """Fills `verdicts` and `got`, by request."""
    waiting, homes = np.empty(_MOST_WAITING, dtype=np.int64), np.full(len(demands), -1)
    short_of = np.full(len(demands), SHORT_OF_DECODE)
    left = np.empty(fleet.rows.shape[1], dtype=np.int64)
    waits, coming = 0, 0
    while True:
        engine = int(np.argmin(fleet.next_s))
        arrives_s = demands[coming, ARRIVES] if coming < len(demands) else np.inf
        now = min(fleet.next_s[engine], arrives_s)
        if now > until_s or now == np.inf:
            break
        freed = True
        if arrives_s <= fleet.next_s[engine]:
            waits = _come(fleet, demands, verdicts, coming, waiting, waits, short_of)
            coming += 1
        else:
            freed = _go_on(
                fleet, engine, demands, got, verdicts, homes, left, now, link_fixed_s, link_token_s
            )
        if freed and waits > 0:
            waits = _place(fleet, demands, verdicts, homes, waiting, waits, short_of, now)
    for i in range(coming):
        if verdicts[i] == OPEN:
            verdicts[i] = so_far(demands, got, i, until_s, short_of[i])


@compiled
def _come(
    fleet: Engines,
    demands: Demands,
    verdicts: Ints,
    i: int,
    waiting: Ints,
    waits: int,
    short_of: Ints,
) -> int:
    """Adds an arriving request to those that wait; returns how many do."""
    if not has_no_slo(demands, i) and not _possible(fleet, demands, i):
        verdicts[i] = NEVER
        return waits
    if waits == len(waiting):
        verdicts[waiting[0]] = missed(demands, waiting[0], short_of[waiting[0]])
        waits = _drop(waiting, waits, 0)
    waiting[waits] = i
    return waits + 1


@compiled
def _possible(fleet: Engines, demands: Demands, i: int) -> bool:
    """Whether an idle engine can meet its TTFT."""
    table = fleet.prefill_table if fleet.prefills > 0 else fleet.decode_table
    first_s = expected_s(table, np.zeros(COUNTS)) + own_s(table, demands, i)
    return bool(first_s <= demands[i, DUE])


@compiled
def _go_on(
    fleet: Engines,
    engine: int,
    demands: Demands,
    got: Floats,
    verdicts: Ints,
    homes: Ints,
    left: Ints,
    now: float,
    link_fixed_s: float,
    link_token_s: float,
) -> bool:
    """Ends the engine's step and begins the next one; whether a request left the engine."""
    leaving = 0
    if fleet.stepping[engine]:
        leaving = end_step(fleet, engine, got, left, now)
    for k in range(leaving):
        i = left[k]
        home = homes[i]
        if engine < fleet.prefills and demands[i, OUTPUT] > 1:
            arrives_s = now + link_fixed_s + link_token_s * demands[i, PROMPT]
            add_answer(fleet, home, demands, i, now, arrives_s)
            if not fleet.stepping[home]:
                fleet.next_s[home] = min(fleet.next_s[home], arrives_s)
        else:
            _leave(fleet, home, i)
            verdicts[i] = judged_of(demands, got, i)
    begin_step(fleet, engine, now)
    return leaving > 0


@compiled
def _leave(fleet: Engines, engine: int, i: int) -> None:
    promised = fleet.promised[engine]
    for place in range(fleet.promises[engine]):
        if promised[place] == i:
            fleet.promises[engine] = _drop(promised, fleet.promises[engine], place)
            return


@compiled
def _drop(numbers: Ints, used: int, place: int) -> int:
    """Removes the entry at `place`; the others move up. Returns how many are left."""
    for k in range(place + 1, used):
        numbers[k - 1] = numbers[k]
    return used - 1


@compiled
def _place(
    fleet: Engines,
    demands: Demands,
    verdicts: Ints,
    homes: Ints,
    waiting: Ints,
    waits: int,
    short_of: Ints,
    now: float,
) -> int:
    """Places waiting requests in order of arrival; returns how many still wait."""
    chosen, kept, tried = np.empty(1, dtype=np.int64), 0, 0
    for k in range(waits):
        i = waiting[k]
        plain, first = has_no_slo(demands, i), SHORT_OF_DECODE
        newest = k == waits - 1
        if tried < _MOST_TRIED or newest:
            tried += 1
            first = route_plain(fleet, chosen) if plain else route(fleet, demands, i, now, chosen)
            short_of[i] = min(first, SHORT_OF_PREFILL)
        if first >= 0:
            _enter(fleet, demands, homes, i, first, chosen[0], now)
        elif not plain and now > _latest_s(fleet, demands, i):
            verdicts[i] = missed(demands, i, short_of[i])
        else:
            waiting[kept] = i
            kept += 1
    return kept


@compiled
def _enter(
    fleet: Engines, demands: Demands, homes: Ints, i: int, first: int, home: int, now: float
) -> None:
    homes[i] = home
    fleet.promised[home, fleet.promises[home]] = i
    fleet.promises[home] += 1
    add_prompt(fleet, first, demands, i, now)
    if not fleet.stepping[first]:
        fleet.next_s[first] = now


@compiled
def _latest_s(fleet: Engines, demands: Demands, i: int) -> float:
    if demands[i, DUE] == np.inf:
        return float(demands[i, ARRIVES] + PATIENCE_S)
    table = fleet.prefill_table if fleet.prefills > 0 else fleet.decode_table
    return float(demands[i, ARRIVES] + demands[i, DUE] - own_s(table, demands, i))
