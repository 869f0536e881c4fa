"""The run of a load through a system on virtual time. Decides nothing: who goes where and who gets
tokens is the system's.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shared.scheduling.rows import BEST_EFFORT, new_row
from shared.simulation.engine import SimEngine
from shared.simulation.links import Links
from shared.simulation.lives import (
    ACCEPTANCE,
    ADMISSION,
    ADMITTED,
    ARRIVES,
    CHANGES_AT,
    FIRST,
    LAST,
    LATER_PACE,
    MOVED,
    OUTPUT,
    PACE,
    PLACED,
    REFUSED,
    TOKENS,
    TTFT,
    Lives,
    new_lives,
)
from shared.simulation.lives import BEST_EFFORT as BEST_EFFORT_LIFE
from shared.simulation.system import Ended, No, Route, System, Ticket
from shared.simulation.zero_load import first_token_s
from shared.workloads.calls import Call, Load, Program


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """An engine dies at `from_s` and is back at `until_s`."""

    engine: str
    from_s: float
    until_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What the run goes through beside its load. `network_s` is one way between any two parts,
    `decision_s` what a round of decisions takes; `drain_s` is how long after the last arrival
    those that are still open are waited for.
    """

    network_s: float = 0.0005
    decision_s: float = 0.001
    drain_s: float = 120.0
    outages: tuple[Outage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """What a run left behind. `tickets` and `lives` go together."""

    tickets: tuple[Ticket, ...]
    lives: Lives
    routes: dict[int, Route]
    engines: tuple[SimEngine, ...]
    ended_s: float


# Looks on, now and then; True: what it wanted to know is known, and the run may end.
Watch = Callable[[Sequence[Ticket], Lives, float], bool]


@dataclass(order=True, slots=True)
class _Event:
    at_s: float
    number: int
    happens: Callable[[float], None] = field(compare=False)


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
        self._tickets: list[Ticket] = []
        self._programs: list[Program] = []  # by life
        self._lives = new_lives(sum(len(program.calls) for program in load))
        self._routes: dict[int, Route] = {}
        self._waiting: list[Ticket] = []
        self._moving: dict[str, list[int]] = {name: [] for name in self._engines}
        self._links = Links()
        self._events: list[_Event] = []
        self._numbers = 0
        self._to_decide = False
        self._recheck_s = math.inf
        self._now = 0.0

    def record(self) -> Record:
        """Runs until everybody is served or refused, the time to drain is over, or the watch has
        seen enough.
        """
        for program in self._load:
            self._at(program.arrives_s, _come(self, program, 0))
        for outage in self._conditions.outages:
            self._at(outage.from_s, _die(self, outage.engine))
            if outage.until_s < math.inf:
                self._at(outage.until_s, _return(self, outage.engine))
        last_s = max((program.arrives_s for program in self._load), default=0.0)
        self._live(last_s + self._conditions.drain_s)
        return Record(
            tickets=tuple(self._tickets),
            lives=self._lives[: len(self._tickets)],
            routes=self._routes,
            engines=tuple(self._engines.values()),
            ended_s=self._now,
        )

    # ---- time

    def _at(self, at_s: float, happens: Callable[[float], None]) -> None:
        self._numbers += 1
        heapq.heappush(self._events, _Event(at_s, self._numbers, happens))

    def _live(self, until_s: float) -> None:
        while self._events and self._events[0].at_s <= until_s:
            self._now = now = self._events[0].at_s
            while self._events and self._events[0].at_s <= now:
                heapq.heappop(self._events).happens(now)
            if self._waiting and (self._to_decide or now >= self._recheck_s):
                self._decide(now)
            if self._watch and self._watch(self._tickets, self._lives[: len(self._tickets)], now):
                return

    def _decide(self, now: float) -> None:
        self._to_decide = False
        asked = self._waiting
        answers = self._system.place(asked, self._serving, now)
        self._waiting = [
            ticket for ticket, route in zip(asked, answers, strict=True) if route is None
        ]
        reaches_s = now + self._conditions.decision_s + self._conditions.network_s
        for ticket, route in zip(asked, answers, strict=True):
            if isinstance(route, Route):
                self._place(ticket, route, reaches_s, now)
            elif isinstance(route, No):
                self._lives[ticket.life, [ADMISSION, PLACED]] = REFUSED, now
        if self._waiting:
            self._recheck_s = now + self._system.recheck_s
            self._at(self._recheck_s, lambda _: None)

    # ---- requests

    def come(self, program: Program, number: int, now: float) -> None:
        """A call of a program reaches the gateway."""
        call, life = program.calls[number], len(self._tickets)
        ttft_s = self._ttft_s(call)
        ticket = Ticket(
            life=life,
            call=call,
            program_id=program.program_id,
            round=number,
            arrives_s=now,
            ttft_s=ttft_s,
        )
        self._tickets.append(ticket)
        self._programs.append(program)
        _want(self._lives, ticket)
        self._waiting.append(ticket)
        self._to_decide = True

    def _ttft_s(self, call: Call) -> float:
        """The same in seconds for every system: a slowdown is one of this hardware's own time."""
        if call.ttft_s is not None:
            return call.ttft_s
        if call.ttft_slowdown is None:
            return math.inf
        hardware = next(iter(self._engines.values())).hardware
        return call.ttft_slowdown * first_token_s(hardware, call.prompt_tokens)

    def _place(self, ticket: Ticket, route: Route, reaches_s: float, now: float) -> None:
        kind = BEST_EFFORT_LIFE if route.kind == BEST_EFFORT else ADMITTED
        self._lives[ticket.life, ADMISSION] = kind
        self._lives[ticket.life, PLACED] = now
        self._routes[ticket.life] = route
        first = route.prefill or route.decode
        self._at(reaches_s, lambda at_s: self._reach(ticket, route, first, at_s))

    def _reach(self, ticket: Ticket, route: Route, name: str, now: float) -> None:
        engine = self._serving.get(name)
        if engine is None:
            self._ask_again(ticket)
            return
        hit = min(_cached(engine, ticket), ticket.prompt_tokens - 1)
        split = route.prefill is not None
        row = new_row(
            key=route.key,
            tokens=ticket.prompt_tokens,
            computed=hit - hit % engine.hardware.block_size_tokens,
            produced=ticket.produced,
            left=1 if split else ticket.call.max_output_tokens - ticket.produced,
            due_s=self._due_s(ticket),
            tpot_s=math.inf if split else self._pace_s(ticket.life),
            ttft_s=ticket.ttft_s,
            kind=route.kind,
            available_s=now,
        )
        engine.add(row, ticket.life, prefill_only=split)
        self._wake(engine, now)

    def _due_s(self, ticket: Ticket) -> float:
        if not ticket.produced:
            return ticket.arrives_s + ticket.ttft_s
        return float(self._lives[ticket.life, LAST]) + self._pace_s(ticket.life)

    def _pace_s(self, life: int) -> float:
        row = self._lives[life]
        return float(row[PACE] if row[TOKENS] < row[CHANGES_AT] else row[LATER_PACE])

    def _ask_again(self, ticket: Ticket) -> None:
        """Its engine is gone: it is placed anew, with what it has given so far to compute again."""
        given = int(self._lives[ticket.life, TOKENS])
        again = Ticket(
            life=ticket.life,
            call=ticket.call,
            program_id=ticket.program_id,
            round=ticket.round,
            arrives_s=ticket.arrives_s,
            ttft_s=ticket.ttft_s,
            produced=given,
        )
        self._waiting.append(again)
        self._to_decide = True

    # ---- steps

    def _wake(self, engine: SimEngine, now: float) -> None:
        if engine.is_idle and engine.alive and engine.begin(self._system.form, self._lives, now):
            self._at(engine.ends_s, _end_step(self, engine, engine.ends_s))

    def end_step(self, engine: SimEngine, now: float) -> None:
        """A step of the engine is over: who is done goes, and the next one begins."""
        ended, moves = engine.end(self._lives)
        for life in ended.tolist():
            self._end(engine, life, now)
        for life in moves.tolist():
            end = self._routes[life].decode
            self._moving[end].append(life)
            self._send(end, now)
        if len(ended):
            self._to_decide = True
            self._send(engine.name, now)
        self._wake(engine, now)

    def _end(self, engine: SimEngine, life: int, now: float) -> None:
        ticket, got = self._tickets[life], self._lives[life]
        program, after = self._programs[life], ticket.round + 1
        if ticket.call.prefix_group is not None:
            engine.cache.keep(ticket.call.prefix_group, ticket.call.prompt_tokens)
        elif after < len(program.calls):
            engine.cache.keep(ticket.program_id, ticket.call.prompt_tokens + int(got[OUTPUT]) - 1)
        ended = Ended(
            ticket=ticket,
            tokens=int(got[TOKENS]),
            first_s=float(got[FIRST]),
            last_s=float(got[LAST]),
            moved_s=float(got[MOVED]),
        )
        self._system.ended(ended)
        if after < len(program.calls):
            comes_s = now + program.calls[after].after_s
            self._at(comes_s, _come(self, program, after))

    # ---- KV on its way

    def _send(self, end: str, now: float) -> None:
        """Those that wait for room on this engine, in order, as far as there is room."""
        engine = self._serving.get(end)
        while engine is not None and self._moving[end]:
            life = self._moving[end][0]
            tokens = self._tickets[life].prompt_tokens
            if engine.free_blocks < math.ceil((tokens + 1) / engine.hardware.block_size_tokens):
                return
            self._moving[end].pop(0)
            self._move(engine, life, now)

    def _move(self, engine: SimEngine, life: int, now: float) -> None:
        ticket, route, got = self._tickets[life], self._routes[life], self._lives[life]
        assert route.prefill is not None
        tokens = ticket.prompt_tokens
        arrives_s = self._links.move(route.prefill, engine.name, tokens, engine.hardware, now)
        got[MOVED] = arrives_s - now
        row = new_row(
            key=route.key,
            tokens=tokens + 1,
            computed=tokens,
            produced=1,
            left=ticket.call.max_output_tokens - 1,
            due_s=float(got[FIRST]) + self._pace_s(life),
            tpot_s=self._pace_s(life),
            kind=route.kind,
            available_s=arrives_s,
        )
        engine.add(row, life)
        self._at(arrives_s, lambda at_s: self._arrived(route.prefill, engine, tokens, at_s))

    def _arrived(self, start: str | None, engine: SimEngine, tokens: int, now: float) -> None:
        source = self._serving.get(start or "")
        if source is not None:
            blocks = math.ceil(tokens / source.hardware.block_size_tokens)
            source.leased_blocks = max(0.0, source.leased_blocks - blocks)
            self._wake(source, now)
        self._wake(engine, now)

    # ---- engines that die

    def die(self, name: str, now: float) -> None:
        """What was on the engine is placed anew."""
        engine = self._serving.pop(name, None)
        if engine is None:
            return
        self._system.lost(engine, now)
        lost = [*engine.clear().tolist(), *self._moving[name]]
        self._moving[name].clear()
        for life in lost:
            self._ask_again(self._tickets[life])

    def join(self, name: str) -> None:
        """The engine is back, empty."""
        engine = self._engines[name]
        engine.alive = True
        self._serving[name] = engine
        self._system.joined(engine)
        self._to_decide = True


def _cached(engine: SimEngine, ticket: Ticket) -> int:
    """Tokens of its prompt that this engine still has. What a program left there is its own from
    now on, what many share stays.
    """
    call = ticket.call
    if not call.prefix_tokens:
        return 0
    if call.prefix_group is not None:
        return min(call.prefix_tokens, engine.cache.tokens(call.prefix_group))
    return min(call.prefix_tokens, engine.cache.take(ticket.program_id))


def _come(run: Run, program: Program, number: int) -> Callable[[float], None]:
    return lambda now: run.come(program, number, now)


def _end_step(run: Run, engine: SimEngine, ends_s: float) -> Callable[[float], None]:
    """Nothing where the engine has died since."""

    def end(now: float) -> None:
        if engine.ends_s == ends_s:
            run.end_step(engine, now)

    return end


def _die(run: Run, name: str) -> Callable[[float], None]:
    return lambda now: run.die(name, now)


def _return(run: Run, name: str) -> Callable[[float], None]:
    return lambda _: run.join(name)


def _want(lives: Lives, ticket: Ticket) -> None:
    call, life = ticket.call, lives[ticket.life]
    life[ARRIVES], life[TTFT] = ticket.arrives_s, ticket.ttft_s
    life[OUTPUT], life[ACCEPTANCE] = call.output_tokens, call.acceptance
    life[PACE] = call.stages[0].tpot_s
    life[LATER_PACE] = call.stages[-1].tpot_s
    life[CHANGES_AT] = call.stages[0].output_tokens
