"""Our system in the simulator: the production planner and step former, connected by what gRPC would
carry.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.evaluation.engine_reports import description_of
from services.evaluation.engine_side import Attached
from services.evaluation.gateway_side import Wants, moved_outcome, outcome_of, query_of, route_of
from services.evaluation.scaled_lengths import ScaledLengths, ScaledSurvival
from services.planner.admission.waiting_queue import Answer
from services.planner.advice import ADVICE_PAUSE_S
from services.planner.core import PlannerCore
from services.planner.planner_config import PlannerConfig
from services.planner.state.cluster import ClusterState
from shared.batch_time.table import FloatArray
from shared.engine.step_times import StepTimes
from shared.engines import Role
from shared.hardware import saved_profile
from shared.requests import Placement, PlacementMode, PlacementQuery, PrefixExport
from shared.scheduling.expired import settle_expired
from shared.scheduling.kernel import form
from shared.scheduling.shares import MAX_TOKENS, Tokens
from shared.simulation.engine import SimEngine
from shared.simulation.system import Ended, Fetched, Refusal, Route, SimRequest

_TIDY_EVERY_S: Final = 1.0
_ROUNDING_S: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What ablations switch off or misconfigure.

    `best_effort`: requests that get no promise run all the same. `max_step_tokens` 0: the engine's
    own. `round_robin`: each request may run on one decode engine only, in turn. `way`: the only one
    that is allowed. `length_factor`: answers are taken to be so many times as long as those of
    their class were. `knows_prefixes`: queries have the hashes of prompts. `names_sessions`: calls
    of one program name their session. `pulls_prefixes`: cached prefixes are pulled from other
    engines where that is faster than to compute them.
    """

    speculation: bool = True
    best_effort: bool = True
    admission_dp: bool = True
    same_pace_first: bool = True
    max_step_tokens: int = 0
    round_robin: bool = False
    way: PlacementMode | None = None
    length_factor: float = 1.0
    knows_prefixes: bool = True
    names_sessions: bool = True
    pulls_prefixes: bool = False


