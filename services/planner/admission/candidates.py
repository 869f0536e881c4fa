"""Ranks the open ways of a request by their predicted times."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from services.planner.admission.placement_options import Ways
from services.planner.admission.predict import (
    DecodeForecast,
    Loads,
    PrefillForecast,
    forecast_decode,
    forecast_prefill,
    idle_prefill_s,
    idle_tpot_s,
    transfer_s,
)
from services.planner.admission.prefix_pulls import Pull, best_pull, sources_of
from services.planner.state.cluster import ClusterState
from services.planner.state.demand import Demand
from services.planner.state.engine_state import EngineState
from services.planner.tuning import BEST_OF_SIDE, MOST_PULLS
from shared.requests import PlacementMode, PlacementOption, PlacementQuery


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """The targets in seconds: None without a target, nan where it is unknown."""

    ttft_s: float | None
    tpot_s: float | None


@dataclass(slots=True)
class Candidate:
    """One way of one request. Unknown times are nan; co-located, both engines are the same.

    With a `pull`, the queue includes the time until the prefix has arrived.
    """

    prefill: PrefillForecast
    decode: DecodeForecast
    transfer_s: float
    ttft_s: float
    finish_s: float
    colocated: bool
    rejected: str = ""  # why a simulation ruled it out
    pull: Pull | None = None

    @property
    def on_one(self) -> bool:
        """Whether one engine does all of it."""
        return self.colocated and self.pull is None

    @property
    def gap_s(self) -> float:
        """The time that KV moves after the first token."""
        return 0.0 if self.colocated else self.transfer_s

    @property
    def times(self) -> tuple[float, float, float]:
        """What a simulation changes: TTFT, the end and the TPOT."""
        return self.ttft_s, self.finish_s, self.decode.tpot_s

    @times.setter
    def times(self, times: tuple[float, float, float]) -> None:
        self.ttft_s, self.finish_s, self.decode.tpot_s = times

    def misses_ttft(self, goal: Goal) -> bool:
        return goal.ttft_s is not None and not self.ttft_s <= goal.ttft_s

    def misses_tpot(self, goal: Goal) -> bool:
        return goal.tpot_s is not None and not self.decode.tpot_s <= goal.tpot_s

    def misses(self, goal: Goal) -> bool:
        return self.misses_ttft(goal) or self.misses_tpot(goal)

    def surely_misses(self, goal: Goal) -> bool:
        """Whether a known time misses the goal; unknown times do not count."""
        too_late = goal.ttft_s is not None and self.ttft_s > goal.ttft_s
        return too_late or (goal.tpot_s is not None and self.decode.tpot_s > goal.tpot_s)

    def considered(self, rejected: str = "") -> PlacementOption:
        return PlacementOption(
            way=PlacementMode.COLOCATED if self.colocated else PlacementMode.DISAGGREGATED,
            prefill=None if self.colocated else self.prefill.engine.name,
            decode=self.decode.engine.name,
            queue_s=known(self.prefill.queue_s),
            prefill_s=known(self.prefill.prefill_s),
            transfer_s=known(self.transfer_s),
            decode_s=known(self.decode.decode_s),
            ttft_s=known(self.ttft_s),
            tpot_s=known(self.decode.tpot_s),
            finish_s=known(self.finish_s),
            rejected=rejected,
            source=None if self.pull is None else self.pull.source.name,
            cached_tokens=self.prefill.cached_tokens,
        )


def known(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds


def goal_of(query: PlacementQuery, state: ClusterState, ways: Ways) -> Goal:
    """The targets in seconds; a slowdown multiplies the zero-load time."""
    targets = query.targets
    ttft_s = targets.ttft_s
    if ttft_s is None and targets.ttft_slowdown is not None:
        ttft_s = targets.ttft_slowdown * best_idle_ttft_s(query, state, ways)
    return Goal(ttft_s=ttft_s, tpot_s=targets.tightest_tpot_s)


def best_idle_ttft_s(query: PlacementQuery, state: ClusterState, ways: Ways) -> float:
    """The zero-load TTFT on the fastest engine."""
    return _least(idle_prefill_s(state, engine, query.prompt_tokens) for engine in ways.starts)


def best_idle_tpot_s(query: PlacementQuery, state: ClusterState, ways: Ways, now: float) -> float:
    """The zero-load TPOT on the fastest engine, with its best draft length."""
    return _least(idle_tpot_s(state, engine, query, now) for engine in ways.ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the request will take, as far as it is known."""

    prompt_tokens: int
    output_tokens: int
    waited_s: float
    now: float


