"""A circuit breaker per engine, driven by failed requests and by probes of silent engines."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from services.gateway.wait_limits import Patience
from shared.clock import Clock, within_ticks
from shared.errors import SlosError
from shared.requests import EngineRef
from shared.ticks import TICK_S

_LOG = logging.getLogger(__name__)

# Whether an engine answers and its core lives. Raises SlosError if it cannot be reached.
Probe = Callable[[EngineRef], Coroutine[Any, Any, bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthLimits:
    """Times are counted in ticks of this process, so that a starved machine stretches them.

    Attributes:
        quiet_s: Silence after which an engine is probed, while requests wait for it.
        answer_s: Time limit of a probe.
        failures: Failed requests in a row after which an engine is left out.
        first_back_off_s: How long it is left out at first; doubled with every failed trial.
        most_back_off_s: Upper limit of that time.
        trial_s: How long one request may try an engine that was left out, before another may.
    """

    quiet_s: float = 2.0
    answer_s: float = 2.0
    failures: int = 3
    first_back_off_s: float = 1.0
    most_back_off_s: float = 30.0
    trial_s: float = 10.0


@dataclass(slots=True, eq=False)
class _Engine:
    ref: EngineRef
    waits: set[Patience] = field(default_factory=set)
    quiet_ticks: int = 0
    failures: int = 0
    back_off_s: float = 0.0
    left_out_until_s: float | None = None  # None: it is not left out
    answered: bool = False  # a probe after that time
    trial_at_s: float | None = None
    asking: "asyncio.Task[None] | None" = None


class EngineHealth:
    """Ends waits for engines that do not answer, and leaves out engines that fail requests.

    An engine that is left out is probed after its back-off. When it answers, one request at a time
    tries it, and the first that it serves brings it back.
    """

    def __init__(self, probe: Probe, clock: Clock, limits: HealthLimits | None = None) -> None:
        self._probe = probe
        self._clock = clock
        self._limits = limits or HealthLimits()
        self._engines: dict[str, _Engine] = {}

    @contextmanager
    def waiting(self, ref: EngineRef, patience: Patience) -> Iterator[Callable[[], None]]:
        """Registers a wait for this engine; call the yielded function with every reply."""
        engine = self._of(ref)
        if not engine.waits:
            engine.quiet_ticks = 0
        engine.waits.add(patience)

        def heard() -> None:
            engine.quiet_ticks = 0
            patience.heard()

        try:
            yield heard
        finally:
            engine.waits.discard(patience)

    def served(self, ref: EngineRef) -> None:
        """Notes that the engine completed a request; it is no longer left out."""
        engine = self._engines.get(ref.engine_id)
        if engine is None:
            return
        if engine.left_out_until_s is not None:
            _LOG.info("Engine %s serves again.", ref.name)
        engine.failures, engine.back_off_s, engine.left_out_until_s = 0, 0.0, None

    def failed(self, ref: EngineRef, *, at_once: bool) -> None:
        """Notes a failed request. `at_once`: one failure suffices to leave the engine out."""
        engine = self._of(ref)
        engine.failures += 1
        if at_once or engine.left_out_until_s is not None or self._fails(engine):
            self._leave_out(engine)

    def avoided(self) -> tuple[str, ...]:
        """Ids of the engines to leave out of the next placement.

        An engine that is due for a trial is missing here once per `trial_s`.
        """
        now = self._clock.now()
        return tuple(one for one, engine in self._engines.items() if not self._open(engine, now))

    async def run(self) -> None:
        """Probes engines where needed, tick by tick, until cancelled."""
        try:
            while True:
                await self._clock.sleep(TICK_S)
                for engine in list(self._engines.values()):
                    self._tick(engine)
        finally:
            for engine in self._engines.values():
                if engine.asking is not None:
                    engine.asking.cancel()

    def prune(self, known: Collection[str]) -> None:
        """Forgets engines that are neither in `known` nor waited for."""
        for engine_id in [one for one in self._engines if one not in known]:
            if not self._engines[engine_id].waits:
                del self._engines[engine_id]

    def _of(self, ref: EngineRef) -> _Engine:
        return self._engines.setdefault(ref.engine_id, _Engine(ref))

    def _fails(self, engine: _Engine) -> bool:
        return engine.failures >= self._limits.failures

    def _leave_out(self, engine: _Engine) -> None:
        limits, now = self._limits, self._clock.now()
        if engine.left_out_until_s is None:
            _LOG.warning("Engine %s fails requests and is left out.", engine.ref.name)
        elif now < engine.left_out_until_s:
            return  # requests that fail together count as one failure
        engine.back_off_s = min(
            max(limits.first_back_off_s, 2 * engine.back_off_s), limits.most_back_off_s
        )
        engine.left_out_until_s = now + engine.back_off_s
        engine.answered, engine.trial_at_s = False, None

    def _open(self, engine: _Engine, now: float) -> bool:
        """Whether a request may go there; for an engine that was left out, that is its trial."""
        if engine.left_out_until_s is None:
            return True
        under_way = engine.trial_at_s is not None and now - engine.trial_at_s < self._limits.trial_s
        if not engine.answered or under_way:
            return False
        engine.trial_at_s = now
        return True

    def _tick(self, engine: _Engine) -> None:
        engine.quiet_ticks += 1
        if engine.asking is not None:
            return
        quiet = engine.quiet_ticks * TICK_S >= self._limits.quiet_s
        back_off_over = (
            engine.left_out_until_s is not None
            and not engine.answered
            and self._clock.now() >= engine.left_out_until_s
        )
        if (engine.waits and quiet) or back_off_over:
            engine.asking = asyncio.create_task(self._ask(engine))

    async def _ask(self, engine: _Engine) -> None:
        try:
            answers = await within_ticks(self._probe(engine.ref), self._limits.answer_s)
        except (TimeoutError, SlosError):
            answers = False
        finally:
            engine.asking = None
        if answers:
            engine.quiet_ticks, engine.answered = 0, True
            return
        self._leave_out(engine)
        for patience in list(engine.waits):
            patience.give_up()