class Planned:
    """A `System` over one `PlannerCore`. Engines know their tables. With a `profile` (a fit as
    plain data) they start from it and keep learning from their steps, as real ones do.
    """

    def __init__(
        self,
        settings: Settings,
        engines: Sequence[SimEngine],
        *,
        profile: Mapping[str, Any] | None = None,
    ) -> None:
        link = engines[0].hardware
        numbers = PlannerConfig(
            kv_bytes_per_second=link.link_bytes_per_s,
            kv_fixed_s=link.link_latency_s,
            admission_dp=settings.admission_dp,
            same_pace_first=settings.same_pace_first,
            pull_prefixes=settings.pulls_prefixes,
        )
        self.state = ClusterState(numbers, epoch="s", now=0.0)
        self.state.lengths = ScaledLengths(settings.length_factor)
        self.state.survival = ScaledSurvival(settings.length_factor)
        self._now = 0.0
        self._core = PlannerCore(self.state, epoch_s=lambda: self._now)
        self._settings = settings
        self._wants = Wants(
            best_effort=settings.best_effort,
            way=settings.way,
            most_tokens=link.max_model_len_tokens,
            prefixes=settings.knows_prefixes,
            sessions=settings.names_sessions,
        )
        self._profile = profile
        self._engines: Mapping[str, SimEngine] = {}  # the engines that serve
        self._attached: dict[str, Attached] = {}
        self._waiting: dict[str, SimRequest] = {}  # in the planner's queue, by request id
        self._placed: dict[int, Placement] = {}  # by index of the request
        self._classes: dict[int, str] = {}  # by index
        self._moves: dict[int, int] = {}  # how often it lost an engine
        self._look_at_s = math.inf
        self._tidied_s = 0.0
        for engine in engines:
            self.joined(engine, self._now)

    @classmethod
    def learning(cls, settings: Settings, engines: Sequence[SimEngine]) -> "Planned":
        """Over engines that start from the profile of their hardware, which is the same for all."""
        return cls(settings, engines, profile=saved_profile(engines[0].hardware))

    # ---- gateways

    @property
    def recheck_s(self) -> float:
        """Seconds until the planner's queue is due for a look, or until an engine reports the end
        of a step, which may make room for a waiting request.
        """
        ends_s = (one.ends_s for one in self._engines.values() if one.ends_s > self._now)
        return min(self._look_at_s, min(ends_s, default=math.inf)) - self._now

    def place(self, waiting: Sequence[SimRequest], now: float) -> list[Route | Refusal | None]:
        """Asks for all new requests, and again for deferred ones that are due; returns the
        decisions made by now.
        """
        self._now, core = now, self._core
        looks = now >= self._look_at_s - _ROUNDING_S
        deferred = [self._waiting[_name(one)] for one in (core.look_again(now) if looks else ())]
        new = [request for request in waiting if request.name not in self._waiting]
        answers = [*self._ask(new, now), *self._ask(deferred, now)]
        self._look_at_s = core.waiting.next_look_s(now)
        found = {_name(one): self._take(self._waiting.pop(_name(one)), one) for one in answers}
        return [found.get(request.name) for request in waiting]

    def _ask(self, requests: Sequence[SimRequest], now: float) -> list[Answer]:
        for request in requests:
            self._settle_moved(request, now)
            self._waiting[request.name] = request
        return self._core.place([self._query(one) for one in requests], now, limit_s=math.inf)

    def _query(self, request: SimRequest) -> PlacementQuery:
        avoid = self._others_turn(request) if self._settings.round_robin else ()
        return query_of(request, self._wants, self._now, avoid=avoid)

    def _others_turn(self, request: SimRequest) -> list[str]:
        """Ids of all decode engines but the one that is next in turn."""
        fleet = [engine.description for engine in self.state.engines.values()]
        ids = [one.engine_id for one in fleet if one.role is Role.DECODE]
        turn = request.index % max(1, len(ids))
        return [*ids[:turn], *ids[turn + 1 :]]

    def _take(self, request: SimRequest, answer: Answer) -> Route | Refusal:
        placement, targets = answer.placement, answer.call.asked.query.targets
        if placement.decode is None:
            return Refusal(retry_after_s=placement.retry_after_s)
        self._placed[request.index] = placement
        self._classes[request.index] = request.call.class_name
        return route_of(placement, targets)

    def _settle_moved(self, request: SimRequest, now: float) -> None:
        """Settles the earlier decision of a request that has lost its engine."""
        placement = self._placed.pop(request.index, None)
        if placement is not None:
            moves = self._moves[request.index] = self._moves.get(request.index, 0) + 1
            outcome = moved_outcome(request, placement.decision_id, moves - 1)
            self._core.settle([outcome], now)

    def exported(self, request: SimRequest, seconds: float, now: float, *, in_time: bool) -> None:
        """The gateway tells what became of an export."""
        placement = self._placed.get(request.index)
        if placement is not None:
            export = PrefixExport(
                decision_id=placement.decision_id, seconds=seconds, exported=in_time
            )
            self._core.exported([export], now)

    def ended(self, ended: Ended) -> None:
        """The gateway settles the request, and its engine reports it as finished."""
        index = ended.request.index
        placement, moves = self._placed.pop(index), self._moves.pop(index, 0)
        del self._classes[index]
        engine = self._attached.get(placement.decode.name) if placement.decode else None
        if engine is not None:
            engine.finished.append(ended.request.name)
        outcome = outcome_of(ended, placement.decision_id, moves)
        self._core.settle([outcome], ended.last_s)

    # ---- engines

    def observe(self, engines: Mapping[str, SimEngine], now: float) -> None:
        """Lets engines report when a step has begun or ended, or a request has come or left."""
        self._engines = engines
        for engine in engines.values():
            if self._attached[engine.name].has_news(engine):
                self._report(engine, now)
        if now - self._tidied_s >= _TIDY_EVERY_S:
            self._tidied_s = now
            self._core.tidy(now)

    def form(self, engine: SimEngine, tokens: Tokens, counts: FloatArray, now: float) -> float:
        """Does what the scheduler inside vLLM does: policy, drafts, then the step former."""
        attached = self._attached[engine.name]
        attached.learn(engine, now)
        if now - attached.told_at_s >= ADVICE_PAUSE_S:  # the planner looks no more often
            self._report(engine, now)
        rows, table = engine.rows, engine.table.numbers
        if engine.hardware.draft is not None and self._settings.speculation:
            attached.draft(engine, self._classes)
        settle_expired(rows, table, now)
        return float(form(rows, tokens, counts, table, engine.limits, now))

    def moved(self, engine: SimEngine, request: SimRequest) -> None:
        """Notes the request as finished for the engine's next report."""
        self._attached[engine.name].finished.append(request.name)

    def fetched(self, engine: SimEngine, fetched: Fetched) -> None:
        """Notes the transfer for the engine's next report."""
        self._attached[engine.name].fetched(fetched, engine.hardware.kv_bytes_per_token)

    def lost(self, engine: SimEngine, now: float) -> None:
        """Detaches an engine after the end of its stream."""
        self._core.leave(self._attached.pop(engine.name).state, now)

    def drain(self, name: str, now: float) -> None:
        """Lets the engine take no more requests."""
        self._core.drain(self._attached[name].state, now, draining=True)

    def joined(self, engine: SimEngine, now: float) -> None:
        """Registers an engine, with the step times of its profile."""
        speculates = self._settings.speculation
        description = description_of(engine, speculates=speculates)
        state, refusal = self._core.register(description, now)
        assert state is not None, refusal
        attached = self._attached[engine.name] = Attached(state)
        most_tokens = self._settings.max_step_tokens or engine.hardware.max_step_tokens
        engine.limits[MAX_TOKENS] = state.limits[MAX_TOKENS] = most_tokens
        if self._profile is not None:
            attached.times = StepTimes()
            attached.times.start_from(self._profile)

    def _report(self, engine: SimEngine, now: float) -> None:
        attached = self._attached[engine.name]
        policy = self._core.observe(attached.state, [attached.report(engine, now)], now)
        if policy is not None:
            attached.obey(policy, engine)


def _name(answer: Answer) -> str:
    return answer.call.asked.query.request_id
