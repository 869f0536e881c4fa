"""Finds promises for all waiting requests at once: which can be kept, where, and in which way."""

import math
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import islice

import numpy as np

from services.planner.admission.admission_requests import (
    AdmissionRequest,
    chosen_by_dp,
    total_value,
    ways_to,
)
from services.planner.admission.candidates import Candidate
from services.planner.admission.engine_what_ifs import RoundWhatIfs
from services.planner.admission.feasibility import EngineWhatIf, Feasibility
from services.planner.admission.way_rows import hit, rows_of, stands_in, whole
from services.planner.state.engine_state import EngineState
from services.planner.tuning import MOST_TRIED, SLOWER, TRIED_WITHOUT_PROMISE
from shared.batch_time.table import FloatArray
from shared.requests import Reason


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The part of a way on one engine."""

    what_if: EngineWhatIf
    row: FloatArray
    class_name: str


class Round(RoundWhatIfs):
    """The engines during one round of promises. `promise` sets `chosen` of each request that it
    promises; the caller defers or refuses the others.
    """

    def promise(self, requests: Sequence[AdmissionRequest]) -> None:
        """Gives each request, by EDF, its first way that holds. Where requests are left over, the
        admission DP chooses those of each contested engine. Promises of earlier calls stay.
        """
        self._given = {name: copy(what_if) for name, what_if in self._what_ifs.items()}
        ordered = sorted(requests, key=lambda request: request.demand.due_s)
        admission_dp = self.state.numbers.admission_dp
        if admission_dp and len(ordered) > 1 and self._all_on_one(ordered):
            return
        for request in ordered:
            self._place(request)
        left = [request for request in ordered if request.chosen is None]
        if not left or len(requests) == 1 or not admission_dp:
            return
        for engine in self._contested(ordered):
            self._reconsider(engine, ordered)

    def way_without_promise(self, request: AdmissionRequest) -> Candidate | None:
        """Takes the quickest way on one engine by which the request would most likely be in time
        without a promise; None without such a way.

        Where a promise failed for want of KV, promised requests will soon preempt others. A request
        that has no room now, or would be late after a preemption, is deferred for a promise
        instead.
        """
        on_one = (way for way in request.ways if way.on_one)
        for way in islice(on_one, TRIED_WITHOUT_PROMISE):
            what_if = self.what_if(way.decode.engine)
            if what_if is None:
                continue
            row = self._whole(request, way, best_effort=True)
            no_kv = request.reason is Reason.MEMORY
            kv_room = what_if.kv_room
            if no_kv and (
                not kv_room.has_at_once(row)
                or kv_room.may_run_out(row, request.class_name, what_if.table)
            ):
                continue
            trial = what_if.tried(row)
            if trial.kept:
                what_if.give(row[None], [request.class_name])
                _foretell(request, way, [trial], what_if.delivery_s)
                return way
        return None

    def foretell_leftover(self, request: AdmissionRequest) -> Candidate:
        """The quickest way on one engine, with times as simulated beside the promises. Other ways
        come only without one: their KV would wait on the prefill engine, in the way of promises.
        """
        best = next((way for way in request.ways if way.on_one), request.ways[0])
        parts = self._parts(request, best)
        if parts:
            trial = parts[0].what_if.leftover(parts[0].row)
            if trial.first_s < math.inf:
                _foretell(request, best, [trial], parts[0].what_if.delivery_s)
        return best

    def _all_on_one(self, requests: Sequence[AdmissionRequest]) -> bool:
        """Promises all requests together, if they hold, where each has one way on one engine."""
        if any(len(request.ways) > 1 or not request.ways[0].on_one for request in requests):
            return False
        engine = requests[0].ways[0].decode.engine
        what_if = self.what_if(engine)
        return what_if is not None and self._give_all(what_if, requests, ways_to(requests, engine))

    def _give_all(
        self,
        what_if: EngineWhatIf,
        requests: Sequence[AdmissionRequest],
        ways: dict[int, Candidate | None],
    ) -> bool:
        """Promises all of the requests on this engine if they hold together, else none."""
        chosen = [way for way in (ways[id(request)] for request in requests) if way is not None]
        if len(chosen) < len(requests) or not requests:
            return False
        rows = np.array(
            [self._whole(request, way) for request, way in zip(requests, chosen, strict=True)]
        )
        names = [request.class_name for request in requests]
        trials = what_if.try_all(rows, names)
        if not trials[0].kept:
            return False
        what_if.give(rows, names)
        for request, way, trial in zip(requests, chosen, trials, strict=True):
            _foretell(request, way, [trial], what_if.delivery_s)
            request.chosen = way
        return True

    def _whole(
        self, request: AdmissionRequest, way: Candidate, *, best_effort: bool = False
    ) -> FloatArray:
        return whole(request, way, self._reached_at_s, best_effort=best_effort)

    # ---- one request

    def _place(self, request: AdmissionRequest) -> bool:
        full: dict[str, str] = {}  # prefill engines and sources that failed, and why
        for way in islice(self._in_order(request), MOST_TRIED):
            source = "" if way.pull is None else way.pull.source.name
            start = source if way.colocated else way.prefill.engine.name
            if start in full:
                way.rejected = full[start]
                continue
            parts = self._parts(request, way)
            trials, obstructed = _tested(parts)
            if obstructed is None:
                self._give(request, way, parts, trials)
                return True
            request.trials.append(trials[-1])
            failed = obstructed.what_if.engine.name
            way.rejected = trials[-1].obstacle(failed)
            if start == failed:
                full[start] = way.rejected
        return False

    def _give(
        self,
        request: AdmissionRequest,
        way: Candidate,
        parts: Sequence[_Part],
        trials: Sequence[Feasibility],
    ) -> None:
        for part in parts:
            part.what_if.give(part.row[None], [part.class_name])
        _foretell(request, way, trials, parts[0].what_if.delivery_s)
        request.chosen = way

    def _in_order(self, request: AdmissionRequest) -> Iterator[Candidate]:
        """The order in which ways are tried. Ways in line with the engines' roles come first, then
        engines that are idle or step as quickly already: one tight request must not bind
        every engine to short steps (PolyServe, arXiv 2507.17769). Then come prefix hits, and then
        the engine with the most time to spare, so that later requests find room on all.
        """
        pace_s = request.demand.grace.pace_s if self.state.numbers.same_pace_first else math.inf
        quickest: dict[EngineState, float] = {}
        for way in request.ways:
            engine = way.decode.engine
            quickest[engine] = min(quickest.get(engine, math.inf), _or_inf(way.finish_s))
        able = {
            engine: what_if for engine in quickest if (what_if := self.what_if(engine)) is not None
        }
        pinned = {one: what_if.would_slow_down(pace_s) for one, what_if in able.items()}

        def rank(way: Candidate) -> tuple[bool, int, bool, bool, float, float]:
            engine = way.decode.engine
            return (
                pinned[engine],
                -hit(request, way),
                way.pull is not None,
                way.finish_s > SLOWER * quickest[engine],
                able[engine].utilization,
                _or_inf(way.finish_s),
            )

        ways = [way for way in request.ways if way.decode.engine in able]
        for against in (False, True):  # most requests need no stand-in, which saves its sort
            yield from sorted((way for way in ways if stands_in(way) is against), key=rank)

    def _parts(self, request: AdmissionRequest, way: Candidate) -> list[_Part]:
        parts = []
        for engine, row in rows_of(request, way, self._reached_at_s, self.now):
            what_if = self.what_if(engine)
            if what_if is None:
                return []
            parts.append(_Part(what_if, row, request.class_name))
        return parts

    # ---- many requests for one engine

    def _contested(self, requests: Sequence[AdmissionRequest]) -> Iterator[EngineState]:
        """Engines that were promised in this round. On other engines, a request that was left over
        found no room alone, so several would not either.
        """
        names = _moving_kv(requests)
        for request in requests:
            way = request.chosen
            if way is not None and way.colocated and way.decode.engine.name not in names:
                names.add(way.decode.engine.name)
                yield way.decode.engine

    def _reconsider(self, engine: EngineState, requests: Sequence[AdmissionRequest]) -> None:
        """Promises the engine to the set that the admission DP chooses, where it is worth more than
        the set found by EDF. Displaced requests take another way or stay without one. Ends as soon
        as the requests that are left cannot make it worth more, and then changes nothing.
        """
        ways = ways_to(requests, engine)
        here = [
            request
            for request in requests
            if request.chosen and request.chosen is ways[id(request)]
        ]
        free = [request for request in requests if request.chosen is None and ways[id(request)]]
        before = self._what_ifs[engine.name]
        given = self._given.get(engine.name)
        what_if = copy(given) if given else self._seated(engine, before.table)
        told = [(way, way.times) for way in ways.values() if way is not None]
        for request in here:
            request.chosen = None
        first, others = chosen_by_dp(what_if, [*here, *free])
        tried, worth = [*first, *others], total_value(here)
        left = others if self._give_all(what_if, first, ways) else tried
        for place, request in enumerate(left):
            if total_value([*_chosen(tried), *left[place:]]) <= worth:
                break
            self._give_one(what_if, request, ways[id(request)])
        kept = _chosen(tried)
        if total_value(kept) <= worth:
            for request in kept:
                request.chosen = None
            for request in here:
                request.chosen = ways[id(request)]
            for way, times in told:
                way.times = times
            return
        self._what_ifs[engine.name] = what_if
        for request in here:
            if request.chosen is None:
                self._place(request)

    def _give_one(
        self, what_if: EngineWhatIf, request: AdmissionRequest, way: Candidate | None
    ) -> None:
        assert way is not None
        row = self._whole(request, way)
        trial = what_if.try_one(row, request.class_name)
        if trial.kept:
            what_if.give(row[None], [request.class_name])
            _foretell(request, way, [trial], what_if.delivery_s)
            request.chosen = way


def _chosen(requests: Iterable[AdmissionRequest]) -> list[AdmissionRequest]:
    return [request for request in requests if request.chosen is not None]


def _moving_kv(requests: Sequence[AdmissionRequest]) -> set[str]:
    """Engines that export or pull a prefix by a promise of this round."""
    ways = [one.chosen for one in requests if one.chosen is not None]
    moving = [(way.decode.engine, way.pull.source) for way in ways if way.pull is not None]
    return {engine.name for pair in moving for engine in pair}


def _tested(parts: Sequence[_Part]) -> tuple[list[Feasibility], _Part | None]:
    """Tests the parts until one fails; returns the results and the part that failed. No part is
    simulated before all have passed the quick tests: with the answer's engine full, each prefill
    engine would be simulated for nothing.
    """
    for part in parts:
        no = part.what_if.quick_no(part.row[None], [part.class_name])
        if no is not None:
            return [no], part
    trials: list[Feasibility] = []
    for part in parts:
        trials.append(part.what_if.simulate_one(part.row))
        if not trials[-1].kept:
            return trials, part
    return trials, None


def _foretell(
    request: AdmissionRequest, way: Candidate, trials: Sequence[Feasibility], delivery_s: float
) -> None:
    """Replaces the way's estimated times by simulated ones."""
    trials = trials[:1] if way.colocated else trials  # a source does not pace the answer
    first_s = trials[0].first_s + delivery_s - request.demand.arrived_at_s
    way.finish_s += first_s - way.ttft_s
    way.ttft_s = first_s
    if not math.isnan(trials[-1].pace_s):
        later_tokens = max(1, request.kv_tokens - request.demand.prompt_tokens - 1)
        way.decode.tpot_s = trials[-1].pace_s + way.gap_s / later_tokens


def _or_inf(seconds: float) -> float:
    return math.inf if math.isnan(seconds) else seconds
