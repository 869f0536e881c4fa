"""The gRPC service and the simulator are adapters of one planner core: one recorded sequence of
events gives the same decisions and policies through both.

The sequence is that of a simulated run, with an engine that is lost and comes back and one that
drains. After each event the rounds that are due are decided, in both.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from services.evaluation import planned
from services.evaluation.planned import Planned, Settings
from services.planner.admission.waiting_queue import Answer
from services.planner.core import PlannerCore
from services.planner.server.metrics import PlannerMetrics
from services.planner.server.service import PlannerService
from services.planner.state.cluster import ClusterState
from services.planner.state.engine_state import EngineState
from shared.batch_time.table import FloatArray
from shared.engines import EngineDescription, Policy, StepReport
from shared.requests import Admission, OnRefuse, Outcome, Placement, PlacementQuery, PrefixExport
from shared.rpc import codec
from shared.rpc import slos_pb2 as pb
from shared.scheduling.shares import Tokens
from shared.simulation.engine import SimEngine
from shared.simulation.record import Conditions, Outage
from shared.simulation.run import Run
from shared.simulation.system import Ended, Fetched, Refusal, Route, SimRequest
from tests.unit.shared.simulation.fleet import NOISE, drafting, fleet, hardware, random_load

_TURNS = 40  # of the event loop, in which all that one event leads to has happened


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the planner hears of: `what` names the call of the core, `body` is its
    argument, on the wire where there is one.
    """

    at_s: float
    what: str
    engine: str = ""
    body: Any = None


@dataclass(slots=True)
class Played:
    """What came of the events: placements in the order of their answers, policies by engine."""

    placements: list[Placement] = field(default_factory=list)
    policies: dict[str, list[Policy]] = field(default_factory=dict)

    def answered(self, placement: Placement) -> None:
        self.placements.append(codec.placement_from_wire(codec.placement_to_wire(placement)))

    def told(self, engine: str, policy: Policy) -> None:
        wire = codec.policy_from_wire(codec.policy_to_wire(policy))
        self.policies.setdefault(engine, []).append(replace(wire, version=0))


class RecordingCore(PlannerCore):
    """Notes what its adapter calls, and what comes of it."""

    events: list[Event]
    played: Played

    def place(
        self, queries: Sequence[PlacementQuery], now: float, *, limit_s: float
    ) -> list[Answer]:
        wires = [codec.query_to_wire(query) for query in queries]
        self.events.append(Event(now, "place", body=wires))
        return self._answered(super().place(queries, now, limit_s=limit_s))

    def look_again(self, now: float) -> list[Answer]:
        self.events.append(Event(now, "look_again"))
        return self._answered(super().look_again(now))

    def settle(self, outcomes: Sequence[Outcome], now: float) -> None:
        wire = pb.SettleRequest(outcomes=[codec.outcome_to_wire(one) for one in outcomes])
        self.events.append(Event(now, "settle", body=wire))
        super().settle(outcomes, now)

    def exported(self, exports: Sequence[PrefixExport], now: float) -> None:
        wire = pb.SettleRequest(exports=[codec.export_to_wire(one) for one in exports])
        self.events.append(Event(now, "settle", body=wire))
        super().exported(exports, now)

    def register(
        self, description: EngineDescription, now: float
    ) -> tuple[EngineState | None, str]:
        wire = codec.description_to_wire(description)
        self.events.append(Event(now, "register", description.name, wire))
        return super().register(description, now)

    def leave(self, engine: EngineState, now: float) -> None:
        self.events.append(Event(now, "leave", engine.name))
        super().leave(engine, now)

    def observe(
        self, engine: EngineState, reports: Sequence[StepReport], now: float
    ) -> Policy | None:
        wire = pb.StepReports(reports=[codec.report_to_wire(one) for one in reports])
        self.events.append(Event(now, "observe", engine.name, wire))
        policy = super().observe(engine, reports, now)
        if policy is not None:
            self.played.told(engine.name, policy)
        return policy

    def drain(self, engine: EngineState, now: float, *, draining: bool) -> None:
        self.events.append(Event(now, "drain", engine.name, draining))
        super().drain(engine, now, draining=draining)

    def _answered(self, answers: list[Answer]) -> list[Answer]:
        for answer in answers:
            self.played.answered(answer.placement)
        return answers


