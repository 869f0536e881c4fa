"""Moves KV between the engines of a run: computed prompts, and cached prefixes that are pulled."""

from collections import deque
from dataclasses import dataclass, replace
from typing import Protocol

from shared.scheduling.rows import PROMISED
from shared.scheduling.shares import SET_ASIDE
from shared.simulation.engine import SimEngine
from shared.simulation.exports import Exports
from shared.simulation.links import Links
from shared.simulation.request_metrics import MOVED
from shared.simulation.rows_of import first_row, second_row
from shared.simulation.run_state import RunState
from shared.simulation.system import Fetched, Route, SimRequest


class Placing(Protocol):
    """What a transfer asks of its run."""

    def wake(self, engine: SimEngine, now: float) -> None:
        """Begins a step of an engine that has none."""

    def compute(self, engine: SimEngine, index: int, now: float) -> None:
        """Adds a request to the engine that computes its prompt."""

    def place_again(self, index: int) -> None:
        """Asks for another route of a request whose engine is gone."""


@dataclass(frozen=True, slots=True)
class _Arriving:
    """KV on its way to an engine, and what the system hears of it on its arrival."""

    engine: SimEngine
    arrives_s: float
    fetched: Fetched


class Transfers:
    """The KV transfers of a run.

    Attributes:
        recomputed: Indexes of the requests whose KV did not arrive.
    """

    def __init__(self, state: RunState, run: Placing) -> None:
        self.recomputed: set[int] = set()
        self._state, self._run = state, run
        self._for_room: dict[str, deque[int]] = {name: deque() for name in state.serving}
        self._arriving: dict[int, _Arriving] = {}  # by index of the request
        self._pulled: dict[int, int] = {}  # tokens of exported prefixes, by index of the request
        self._export_since_s: dict[int, float] = {}  # by index of the request
        self._links = Links()
        self._exports = Exports(state.timeline, ready=self._exported, given_up=self._compute)

    # ---- computed prompts

    def move_on(self, index: int, now: float) -> None:
        """Moves a request with a computed prompt to the engine that decodes it."""
        end = self._state.routes[index].decode
        if end in self._state.serving:
            self._for_room[end].append(index)
            self.send(end, now)
        else:
            self._release(index, now)
            self._pulled.pop(index, None)
            self._run.place_again(index)

    def send(self, end: str, now: float) -> None:
        """Starts transfers of requests that wait for room on this engine, promised ones first.

        The former reserves room for promised ones that still wait.
        """
        engine, waiting = self._state.serving[end], self._for_room[end]
        if not waiting:
            return
        promised = deque(one for one in waiting if self._state.routes[one].kind == PROMISED)
        line = promised or waiting.copy()
        while line and engine.free_blocks >= self._blocks_to_come(engine, line[0]):
            waiting.remove(line[0])
            self._move(engine, line.popleft(), now)
        engine.limits[SET_ASIDE] = sum(self._blocks_to_come(engine, one) for one in promised)

    def has_waiting(self, end: str) -> bool:
        """Whether requests wait for room on this engine."""
        return bool(self._for_room[end])

    def _blocks_to_come(self, engine: SimEngine, index: int) -> float:
        return engine.blocks_for(self._state.requests[index].prompt_tokens + 1)

    def _move(self, engine: SimEngine, index: int, now: float) -> None:
        request, route = self._state.requests[index], self._state.routes[index]
        metrics = self._state.metrics
        pulls = route.prefill is None
        tokens = self._pulled.pop(index) if pulls else request.prompt_tokens
        source, arrives_s = self._source(index), now
        if source is None:  # it died: its tokens are computed here
            tokens = 0
            self.recomputed.add(index)
        else:
            arrives_s = self._transfer(engine, source, request, tokens, now)
        if pulls:
            row = first_row(request, route, metrics, computed=tokens, now=arrives_s)
        else:
            row = second_row(request, route, metrics, computed=tokens, available_s=arrives_s)
        engine.add(row, index)
        self._state.timeline.at(arrives_s, self._arrive, index, engine)

    def _transfer(
        self, engine: SimEngine, source: SimEngine, request: SimRequest, tokens: int, now: float
    ) -> float:
        """Starts a transfer of `tokens`, less those that the engine has; returns its end."""
        pulls = self._state.routes[request.index].prefill is None
        begins_s = self._fetched_from_s(engine, now)
        tokens -= self._state.prefixes.cached(engine, request) if pulls else 0
        arrives_s = self._links.move(source.name, engine.name, tokens, engine.hardware, begins_s)
        fetched = Fetched(
            request=request,
            source=source.name,
            tokens=tokens,
            seconds=arrives_s - begins_s,
            used=True,
        )
        self._arriving[request.index] = _Arriving(engine, arrives_s, fetched)
        self._state.metrics[request.index, MOVED] += 0.0 if pulls else arrives_s - now
        return arrives_s

    def _fetched_from_s(self, engine: SimEngine, now: float) -> float:
        waits = self._state.conditions.fetched_at_steps and not engine.is_idle
        return engine.ends_s if waits else now

    def _arrive(self, index: int, engine: SimEngine, now: float) -> None:
        arriving = self._arriving.get(index)
        if arriving is not None and (arriving.engine, arriving.arrives_s) == (engine, now):
            del self._arriving[index]
            self._state.system.fetched(engine, arriving.fetched)
            self._release(index, now)
        self._run.wake(engine, now)

    def _source(self, index: int) -> SimEngine | None:
        """The engine that computed its prompt or exported a prefix, if it still holds the KV."""
        route = self._state.routes[index]
        engine = self._state.serving.get(route.prefill or route.source or "")
        return engine if engine is not None and engine.has_lease(index) else None

    def _release(self, index: int, now: float) -> None:
        source = self._source(index)
        if source is not None:
            source.release(index)
            request = self._state.requests[index]
            if self._state.routes[index].prefill is not None:
                self._state.prefixes.keep(source, request, request.prompt_tokens)
            self._run.wake(source, now)

    # ---- prefixes that are pulled

    def export(self, engine: SimEngine, request: SimRequest, route: Route, now: float) -> bool:
        """Has the route's source export its cached prefix, if it has more than the engine."""
        prefixes = self._state.prefixes
        source, index = self._state.serving.get(route.source or ""), request.index
        if source is None:
            return False
        if prefixes.cached(source, request) <= prefixes.cached(engine, request):
            self._state.system.moved(source, request)
            return False
        self._pulled[index] = min(route.pulled_tokens, prefixes.find(source, request))
        self._export_since_s[index] = now
        source.lend(index)
        self._exports.begin(source, index, route.export_limit_s, now)
        return True

    def step_ended(self, engine: SimEngine, now: float) -> None:
        """Counts a step of the engine for its exports."""
        self._exports.step_ended(engine, now)

    def idle(self, engine: SimEngine, now: float) -> None:
        """Ends the exports of the engine if it has no step."""
        self._exports.idle(engine, now)

    def _exported(self, source: SimEngine, index: int, now: float) -> None:
        self._tell_export(index, now, in_time=True)
        self._state.system.moved(source, self._state.requests[index])
        self.move_on(index, now)

    def _compute(self, source: SimEngine, index: int, now: float) -> None:
        """Has the engine compute a prefix that was not exported within its limit."""
        self._tell_export(index, now, in_time=False)
        del self._pulled[index]
        if source.alive:
            self._state.system.moved(source, self._state.requests[index])
            source.release(index)
        engine = self._state.serving.get(self._state.routes[index].decode)
        if engine is None:
            self._run.place_again(index)
        else:
            self._run.compute(engine, index, now)

    def _tell_export(self, index: int, now: float, *, in_time: bool) -> None:
        seconds = now - self._export_since_s.pop(index)
        request = self._state.requests[index]
        self._state.system.exported(request, seconds, now, in_time=in_time)

    # ---- engines that die

    def take_waiting(self, name: str) -> list[int]:
        """Takes out the requests that wait for room on an engine; returns their indexes."""
        waited = list(self._for_room[name])
        self._for_room[name].clear()
        return waited

    def drop(self, index: int, now: float) -> None:
        """Ends what a request that lost its engine had under way."""
        self._pulled.pop(index, None)
        self._arriving.pop(index, None)
        self._release(index, now)

    def lose_source(self, engine: SimEngine, now: float) -> None:
        """Gives up the transfers and exports from an engine that has died."""
        self._exports.lost(engine, now)
        for index in [one for one in self._arriving if self._gives_kv(engine.name, one)]:
            arriving = self._arriving.pop(index)
            arriving.engine.lose(index, now)
            self.recomputed.add(index)
            lost = replace(arriving.fetched, tokens=0, used=False)
            self._state.system.fetched(arriving.engine, lost)
            self._run.wake(arriving.engine, now)

    def _gives_kv(self, name: str, index: int) -> bool:
        route = self._state.routes[index]
        return name in (route.prefill, route.source)