def rank(
    query: PlacementQuery,
    state: ClusterState,
    ways: Ways,
    goal: Goal,
    demand: Demand,
    loads: Loads,
    now: float,
) -> list[Candidate]:
    """The ways that meet the goal first, then by predicted end; those of unknown end by load."""
    work = Work(
        prompt_tokens=query.prompt_tokens,
        output_tokens=state.expected_output_tokens(query),
        waited_s=query.waited_s,
        now=now,
    )
    ends = {
        engine: forecast_decode(
            state,
            loads.of(engine),
            work.prompt_tokens,
            work.output_tokens,
            now,
            shared_tokens=demand.shared_on(engine.description),
        )
        for engine in {*ways.on_one, *ways.decodes}
    }
    starts = {
        engine: forecast_prefill(
            state,
            loads.of(engine),
            work.prompt_tokens - demand.computed_on(engine.description),
            work.prompt_tokens,
            now,
            shared_tokens=demand.shared_on(engine.description),
        )
        for engine in {*ways.on_one, *ways.prefills}
    }
    candidates = [_colocated(work, starts[engine], ends[engine]) for engine in ways.on_one]
    sources = sources_of(query, state, demand, now)
    if sources:
        candidates += _pulled(work, candidates, sources, state, demand, loads)
    if ways.pairs_exist:
        first = [starts[engine] for engine in ways.prefills]
        candidates += _pairs(work, state, first, [ends[engine] for engine in ways.decodes], goal)
    return sorted(candidates, key=lambda candidate: _order(candidate, goal))


def _colocated(work: Work, start: PrefillForecast, end: DecodeForecast) -> Candidate:
    """The request waits for room on its engine once, before the prompt."""
    queue_s = _longest(start.queue_s, end.room_s)
    whole = replace(start, room_s=end.room_s, queue_s=queue_s)
    ttft_s = work.waited_s + whole.ready_in_s
    return Candidate(whole, end, 0.0, ttft_s, ttft_s + end.decode_s, colocated=True)


def _pulled(
    work: Work,
    computed: list[Candidate],
    sources: list[EngineState],
    state: ClusterState,
    demand: Demand,
    loads: Loads,
) -> list[Candidate]:
    """The quickest ways that pull a prefix where that is faster than to compute it."""
    ways = []
    for way in computed:
        others = [source for source in sources if source is not way.decode.engine]
        found = best_pull(way.prefill, others, state, demand, loads, work.now)
        if found is not None:
            pull, start = found
            pulled = _colocated(work, start, way.decode)
            ways.append(replace(pulled, transfer_s=pull.moved_s, pull=pull))
    ways.sort(key=lambda way: _unknown_last(way.finish_s, way.decode.engine))
    return ways[:MOST_PULLS]


def _pairs(
    work: Work,
    state: ClusterState,
    starts: list[PrefillForecast],
    ends: list[DecodeForecast],
    goal: Goal,
) -> Iterator[Candidate]:
    starts.sort(key=lambda start: _unknown_last(start.ready_in_s, start.engine))
    ends.sort(key=lambda end: (_over(end, goal), _unknown_last(end.done_in_s, end.engine)))
    able = (one for one in starts if any(one.engine.transports_to(end.engine) for end in ends))
    for start in islice(able, BEST_OF_SIDE):
        reached = (end for end in ends if start.engine.transports_to(end.engine))
        for end in islice(reached, BEST_OF_SIDE):
            if start.engine is not end.engine:
                yield _pair(work, state, start, end)


def _pair(
    work: Work, state: ClusterState, start: PrefillForecast, end: DecodeForecast
) -> Candidate:
    """The request needs room on the decode engine only when its KV arrives."""
    moved_s = transfer_s(state, start, end, work.prompt_tokens, work.now)
    ready_s = start.ready_in_s
    arrived_s = _longest(ready_s + moved_s, end.room_s)
    finish_s = work.waited_s + arrived_s + end.decode_s
    return Candidate(start, end, moved_s, work.waited_s + ready_s, finish_s, colocated=False)


_Place = tuple[bool, float, int, str]


def _order(candidate: Candidate, goal: Goal) -> tuple[bool, _Place, int, bool, bool, str]:
    return (
        candidate.misses(goal),
        _unknown_last(candidate.finish_s, candidate.prefill.engine),
        candidate.decode.engine.requests,
        not candidate.colocated,
        candidate.pull is not None,
        candidate.decode.engine.name,
    )


def _unknown_last(seconds: float, engine: EngineState) -> _Place:
    if math.isnan(seconds):
        return (True, engine.prefill_tokens_ahead, engine.requests, engine.name)
    return (False, seconds, engine.requests, engine.name)


def _over(end: DecodeForecast, goal: Goal) -> bool:
    return goal.tpot_s is not None and not end.tpot_s <= goal.tpot_s


def _longest(a: float, b: float) -> float:
    """The greater of two times; unknown (nan) when either is."""
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


def _least(times_s: Iterable[float]) -> float:
    return min((seconds for seconds in times_s if not math.isnan(seconds)), default=math.nan)
