"""Runs a load through a serving system on virtual time.

The system decides placements and the tokens of each step.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from shared.requests import Pacing
from shared.scheduling.rows import BEST_EFFORT, PROMISED
from shared.scheduling.shares import SET_ASIDE
from shared.simulation import request_metrics as of
from shared.simulation.engine import SimEngine
from shared.simulation.exports import Exports
from shared.simulation.judge import worst_pace_share
from shared.simulation.links import Links
from shared.simulation.prefixes import Prefixes
from shared.simulation.record import Conditions, Outage, Record, Watch
from shared.simulation.retries import Retries
from shared.simulation.rows_of import first_row, second_row, write_targets
from shared.simulation.system import Ended, Fetched, No, Route, SimRequest, System
from shared.simulation.timeline import Timeline
from shared.simulation.zero_load import ttft_s
from shared.workloads.calls import Load, Program

__all__ = ["Conditions", "Outage", "Record", "Run", "Watch"]


class Run:
    """One load, one system, one fleet; used once. The same arguments give the same record."""

    def __init__(
        self,
        load: Load,
        system: System,
        engines: Sequence[SimEngine],
        conditions: Conditions | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._load, self._system, self._watch = load, system, watch
        self._conditions = conditions or Conditions()
        self._engines: dict[str, SimEngine] = {engine.name: engine for engine in engines}
        self._serving = dict(self._engines)
        self._hardware = engines[0].hardware  # defines the zero-load times of slowdowns
        self._coming = iter(sorted(load, key=lambda program: program.arrives_s))
        self._prefixes = Prefixes(load)
        self._requests: list[SimRequest] = []
        self._programs: list[Program] = []  # by index
        self._unfinished: dict[str, tuple[Program, int]] = {}  # its next call, by program
        self._metrics = of.new_request_metrics(sum(len(program.calls) for program in load))
        self._routes: dict[int, Route] = {}
        self._waiting: list[SimRequest] = []
        self._for_room: dict[str, deque[int]] = {name: deque() for name in self._engines}
        self._on_way: dict[int, tuple[SimEngine, float]] = {}  # to where and until when, by index
        self._fetched: dict[int, Fetched] = {}  # what these will have been, by index
        self._pulled: dict[int, int] = {}  # tokens of exported prefixes, by index
        self._recomputed: set[int] = set()  # indexes of requests whose KV did not arrive
        self._links = Links()
        self._retries = Retries(retry_s=self._conditions.retry_s)
        self._timeline = Timeline()
        self._exports = Exports(
            self._timeline, ready=self._exported, given_up=self._compute_instead
        )
        self._to_decide = False
        self._recheck_s = self._until_s = math.inf

    def record(self) -> Record:
        """Runs until all requests have ended, the drain time is over, or the watch ends it."""
        last_s = max((program.arrives_s for program in self._load), default=0.0)
        self._until_s = last_s + self._conditions.drain_s
        self._expect()
        for outage in self._conditions.outages:
            self._timeline.at(outage.from_s, self._die, outage.engine)
            if outage.until_s < math.inf:
                self._timeline.at(outage.until_s, self._join, outage.engine)
        self._live()
        for program, number in self._unfinished.values():
            self._give_up(program, number, self._timeline.now)
        return Record(
            requests=tuple(self._requests),
            metrics=self._metrics[: len(self._requests)],
            routes=self._routes,
            engines=tuple(self._engines.values()),
            ended_s=self._timeline.now,
            retries=tuple(self._retries.made.values()),
        )

    def _live(self) -> None:
        while self._timeline.next_s <= self._until_s:
            now = self._timeline.go_on()
            if self._waiting and (self._to_decide or now >= self._recheck_s):
                self._decide(now)
            if self._watch and self._watch(
                self._requests, self._metrics[: len(self._requests)], now
            ):
                return

    def _decide(self, now: float) -> None:
        self._to_decide = False
        asked = self._waiting
        self._system.hear(self._serving, now)
        answers = self._system.place(asked, now)
        self._waiting = [
            request for request, route in zip(asked, answers, strict=True) if route is None
        ]
        reaches_s = now + self._conditions.decision_s + self._conditions.network_s
        for request, route in zip(asked, answers, strict=True):
            if isinstance(route, Route):
                self._place(request, route, reaches_s, now)
            elif isinstance(route, No):
                self._refuse(request, route.retry_after_s, now)
        if self._waiting:
            self._recheck_s = now + self._system.recheck_s
            self._timeline.at(self._recheck_s, lambda _: None)

    # ---- requests

    def _expect(self) -> None:
        """Puts the next program on the timeline; only one, since a load may be long."""
        program = next(self._coming, None)
        if program is not None:
            self._timeline.at(program.arrives_s, self._begin, program)

    def _begin(self, program: Program, now: float) -> None:
        self._expect()
        self._come(program, 0, now)

    def _come(self, program: Program, number: int, now: float) -> None:
        """A call of a program reaches the gateway."""
        request = self._enter(program, number, now)
        self._waiting.append(request)
        self._to_decide = True
        if number + 1 < len(program.calls):
            self._unfinished[program.program_id] = program, number + 1
        else:
            self._unfinished.pop(program.program_id, None)

    def _enter(self, program: Program, number: int, now: float) -> SimRequest:
        call = program.calls[number]
        request = SimRequest(
            index=len(self._requests),
            call=call,
            program_id=program.program_id,
            call_number=number,
            arrives_s=now,
            ttft_s=ttft_s(call, self._hardware),
            in_session=len(program.calls) > 1,
        )
        self._requests.append(request)
        self._programs.append(program)
        write_targets(self._metrics, request)
        return request

    def _give_up(self, program: Program, first: int, now: float) -> None:
        """Records the remaining calls of a program as missed, like refused ones."""
        for number in range(first, len(program.calls)):
            request = self._enter(program, number, now)
            self._metrics[request.index, of.ADMISSION] = of.NEVER_CAME

    def _refuse(self, request: SimRequest, named_s: float | None, now: float) -> None:
        again_s = self._retries.again_s(request.index, named_s, now)
        if again_s is not None:
            self._until_s = max(self._until_s, again_s + self._conditions.drain_s)
            self._timeline.at(again_s, self._come_again, request.index)
            return
        got = self._metrics[request.index]
        got[of.ADMISSION], got[of.PLACED] = of.REFUSED, now
        program = self._programs[request.index]
        self._unfinished.pop(program.program_id, None)
        self._give_up(program, request.call_number + 1, now)

    def _come_again(self, index: int, now: float) -> None:
        """Retries a refused request: its targets count from now on."""
        request = self._requests[index] = replace(self._requests[index], arrives_s=now)
        write_targets(self._metrics, request)
        self._waiting.append(request)
        self._to_decide = True

    def _place(self, request: SimRequest, route: Route, reaches_s: float, now: float) -> None:
        kind = of.BEST_EFFORT if route.kind == BEST_EFFORT else of.ADMITTED
        self._metrics[request.index, of.ADMISSION] = kind
        self._metrics[request.index, of.PLACED] = now
        self._routes[request.index] = route
        self._timeline.at(reaches_s, self._reach, request, route)

    def _reach(self, request: SimRequest, route: Route, now: float) -> None:
        engine = self._serving.get(route.prefill or route.decode)
        if engine is None:
            self._ask_again(request.index)
            return
        if not self._exports_to(engine, request, route, now):
            self._enter_engine(engine, request, route, now)

    def _enter_engine(
        self, engine: SimEngine, request: SimRequest, route: Route, now: float
    ) -> None:
        computed = self._prefixes.find(engine, request)
        row = first_row(request, route, self._metrics, computed=computed, now=now)
        engine.add(row, request.index, prefill_only=route.prefill is not None)
        self._wake(engine, now)

    def _ask_again(self, index: int) -> None:
        """Places a request again after the loss of its engine, with its tokens to compute again."""
        given = int(self._metrics[index, of.TOKENS])
        request = self._requests[index] = replace(self._requests[index], produced=given)
        self._waiting.append(request)
        self._to_decide = True

    # ---- steps

    def _wake(self, engine: SimEngine, now: float) -> None:
        if not engine.is_idle or not engine.alive:
            return
        if engine.begin(self._system.form, self._metrics, now):
            self._timeline.at(engine.ends_s, self._end_step, engine)
        else:
            self._send(engine.name, now)  # evictions may have made room

    def _end_step(self, engine: SimEngine, now: float) -> None:
        """Ends a step of the engine, handles its finished requests, and begins the next step."""
        if engine.ends_s != now:  # it has died since
            return
        ended, moves = engine.end(self._metrics, now + self._conditions.network_s)
        self._to_decide |= bool(ended or moves)
        for index in ended:
            self._end(engine, index)
        for index in moves:
            self._system.moved(engine, self._requests[index])
            self._move_on(index, now)
        self._exports.step_ended(engine, now)
        self._send(engine.name, now)
        self._wake(engine, now)
        self._exports.idle(engine, now)

    def _stage_lateness(self, request: SimRequest) -> float | None:
        got = self._metrics[request.index]
        if request.call.pacing is Pacing.DEADLINES and math.isfinite(got[of.TTFT]):
            return 1.0 + float(got[of.WORST_LATE] / got[of.TTFT])
        if len(request.call.stages) < 2:
            return None
        return float(worst_pace_share(self._metrics[[request.index]])[0])

    def _end(self, engine: SimEngine, index: int) -> None:
        request, got = self._requests[index], self._metrics[index]
        program, after = self._programs[index], request.call_number + 1
        tokens, last_s = int(got[of.TOKENS]), float(got[of.LAST])
        self._prefixes.keep(engine, request, request.call.prompt_tokens + tokens - 1)
        first_s, second_s = float(got[of.FIRST]), float(got[of.SECOND])
        moved = got[of.MOVED] > 0 and tokens > 1
        self._system.ended(
            Ended(
                request=request,
                tokens=tokens,
                placed_s=float(got[of.PLACED]) + self._conditions.decision_s,
                started_s=float(got[of.STARTED]) + self._conditions.network_s,
                first_s=first_s,
                last_s=last_s,
                moved_s=second_s - first_s if moved else None,
                recomputed=index in self._recomputed,
                stage_lateness=self._stage_lateness(request),
            )
        )
        if after < len(program.calls):
            comes_s = last_s + program.calls[after].after_s
            self._until_s = max(self._until_s, comes_s + self._conditions.drain_s)
            self._timeline.at(comes_s, self._come, program, after)

    # ---- KV on its way

    def _move_on(self, index: int, now: float) -> None:
        """Moves a request with a computed prompt to the engine that decodes it."""
        end = self._routes[index].decode
        if end in self._serving:
            self._for_room[end].append(index)
            self._send(end, now)
        else:
            self._release(index, now)
            self._pulled.pop(index, None)
            self._ask_again(index)

    def _send(self, end: str, now: float) -> None:
        """Starts transfers of requests that wait for room on this engine, promised ones first.

        The former reserves room for promised ones that still wait.
        """
        engine, waiting = self._serving[end], self._for_room[end]
        if not waiting:
            return
        promised = deque(index for index in waiting if self._routes[index].kind == PROMISED)
        line = promised or waiting.copy()
        while line and engine.free_blocks >= self._blocks_to_come(engine, line[0]):
            waiting.remove(line[0])
            self._move(engine, line.popleft(), now)
        engine.limits[SET_ASIDE] = sum(self._blocks_to_come(engine, index) for index in promised)

    def _blocks_to_come(self, engine: SimEngine, index: int) -> float:
        return engine.blocks_for(self._requests[index].prompt_tokens + 1)

    def _move(self, engine: SimEngine, index: int, now: float) -> None:
        request, route = self._requests[index], self._routes[index]
        pulls = route.prefill is None
        tokens = self._pulled.pop(index) if pulls else request.prompt_tokens
        source, arrives_s = self._source(index), now
        if source is None:  # it died: its tokens are computed here
            tokens = 0
            self._recomputed.add(index)
        else:
            begins_s = self._fetched_from_s(engine, now)
            own_tokens = self._prefixes.cached(engine, request) if pulls else 0
            arrives_s = self._links.move(
                source.name, engine.name, tokens - own_tokens, engine.hardware, begins_s
            )
            self._on_way[index] = engine, arrives_s
            self._fetched[index] = Fetched(
                request=request,
                source=source.name,
                tokens=tokens - own_tokens,
                seconds=arrives_s - begins_s,
                used=True,
            )
            self._metrics[index, of.MOVED] += 0.0 if pulls else arrives_s - now
        if pulls:
            row = first_row(request, route, self._metrics, computed=tokens, now=arrives_s)
        else:
            row = second_row(request, route, self._metrics, computed=tokens, available_s=arrives_s)
        engine.add(row, index)
        self._timeline.at(arrives_s, self._arrive, index, engine)

    def _fetched_from_s(self, engine: SimEngine, now: float) -> float:
        waits = self._conditions.fetched_at_steps and not engine.is_idle
        return engine.ends_s if waits else now

    def _arrive(self, index: int, engine: SimEngine, now: float) -> None:
        if self._on_way.get(index) == (engine, now):
            del self._on_way[index]
            self._system.fetched(engine, self._fetched.pop(index))
            self._release(index, now)
        self._wake(engine, now)

    def _source(self, index: int) -> SimEngine | None:
        """The engine that computed its prompt or exported a prefix, if it still holds the KV."""
        route = self._routes[index]
        engine = self._serving.get(route.prefill or route.source or "")
        return engine if engine is not None and engine.has_lease(index) else None

    def _release(self, index: int, now: float) -> None:
        source = self._source(index)
        if source is not None:
            source.release(index)
            request = self._requests[index]
            if self._routes[index].prefill is not None:
                self._prefixes.keep(source, request, request.prompt_tokens)
            self._wake(source, now)

    # ---- prefixes that are pulled

    def _exports_to(self, engine: SimEngine, request: SimRequest, route: Route, now: float) -> bool:
        """Has the route's source export its cached prefix, if it has more than the engine."""
        source, index = self._serving.get(route.source or ""), request.index
        if source is None:
            return False
        if self._prefixes.cached(source, request) <= self._prefixes.cached(engine, request):
            self._system.moved(source, request)
            return False
        self._pulled[index] = min(route.pulled_tokens, self._prefixes.find(source, request))
        source.lend(index)
        self._exports.begin(source, index, route.export_limit_s, now)
        return True

    def _exported(self, source: SimEngine, index: int, now: float) -> None:
        self._system.moved(source, self._requests[index])
        self._move_on(index, now)

    def _compute_instead(self, source: SimEngine, index: int, now: float) -> None:
        """Has the engine compute a prefix that was not exported within its limit."""
        del self._pulled[index]
        request, route = self._requests[index], self._routes[index]
        if source.alive:
            self._system.moved(source, request)
            source.release(index)
        engine = self._serving.get(route.decode)
        if engine is None:
            self._ask_again(index)
        else:
            self._enter_engine(engine, request, route, now)

    # ---- engines that die

    def _die(self, name: str, now: float) -> None:
        """Ends an engine: its requests are placed again, its KV transfers are computed again."""
        engine = self._serving.pop(name, None)
        if engine is None:
            return
        self._system.lost(engine, now)
        waited = self._for_room[name]
        lost = [*engine.clear(), *waited]
        waited.clear()
        for index in lost:
            self._pulled.pop(index, None)
            self._on_way.pop(index, None)
            self._fetched.pop(index, None)
            self._release(index, now)
            self._ask_again(index)
        self._exports.lost(engine, now)
        for index in [one for one in self._on_way if self._gives_kv(name, one)]:
            end, _ = self._on_way.pop(index)
            end.lose(index, now)
            self._recomputed.add(index)
            self._system.fetched(end, replace(self._fetched.pop(index), tokens=0, used=False))
            self._wake(end, now)

    def _gives_kv(self, name: str, index: int) -> bool:
        return name in (self._routes[index].prefill, self._routes[index].source)

    def _join(self, name: str, _: float) -> None:
        """Returns an engine to the fleet, empty."""
        engine = self._serving[name] = self._engines[name]
        engine.alive = True
        self._system.joined(engine)
        self._to_decide = True