class EverySecondRunsAnyway(Planned):
    """Every second request runs without a promise where it can have none."""

    def _query(self, request: SimRequest) -> PlacementQuery:
        query = super()._query(request)
        on_refuse = OnRefuse.BEST_EFFORT if request.index % 2 else OnRefuse.REFUSE
        return replace(query, targets=replace(query.targets, on_refuse=on_refuse))


class EventByEvent:
    """A system that has the planner decide after each event, as the service does."""

    def __init__(self, inner: Planned) -> None:
        self.inner = inner
        self._waiting: list[SimRequest] = []
        self._early: dict[int, Route | Refusal] = {}  # answers that the run has not asked for yet

    @property
    def recheck_s(self) -> float:
        return self.inner.recheck_s

    def observe(self, engines: Mapping[str, SimEngine], now: float) -> None:
        for name, engine in engines.items():
            self.inner.observe({name: engine}, now)
            self._decide(now)

    def place(self, waiting: Sequence[SimRequest], now: float) -> list[Route | Refusal | None]:
        self._waiting = [one for one in waiting if one.index not in self._early]
        self._decide(now)
        return [self._early.pop(one.index, None) for one in waiting]

    def form(self, engine: SimEngine, tokens: Tokens, counts: FloatArray, now: float) -> float:
        formed = self.inner.form(engine, tokens, counts, now)
        self._decide(now)
        return formed

    def moved(self, engine: SimEngine, request: SimRequest) -> None:
        self.inner.moved(engine, request)

    def fetched(self, engine: SimEngine, fetched: Fetched) -> None:
        self.inner.fetched(engine, fetched)

    def exported(self, request: SimRequest, seconds: float, now: float, *, in_time: bool) -> None:
        self.inner.exported(request, seconds, now, in_time=in_time)
        self._decide(now)

    def ended(self, ended: Ended) -> None:
        self.inner.ended(ended)
        self._decide(ended.last_s)

    def lost(self, engine: SimEngine, now: float) -> None:
        self.inner.lost(engine, now)
        self._decide(now)

    def joined(self, engine: SimEngine, now: float) -> None:
        self.inner.joined(engine, now)

    def drain(self, name: str, now: float) -> None:
        self.inner.drain(name, now)
        self._decide(now)

    def _decide(self, now: float) -> None:
        waiting, still = self._waiting, []
        for request, answer in zip(waiting, self.inner.place(waiting, now), strict=True):
            if answer is None:
                still.append(request)
            else:
                self._early[request.index] = answer
        self._waiting = still


class RecordedClock:
    """Shows the time of the event that is played. What sleeps wakes up when it is woken."""

    def __init__(self) -> None:
        self.at_s = 0.0
        self.woken = asyncio.Event()

    def now(self) -> float:
        return self.at_s

    async def sleep(self, seconds: float) -> None:  # noqa: ARG002 - a Clock
        self.woken.clear()
        await self.woken.wait()


@dataclass(slots=True, eq=False)
class Stream:
    """An engine's side of `Attach`, and the context that the service writes to."""

    name: str
    played: Played
    messages: "asyncio.Queue[pb.EngineMessage | None]" = field(default_factory=asyncio.Queue)
    accepted: bool = False

    async def __aiter__(self) -> AsyncIterator[pb.EngineMessage]:
        while (message := await self.messages.get()) is not None:
            yield message

    async def write(self, message: pb.PlannerMessage) -> None:
        if message.WhichOneof("kind") == "verdict":
            self.accepted = message.verdict.accepted
        elif message.policy.version > 1:  # the first leaves the engine its limits
            self.played.told(self.name, codec.policy_from_wire(message.policy))

    def peer(self) -> str:
        return self.name


