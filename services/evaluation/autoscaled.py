"""A simulated fleet that follows the planner's desired engines. New engines take a while to start,
and removed ones finish their requests first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.evaluation.planned import Planned
from services.planner.scaling.fleet_size import FleetSize
from services.planner.scaling.numbers import ScalingNumbers
from services.planner.scaling.scaler import Scaler, answer
from shared.engines import Role
from shared.simulation.engine import SimEngine
from shared.simulation.record import Conditions
from shared.simulation.run import Run
from shared.workloads.calls import Load

_LOOKS_EVERY_S = 1.0  # between checks whether a leaving engine is empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Orchestrator:
    """Scales the fleet: it reads the planner's signal every `every_s`, and an engine that it starts
    attaches `start_s` later. `follows` false: it leaves the fleet as it is.
    """

    every_s: float = 10.0
    start_s: float = 60.0
    follows: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The desired engines at a time, and those that served or were starting."""

    at_s: float
    desired: FleetSize
    serving: FleetSize
    starting: FleetSize


@dataclass(slots=True)
class _Pool:
    """The engines of one role, by name and state."""

    spare: list[str] = field(default_factory=list)
    starting: list[str] = field(default_factory=list)
    serving: list[str] = field(default_factory=list)
    leaving: list[str] = field(default_factory=list)

    @property
    def wanted(self) -> int:
        return len(self.starting) + len(self.serving)


class AutoscaledRun(Run):
    """A run over `engines`, of which `start` serve from the beginning."""

    def __init__(
        self,
        load: Load,
        engines: Sequence[SimEngine],
        start: FleetSize,
        numbers: ScalingNumbers,
        orchestrator: Orchestrator,
        conditions: Conditions,
        system: Planned,
    ) -> None:
        super().__init__(load, system, engines, conditions)
        self._planned, self._orchestrator = system, orchestrator
        self._scaler = Scaler(numbers=numbers, started_at_s=0.0)
        self._pools = {role: _Pool() for role in Role}
        self._last_s = max(program.arrives_s for program in load)
        self.moments: list[Moment] = []
        self._fill(engines, start)
        self._state.timeline.at(orchestrator.every_s, self._scale)

    def _fill(self, engines: Sequence[SimEngine], start: FleetSize) -> None:
        most = {Role.PREFILL: start.prefill, Role.DECODE: start.decode}
        for engine in engines:
            pool = self._pools[engine.role]
            if len(pool.serving) < most[engine.role]:
                pool.serving.append(engine.name)
            else:
                pool.spare.append(engine.name)
                del self._state.serving[engine.name]

    def _scale(self, now: float) -> None:
        question = self._scaler.question(self._planned.state, now)
        if question is not None:
            self._scaler.take(question, answer(question), now)
        desired = self._scaler.size
        if desired is not None:
            self._note(desired, now)
            if self._orchestrator.follows:
                self._follow(Role.PREFILL, desired.prefill, now)
                self._follow(Role.DECODE, desired.decode, now)
        if now + self._orchestrator.every_s <= self._last_s:
            self._state.timeline.at(now + self._orchestrator.every_s, self._scale)

    def _note(self, desired: FleetSize, now: float) -> None:
        prefill, decode = self._pools[Role.PREFILL], self._pools[Role.DECODE]
        self.moments.append(
            Moment(
                at_s=now,
                desired=desired,
                serving=FleetSize(prefill=len(prefill.serving), decode=len(decode.serving)),
                starting=FleetSize(prefill=len(prefill.starting), decode=len(decode.starting)),
            )
        )

    def _follow(self, role: Role, desired: int, now: float) -> None:
        pool = self._pools[role]
        while pool.wanted < desired and pool.spare:
            name = pool.spare.pop(0)
            pool.starting.append(name)
            self._state.timeline.at(now + self._orchestrator.start_s, self._attach, role, name)
        while pool.wanted > desired and pool.starting:
            pool.spare.insert(0, pool.starting.pop())
        while pool.wanted > desired:
            name = pool.serving.pop()
            pool.leaving.append(name)
            self._planned.drain(name, now)
            self._state.timeline.at(now + _LOOKS_EVERY_S, self._retire, role, name)

    def _attach(self, role: Role, name: str, now: float) -> None:
        pool = self._pools[role]
        if name in pool.starting:  # false where the start was cancelled
            pool.starting.remove(name)
            pool.serving.append(name)
            self._join(name, now)

    def _retire(self, role: Role, name: str, now: float) -> None:
        """Removes an engine once it has neither requests nor KV that another engine will pull."""
        engine = self._engines[name]
        holds_kv = engine.leased_blocks or self._transfers.has_waiting(name)
        if len(engine.rows) or holds_kv or self._expected(name):
            self._state.timeline.at(now + _LOOKS_EVERY_S, self._retire, role, name)
            return
        self._die(name, now)
        pool = self._pools[role]
        pool.leaving.remove(name)
        pool.spare.append(name)

    def _expected(self, name: str) -> bool:
        state = self._planned.state.engines[name]
        return bool(state.unseen or state.seen)
