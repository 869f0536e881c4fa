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
from shared.simulation import lives as of
from shared.simulation.engine import SimEngine
from shared.simulation.exports import Exports
from shared.simulation.judge import worst_pace_share
from shared.simulation.links import Links
from shared.simulation.prefixes import Prefixes
from shared.simulation.record import Conditions, Outage, Record, Watch
from shared.simulation.retries import Retries
from shared.simulation.rows_of import first_row, second_row, want
from shared.simulation.system import Ended, Fetched, No, Route, System, Ticket
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
        self._tickets: list[Ticket] = []
        self._programs: list[Program] = []  # by life
        self._unfinished: dict[str, tuple[Program, int]] = {}  # its next call, by program
        self._lives = of.new_lives(sum(len(program.calls) for program in load))
        self._routes: dict[int, Route] = {}
        self._waiting: list[Ticket] = []
        self._for_room: dict[str, deque[int]] = {name: deque() for name in self._engines}
        self._on_way: dict[int, tuple[SimEngine, float]] = {}  # to where and until when, by life
        self._fetched: dict[int, Fetched] = {}  # what these will have been, by life
        self._pulled: dict[int, int] = {}  # tokens of exported prefixes, by life
        self._export_since_s: dict[int, float] = {}  # by life
        self._recomputed: set[int] = set()  # lives whose KV did not arrive
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
            tickets=tuple(self._tickets),
            lives=self._lives[: len(self._tickets)],
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
            if self._watch and self._watch(self._tickets, self._lives[: len(self._tickets)], now):
                return

    def _decide(self, now: float) -> None:
        self._to_decide = False
        asked = self._waiting
        self._system.hear(self._serving, now)
        answers = self._system.place(asked, now)
        self._waiting = [
            ticket for ticket, route in zip(asked, answers, strict=True) if route is None
        ]
        reaches_s = now + self._conditions.decision_s + self._conditions.network_s
        for ticket, route in zip(asked, answers, strict=True):
            if isinstance(route, Route):
                self._place(ticket, route, reaches_s, now)
            elif isinstance(route, No):
                self._refuse(ticket, route.retry_after_s, now)
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
        ticket = self._enter(program, number, now)
        self._waiting.append(ticket)
        self._to_decide = True
        if number + 1 < len(program.calls):
            self._unfinished[program.program_id] = program, number + 1
        else:
            self._unfinished.pop(program.program_id, None)

    def _enter(self, program: Program, number: int, now: float) -> Ticket:
        call = program.calls[number]
        ticket = Ticket(
            life=len(self._tickets),
            call=call,
            program_id=program.program_id,
            call_number=number,
            arrives_s=now,
            ttft_s=ttft_s(call, self._hardware),
            in_session=len(program.calls) > 1,
        )
        self._tickets.append(ticket)
        self._programs.append(program)
        want(self._lives, ticket)
        return ticket

    def _give_up(self, program: Program, first: int, now: float) -> None:
        """Records the remaining calls of a program as missed, like refused ones."""
        for number in range(first, len(program.calls)):
            ticket = self._enter(program, number, now)
            self._lives[ticket.life, of.ADMISSION] = of.NEVER_CAME

    def _refuse(self, ticket: Ticket, named_s: float | None, now: float) -> None:
        again_s = self._retries.again_s(ticket.life, named_s, now)
        if again_s is not None:
            self._until_s = max(self._until_s, again_s + self._conditions.drain_s)
            self._timeline.at(again_s, self._come_again, ticket.life)
            return
        got = self._lives[ticket.life]
        got[of.ADMISSION], got[of.PLACED] = of.REFUSED, now
        program = self._programs[ticket.life]
        self._unfinished.pop(program.program_id, None)
        self._give_up(program, ticket.call_number + 1, now)

    def _come_again(self, life: int, now: float) -> None:
        """Retries a refused request: its targets count from now on."""
        ticket = self._tickets[life] = replace(self._tickets[life], arrives_s=now)
        want(self._lives, ticket)
        self._waiting.append(ticket)
        self._to_decide = True

    def _place(self, ticket: Ticket, route: Route, reaches_s: float, now: float) -> None:
        kind = of.BEST_EFFORT if route.kind == BEST_EFFORT else of.ADMITTED
        self._lives[ticket.life, of.ADMISSION] = kind
        self._lives[ticket.life, of.PLACED] = now
        self._routes[ticket.life] = route
        self._timeline.at(reaches_s, self._reach, ticket, route)

    def _reach(self, ticket: Ticket, route: Route, now: float) -> None:
        engine = self._serving.get(route.prefill or route.decode)
        if engine is None:
            self._ask_again(ticket.life)
            return
        if not self._exports_to(engine, ticket, route, now):
            self._enter_engine(engine, ticket, route, now)

    def _enter_engine(self, engine: SimEngine, ticket: Ticket, route: Route, now: float) -> None:
        computed = self._prefixes.find(engine, ticket)
        row = first_row(ticket, route, self._lives, computed=computed, now=now)
        engine.add(row, ticket.life, prefill_only=route.prefill is not None)
        self._wake(engine, now)

    def _ask_again(self, life: int) -> None:
        """Places a request again after the loss of its engine, with its tokens to compute again."""
        given = int(self._lives[life, of.TOKENS])
        ticket = self._tickets[life] = replace(self._tickets[life], produced=given)
        self._waiting.append(ticket)
        self._to_decide = True

    # ---- steps

    def _wake(self, engine: SimEngine, now: float) -> None:
        if not engine.is_idle or not engine.alive:
            return
        if engine.begin(self._system.form, self._lives, now):
            self._timeline.at(engine.ends_s, self._end_step, engine)
        else:
            self._send(engine.name, now)  # evictions may have made room

    def _end_step(self, engine: SimEngine, now: float) -> None:
        """Ends a step of the engine, handles its finished requests, and begins the next step."""
        if engine.ends_s != now:  # it has died since
            return
        ended, moves = engine.end(self._lives, now + self._conditions.network_s)
        self._to_decide |= bool(ended or moves)
        for life in ended:
            self._end(engine, life)
        for life in moves:
            self._system.moved(engine, self._tickets[life])
            self._move_on(life, now)
        self._exports.step_ended(engine, now)
        self._send(engine.name, now)
        self._wake(engine, now)
        self._exports.idle(engine, now)

    def _stage_lateness(self, ticket: Ticket) -> float | None:
        life = self._lives[ticket.life]
        if ticket.call.pacing is Pacing.DEADLINES and math.isfinite(life[of.TTFT]):
            return 1.0 + float(life[of.WORST_LATE] / life[of.TTFT])
        if len(ticket.call.stages) < 2:
            return None
        return float(worst_pace_share(self._lives[[ticket.life]])[0])

    def _end(self, engine: SimEngine, life: int) -> None:
        ticket, got = self._tickets[life], self._lives[life]
        program, after = self._programs[life], ticket.call_number + 1
        tokens, last_s = int(got[of.TOKENS]), float(got[of.LAST])
        self._prefixes.keep(engine, ticket, ticket.call.prompt_tokens + tokens - 1)
        first_s, second_s = float(got[of.FIRST]), float(got[of.SECOND])
        moved = got[of.MOVED] > 0 and tokens > 1
        self._system.ended(
            Ended(
                ticket=ticket,
                tokens=tokens,
                placed_s=float(got[of.PLACED]) + self._conditions.decision_s,
                started_s=float(got[of.STARTED]) + self._conditions.network_s,
                first_s=first_s,
                last_s=last_s,
                moved_s=second_s - first_s if moved else None,
                recomputed=life in self._recomputed,
                stage_lateness=self._stage_lateness(ticket),
            )
        )
        if after < len(program.calls):
            comes_s = last_s + program.calls[after].after_s
            self._until_s = max(self._until_s, comes_s + self._conditions.drain_s)
            self._timeline.at(comes_s, self._come, program, after)

    # ---- KV on its way

    def _move_on(self, life: int, now: float) -> None:
        """Moves a request with a computed prompt to the engine that decodes it."""
        end = self._routes[life].decode
        if end in self._serving:
            self._for_room[end].append(life)
            self._send(end, now)
        else:
            self._release(life, now)
            self._pulled.pop(life, None)
            self._ask_again(life)

    def _send(self, end: str, now: float) -> None:
        """Starts transfers of requests that wait for room on this engine, promised ones first.

        The former reserves room for promised ones that still wait.
        """
        engine, waiting = self._serving[end], self._for_room[end]
        if not waiting:
            return
        promised = deque(life for life in waiting if self._routes[life].kind == PROMISED)
        line = promised or waiting.copy()
        while line and engine.free_blocks >= self._blocks_to_come(engine, line[0]):
            waiting.remove(line[0])
            self._move(engine, line.popleft(), now)
        engine.limits[SET_ASIDE] = sum(self._blocks_to_come(engine, life) for life in promised)

    def _blocks_to_come(self, engine: SimEngine, life: int) -> float:
        return engine.blocks_for(self._tickets[life].prompt_tokens + 1)

    def _move(self, engine: SimEngine, life: int, now: float) -> None:
        ticket, route = self._tickets[life], self._routes[life]
        pulls = route.prefill is None
        tokens = self._pulled.pop(life) if pulls else ticket.prompt_tokens
        source, arrives_s = self._source(life), now
        if source is None:  # it died: its tokens are computed here
            tokens = 0
            self._recomputed.add(life)
        else:
            begins_s = self._fetched_from_s(engine, now)
            own_tokens = self._prefixes.cached(engine, ticket) if pulls else 0
            arrives_s = self._links.move(
                source.name, engine.name, tokens - own_tokens, engine.hardware, begins_s
            )
            self._on_way[life] = engine, arrives_s
            self._fetched[life] = Fetched(
                ticket=ticket,
                source=source.name,
                tokens=tokens - own_tokens,
                seconds=arrives_s - begins_s,
                used=True,
            )
            self._lives[life, of.MOVED] += 0.0 if pulls else arrives_s - now
        if pulls:
            row = first_row(ticket, route, self._lives, computed=tokens, now=arrives_s)
        else:
            row = second_row(ticket, route, self._lives, computed=tokens, available_s=arrives_s)
        engine.add(row, life)
        self._timeline.at(arrives_s, self._arrive, life, engine)

    def _fetched_from_s(self, engine: SimEngine, now: float) -> float:
        waits = self._conditions.fetched_at_steps and not engine.is_idle
        return engine.ends_s if waits else now

    def _arrive(self, life: int, engine: SimEngine, now: float) -> None:
        if self._on_way.get(life) == (engine, now):
            del self._on_way[life]
            self._system.fetched(engine, self._fetched.pop(life))
            self._release(life, now)
        self._wake(engine, now)

    def _source(self, life: int) -> SimEngine | None:
        """The engine that computed its prompt or exported a prefix, if it still holds the KV."""
        route = self._routes[life]
        engine = self._serving.get(route.prefill or route.source or "")
        return engine if engine is not None and engine.has_lease(life) else None

    def _release(self, life: int, now: float) -> None:
        source = self._source(life)
        if source is not None:
            source.release(life)
            ticket = self._tickets[life]
            if self._routes[life].prefill is not None:
                self._prefixes.keep(source, ticket, ticket.prompt_tokens)
            self._wake(source, now)

    # ---- prefixes that are pulled

    def _exports_to(self, engine: SimEngine, ticket: Ticket, route: Route, now: float) -> bool:
        """Has the route's source export its cached prefix, if it has more than the engine."""
        source, life = self._serving.get(route.source or ""), ticket.life
        if source is None:
            return False
        if self._prefixes.cached(source, ticket) <= self._prefixes.cached(engine, ticket):
            self._system.moved(source, ticket)
            return False
        self._pulled[life] = min(route.pulled_tokens, self._prefixes.find(source, ticket))
        self._export_since_s[life] = now
        source.lend(life)
        self._exports.begin(source, life, route.export_limit_s, now)
        return True

    def _exported(self, source: SimEngine, life: int, now: float) -> None:
        self._tell_export(life, now, in_time=True)
        self._system.moved(source, self._tickets[life])
        self._move_on(life, now)

    def _compute_instead(self, source: SimEngine, life: int, now: float) -> None:
        """Has the engine compute a prefix that was not exported within its limit."""
        self._tell_export(life, now, in_time=False)
        del self._pulled[life]
        ticket, route = self._tickets[life], self._routes[life]
        if source.alive:
            self._system.moved(source, ticket)
            source.release(life)
        engine = self._serving.get(route.decode)
        if engine is None:
            self._ask_again(life)
        else:
            self._enter_engine(engine, ticket, route, now)

    def _tell_export(self, life: int, now: float, *, in_time: bool) -> None:
        seconds = now - self._export_since_s.pop(life)
        self._system.exported(self._tickets[life], seconds, now, in_time=in_time)

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
        for life in lost:
            self._pulled.pop(life, None)
            self._on_way.pop(life, None)
            self._fetched.pop(life, None)
            self._release(life, now)
            self._ask_again(life)
        self._exports.lost(engine, now)
        for life in [one for one in self._on_way if self._gives_kv(name, one)]:
            end, _ = self._on_way.pop(life)
            end.lose(life, now)
            self._recomputed.add(life)
            self._system.fetched(end, replace(self._fetched.pop(life), tokens=0, used=False))
            self._wake(end, now)

    def _gives_kv(self, name: str, life: int) -> bool:
        return name in (self._routes[life].prefill, self._routes[life].source)

    def _join(self, name: str, _: float) -> None:
        """Returns an engine to the fleet, empty."""
        engine = self._serving[name] = self._engines[name]
        engine.alive = True
        self._system.joined(engine)
        self._to_decide = True