class Caller:
    """The context of a call without a limit."""

    def time_remaining(self) -> None:
        return None


class Served:
    """Plays events to the service, without sockets."""

    def __init__(self, state: ClusterState) -> None:
        self.clock, self.played = RecordedClock(), Played()
        self.service = PlannerService(
            state, PlannerMetrics(), self.clock, registration_limit_s=60.0
        )
        self._streams: dict[str, Stream] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def play(self, events: Sequence[Event]) -> Played:
        running = asyncio.create_task(self.service.waiting.run())
        await self._act()
        for event in events:
            self.clock.at_s = event.at_s
            getattr(self, f"_{event.what}")(event)
            await self._act()
        for task in (running, *self._tasks):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await running
        return self.played

    async def _act(self) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()

    def _place(self, event: Event) -> None:
        for query in event.body:
            self._start(self._placed(query))

    async def _placed(self, query: pb.PlacementQuery) -> None:
        context: Any = Caller()
        placement = await self.service.Place(query, context)
        self.played.answered(codec.placement_from_wire(placement))

    def _look_again(self, event: Event) -> None:
        del event
        self.clock.woken.set()

    def _settle(self, event: Event) -> None:
        context: Any = Caller()
        self._start(self.service.Settle(event.body, context))

    def _register(self, event: Event) -> None:
        stream = self._streams[event.engine] = Stream(event.engine, self.played)
        stream.messages.put_nowait(pb.EngineMessage(registration=event.body))
        context: Any = stream
        self._start(self.service.Attach(aiter(stream), context))

    def _leave(self, event: Event) -> None:
        self._streams[event.engine].messages.put_nowait(None)

    def _observe(self, event: Event) -> None:
        self._streams[event.engine].messages.put_nowait(pb.EngineMessage(reports=event.body))

    def _drain(self, event: Event) -> None:
        self._streams[event.engine].messages.put_nowait(pb.EngineMessage(draining=event.body))


def recorded(
    monkeypatch: pytest.MonkeyPatch, decode: int, prefill: int, seed: int
) -> tuple[list[Event], Played, ClusterState]:
    """The events of a run with more requests than its engines can serve in time, what came of them
    in the simulator, and a planner that knows nothing yet.
    """
    RecordingCore.events, RecordingCore.played = [], Played()
    monkeypatch.setattr(planned, "PlannerCore", RecordingCore)
    machine = drafting(hardware(noise=NOISE, kv_blocks=120, max_running_requests=4))
    engines = fleet(machine, decode, prefill, seed=3)
    load = tuple(replace(one, arrives_s=one.arrives_s / 8) for one in random_load(seed, 80))
    system = EventByEvent(EverySecondRunsAnyway(Settings(), engines))
    outages = (Outage(engine="d0", from_s=0.3, until_s=1.4),)
    run = Run(load, system, engines, Conditions(network_s=0.0, outages=outages))
    run._state.timeline.at(2.0, lambda now: system.drain(engines[-1].name, now))
    run.record()
    numbers = system.inner.state.numbers
    return RecordingCore.events, RecordingCore.played, ClusterState(numbers, epoch="s", now=0.0)


@pytest.mark.parametrize(("decode", "prefill", "seed"), [(2, 0, 3), (1, 1, 3), (2, 0, 5)])
async def test_both_adapters_decide_alike_and_tell_engines_alike(
    monkeypatch: pytest.MonkeyPatch, decode: int, prefill: int, seed: int
) -> None:
    events, simulated, state = recorded(monkeypatch, decode, prefill, seed)

    served = await Served(state).play(events)

    kinds = {"register", "observe", "place", "look_again", "settle", "leave", "drain"}
    assert {event.what for event in events} == kinds
    assert {placement.admission for placement in simulated.placements} == set(Admission)
    assert len(simulated.policies) == decode + prefill
    assert any(placement.prefill for placement in simulated.placements) is (prefill > 0)
    assert served.placements == simulated.placements
    assert served.policies == simulated.policies
