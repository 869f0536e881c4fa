"""Runs a load through a serving system on virtual time.

The system decides placements and the tokens of each step.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from shared.requests import Pacing
from shared.scheduling.rows import BEST_EFFORT
from shared.simulation import request_metrics as of
from shared.simulation.engine import SimEngine
from shared.simulation.judge import worst_pace_share
from shared.simulation.prefixes import Prefixes
from shared.simulation.record import Conditions, Outage, Record, Watch
from shared.simulation.retries import Retries
from shared.simulation.rows_of import first_row, write_targets
from shared.simulation.run_state import RunState
from shared.simulation.system import Ended, Refusal, Route, SimRequest, System
from shared.simulation.transfers import Transfers
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
        self._load, self._watch = load, watch
        self._engines: dict[str, SimEngine] = {engine.name: engine for engine in engines}
        self._hardware = engines[0].hardware  # defines the zero-load times of slowdowns
        self._coming = iter(sorted(load, key=lambda program: program.arrives_s))
        self._state = RunState(
            system=system,
            conditions=conditions or Conditions(),
            serving=dict(self._engines),
            prefixes=Prefixes(load),
            metrics=of.new_request_metrics(sum(len(program.calls) for program in load)),
        )
        self._transfers = Transfers(self._state, self)
        self._retries = Retries(retry_s=self._state.conditions.retry_s)
        self._programs: list[Program] = []  # by index of the request
        self._unfinished: dict[str, tuple[Program, int]] = {}  # its next call, by program
        self._waiting: list[SimRequest] = []
        self._to_decide = False
        self._recheck_s = self._until_s = math.inf

    def record(self) -> Record:
        """Runs until all requests have ended, the drain time is over, or the watch ends it."""
        last_s = max((program.arrives_s for program in self._load), default=0.0)
        self._until_s = last_s + self._state.conditions.drain_s
        self._expect()
        for outage in self._state.conditions.outages:
            self._state.timeline.at(outage.from_s, self._die, outage.engine)
            if outage.until_s < math.inf:
                self._state.timeline.at(outage.until_s, self._join, outage.engine)
        self._play()
        for program, number in self._unfinished.values():
            self._give_up(program, number, self._state.timeline.now)
        return Record(
            requests=tuple(self._state.requests),
            metrics=self._metrics_so_far(),
            routes=self._state.routes,
            engines=tuple(self._engines.values()),
            ended_s=self._state.timeline.now,
            retries=tuple(self._retries.made.values()),
        )

    def _play(self) -> None:
        while self._state.timeline.next_s <= self._until_s:
            now = self._state.timeline.go_on()
            if self._waiting and (self._to_decide or now >= self._recheck_s):
                self._decide(now)
            if self._watch and self._watch(self._state.requests, self._metrics_so_far(), now):
                return

    def _metrics_so_far(self) -> of.RequestMetrics:
        return self._state.metrics[: len(self._state.requests)]

    def _decide(self, now: float) -> None:
        self._to_decide = False
        asked = self._waiting
        self._state.system.observe(self._state.serving, now)
        answers = self._state.system.place(asked, now)
        self._waiting = [
            request for request, route in zip(asked, answers, strict=True) if route is None
        ]
        reaches_s = now + self._state.conditions.decision_s + self._state.conditions.network_s
        for request, route in zip(asked, answers, strict=True):
            if isinstance(route, Route):
                self._place(request, route, reaches_s, now)
            elif isinstance(route, Refusal):
                self._refuse(request, route.retry_after_s, now)
        if self._waiting:
            self._recheck_s = now + self._state.system.recheck_s
            self._state.timeline.at(self._recheck_s, lambda _: None)

    # ---- requests

    def _expect(self) -> None:
        """Puts the next program on the timeline; only one, since a load may be long."""
        program = next(self._coming, None)
        if program is not None:
            self._state.timeline.at(program.arrives_s, self._begin, program)

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
            index=len(self._state.requests),
            call=call,
            program_id=program.program_id,
            call_number=number,
            arrives_s=now,
            ttft_s=ttft_s(call, self._hardware),
            in_session=len(program.calls) > 1,
        )
        self._state.requests.append(request)
        self._programs.append(program)
        write_targets(self._state.metrics, request)
        return request

    def _give_up(self, program: Program, first: int, now: float) -> None:
        """Records the remaining calls of a program as missed, like refused ones."""
        for number in range(first, len(program.calls)):
            request = self._enter(program, number, now)
            self._state.metrics[request.index, of.ADMISSION] = of.NEVER_CAME

    def _refuse(self, request: SimRequest, named_s: float | None, now: float) -> None:
        again_s = self._retries.again_s(request.index, named_s, now)
        if again_s is not None:
            self._until_s = max(self._until_s, again_s + self._state.conditions.drain_s)
            self._state.timeline.at(again_s, self._come_again, request.index)
            return
        got = self._state.metrics[request.index]
        got[of.ADMISSION], got[of.PLACED] = of.REFUSED, now
        program = self._programs[request.index]
        self._unfinished.pop(program.program_id, None)
        self._give_up(program, request.call_number + 1, now)

    def _come_again(self, index: int, now: float) -> None:
        """Retries a refused request: its targets count from now on."""
        request = self._state.requests[index] = replace(self._state.requests[index], arrives_s=now)
        write_targets(self._state.metrics, request)
        self._waiting.append(request)
        self._to_decide = True

    def _place(self, request: SimRequest, route: Route, reaches_s: float, now: float) -> None:
        kind = of.BEST_EFFORT if route.kind == BEST_EFFORT else of.ADMITTED
        self._state.metrics[request.index, of.ADMISSION] = kind
        self._state.metrics[request.index, of.PLACED] = now
        self._state.routes[request.index] = route
        self._state.timeline.at(reaches_s, self._reach, request, route)

    def _reach(self, request: SimRequest, route: Route, now: float) -> None:
        engine = self._state.serving.get(route.prefill or route.decode)
        if engine is None:
            self.place_again(request.index)
            return
        if not self._transfers.export(engine, request, route, now):
            self.compute(engine, request.index, now)

    def compute(self, engine: SimEngine, index: int, now: float) -> None:
        """Adds a request to the engine that computes its prompt."""
        request, route = self._state.requests[index], self._state.routes[index]
        computed = self._state.prefixes.find(engine, request)
        self._state.prefixes.share(engine, request)
        row = first_row(request, route, self._state.metrics, computed=computed, now=now)
        engine.add(row, request.index, prefill_only=route.prefill is not None)
        self.wake(engine, now)

    def place_again(self, index: int) -> None:
        """Places a request again after the loss of its engine, with its tokens to compute again."""
        given = int(self._state.metrics[index, of.TOKENS])
        request = self._state.requests[index] = replace(self._state.requests[index], produced=given)
        self._waiting.append(request)
        self._to_decide = True

    # ---- steps

    def wake(self, engine: SimEngine, now: float) -> None:
        """Begins a step of an engine that has none."""
        if not engine.is_idle or not engine.alive:
            return
        if engine.begin(self._state.system.form, self._state.metrics, now):
            self._state.timeline.at(engine.ends_s, self._end_step, engine)
        else:
            self._transfers.send(engine.name, now)  # evictions may have made room

    def _end_step(self, engine: SimEngine, now: float) -> None:
        """Ends a step of the engine, handles its finished requests, and begins the next step."""
        if engine.ends_s != now:  # it has died since
            return
        ended, moves = engine.end(self._state.metrics, now + self._state.conditions.network_s)
        self._to_decide |= bool(ended or moves)
        for index in ended:
            self._end(engine, index)
        for index in moves:
            self._state.system.moved(engine, self._state.requests[index])
            self._transfers.move_on(index, now)
        self._transfers.step_ended(engine, now)
        self._transfers.send(engine.name, now)
        self.wake(engine, now)
        self._transfers.idle(engine, now)

    def _stage_lateness(self, request: SimRequest) -> float | None:
        got = self._state.metrics[request.index]
        if request.call.pacing is Pacing.DEADLINES and math.isfinite(got[of.TTFT]):
            return 1.0 + float(got[of.WORST_LATE] / got[of.TTFT])
        if len(request.call.stages) < 2:
            return None
        return float(worst_pace_share(self._state.metrics[[request.index]])[0])

    def _end(self, engine: SimEngine, index: int) -> None:
        request, got = self._state.requests[index], self._state.metrics[index]
        program, after = self._programs[index], request.call_number + 1
        tokens, last_s = int(got[of.TOKENS]), float(got[of.LAST])
        self._state.prefixes.keep(engine, request, request.call.prompt_tokens + tokens - 1)
        first_s, second_s = float(got[of.FIRST]), float(got[of.SECOND])
        moved = got[of.MOVED] > 0 and tokens > 1
        self._state.system.ended(
            Ended(
                request=request,
                tokens=tokens,
                placed_s=float(got[of.PLACED]) + self._state.conditions.decision_s,
                started_s=float(got[of.STARTED]) + self._state.conditions.network_s,
                first_s=first_s,
                last_s=last_s,
                moved_s=second_s - first_s if moved else None,
                recomputed=index in self._transfers.recomputed,
                stage_lateness=self._stage_lateness(request),
            )
        )
        if after < len(program.calls):
            comes_s = last_s + program.calls[after].after_s
            self._until_s = max(self._until_s, comes_s + self._state.conditions.drain_s)
            self._state.timeline.at(comes_s, self._come, program, after)

    # ---- engines that die

    def _die(self, name: str, now: float) -> None:
        """Ends an engine: its requests are placed again, its KV transfers are computed again."""
        engine = self._state.serving.pop(name, None)
        if engine is None:
            return
        self._state.system.lost(engine, now)
        for index in [*engine.clear(), *self._transfers.take_waiting(name)]:
            self._transfers.drop(index, now)
            self.place_again(index)
        self._transfers.lose_source(engine, now)

    def _join(self, name: str, now: float) -> None:
        """Returns an engine to the fleet, empty."""
        engine = self._state.serving[name] = self._engines[name]
        engine.alive = True
        self._state.system.joined(engine, now)
        self._to_decide = True
