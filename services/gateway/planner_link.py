"""Asks the planner for placements, and places requests without it while it is unreachable."""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

from services.gateway.scope import SequenceRecord, enter
from shared.clock import Clock
from shared.engines import EngineView, Role
from shared.errors import NoEngine, PlannerUnavailable, Refused
from shared.requests import (
    Admission,
    EngineRef,
    Outcome,
    Phase,
    Placement,
    PlacementQuery,
    PrefixExport,
    Reason,
)

_LOG = logging.getLogger(__name__)
LEAST_RETRY_S: Final = 0.1
_PATIENCE_AWAY: Final = 0.1


class Planner(Protocol):
    """The planner's calls; they raise PlannerUnavailable if it cannot be reached."""

    async def place(self, query: PlacementQuery, limit_s: float) -> Placement: ...

    async def settle(
        self, outcomes: Sequence[Outcome], exports: Sequence[PrefixExport]
    ) -> None: ...

    def watch(self) -> AsyncIterator[list[EngineView]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerLimits:
    """`hold_limit_s` limits how long a deferred request waits in all, from its arrival, beyond its
    TTFT target if it has one; it must exceed the planner's `patience_s`.

    `place_s` must exceed the time for which the planner keeps a request in its call (its `hold_s`).
    """

    place_s: float = 2.0
    hold_limit_s: float = 90.0
    least_hold_s: float = 0.01
    settle_every_s: float = 0.2
    unsettled_outcomes: int = 10_000
    first_retry_s: float = 0.2
    last_retry_s: float = 2.0


class PlannerLink:
    """Asks the planner, and chooses engines itself while the planner is unreachable.

    `in_flight` counts this gateway's own requests by engine id.
    """

    def __init__(
        self,
        planner: Planner,
        clock: Clock,
        limits: PlannerLimits,
        in_flight: Callable[[], Mapping[str, int]],
    ) -> None:
        self._planner = planner
        self._clock = clock
        self._limits = limits
        self._in_flight = in_flight
        self._views: list[EngineView] | None = None
        self._unsettled: deque[Outcome] = deque(maxlen=limits.unsettled_outcomes)
        self._exports: deque[PrefixExport] = deque(maxlen=limits.unsettled_outcomes)
        self._local_ids = itertools.count(1)
        self._away = False

    @property
    def engines(self) -> list[EngineView]:
        """The engines of the last view, draining ones included."""
        return self._views or []

    def check(self) -> None:
        """Raises NoEngine or PlannerUnavailable when no request could be served now."""
        usable(self._views)

    async def place(
        self,
        query: Callable[[float], PlacementQuery],
        record: SequenceRecord,
        arrived_at_s: float,
        *,
        held_from_s: float | None = None,
    ) -> Placement:
        """A placement that runs, also stored in `record`; `query` takes the seconds waited so far.

        A deferred request waits and asks again, for its TTFT target and `hold_limit_s` from its
        arrival or from `held_from_s`. Raises Refused, NoEngine or PlannerUnavailable.
        """
        held_from_s = arrived_at_s if held_from_s is None else held_from_s
        while True:
            now = self._clock.now()
            placement = await self._ask(query(now - arrived_at_s))
            record.placement = placement
            if placement.runs:
                record.placed_at_s = self._clock.now()
                return placement
            asked_for_s = self._clock.now() - now
            hold_s = self._hold_s(placement, self._clock.now() - held_from_s, asked_for_s)
            if hold_s > 0:
                enter(record, Phase.HELD)
                await self._clock.sleep(hold_s)
                enter(record, Phase.PLACING)

    def settle(self, outcome: Outcome) -> None:
        """Queues an outcome for the planner; beyond `unsettled_outcomes`, some are dropped."""
        self._unsettled.append(outcome)

    def exported(self, export: PrefixExport) -> None:
        """Queues what became of an export; it is sent once, since it is of use while it is new."""
        self._exports.append(export)

    async def settle_now(self) -> None:
        """Sends all that is queued to the planner. Raises only CancelledError."""
        batch, exports = list(self._unsettled), list(self._exports)
        self._unsettled.clear()
        self._exports.clear()
        if not (batch or exports):
            return
        try:
            await self._planner.settle(batch, exports)
        except (PlannerUnavailable, asyncio.CancelledError) as error:
            self._unsettled.extendleft(reversed(batch))  # beyond its length, the newest are dropped
            if isinstance(error, asyncio.CancelledError):
                raise
        except Exception:  # noqa: BLE001 - one bad batch must not stop later ones
            _LOG.exception("Outcomes of %d requests could not be sent", len(batch))

    async def run(self) -> None:
        """Follows the planner's views and sends outcomes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            tasks.create_task(self._settle())

    async def _ask(self, query: PlacementQuery) -> Placement:
        try:
            placement = await self._planner.place(query, self._patience_s)
        except PlannerUnavailable as error:
            self._away = True
            views = usable(self._views, str(error))
            preferred = [one for one in views if one.description.engine_id not in query.avoid]
            return place_alone(
                preferred or views, self._in_flight(), f"local-{next(self._local_ids)}"
            )
        self._away = False
        return placement

    @property
    def _patience_s(self) -> float:
        """Seconds allowed for a call; fewer after a failure, since a working planner is quick."""
        return self._limits.place_s * (_PATIENCE_AWAY if self._away else 1.0)

    def _hold_s(self, placement: Placement, waited_s: float, asked_for_s: float) -> float:
        """Seconds to wait before asking again. Raises Refused or NoEngine if not to wait.

        The planner keeps deferred requests in its call; that time counts toward `least_hold_s`.
        """
        if placement.admission is not Admission.DEFERRED:
            raise refusal(placement)
        hold_s = max(placement.hold_s or 0.0, self._limits.least_hold_s - asked_for_s)
        limit_s = (placement.ttft_s or 0.0) + self._limits.hold_limit_s
        if waited_s + hold_s > limit_s:
            raise Refused(
                f"The request was held for {waited_s:.3g} s and did not find its place within "
                f"the {limit_s:.3g} s that the gateway holds one; send it again "
                f"later. {placement.message}".rstrip(),
                reason=placement.reason.value,
                decision_id=placement.decision_id,
                retry_after_s=placement.retry_after_s or max(hold_s, LEAST_RETRY_S),
            )
        return hold_s

    async def _watch(self) -> None:
        retry_s = self._limits.first_retry_s
        while True:
            try:
                # It is a generator and so can be closed, which its annotation cannot say.
                async with aclosing(self._planner.watch()) as views:  # type: ignore[type-var]
                    async for view in views:
                        self._views = view
                        retry_s = self._limits.first_retry_s
            except PlannerUnavailable as error:
                first = retry_s == self._limits.first_retry_s
                _LOG.log(logging.WARNING if first else logging.DEBUG, "%s Asking again.", error)
            except Exception:  # noqa: BLE001 - whatever it sent, the last view still serves
                _LOG.exception(
                    "The planner's view is not understood; asking again in %g s", retry_s
                )
            await self._clock.sleep(retry_s)
            retry_s = min(2 * retry_s, self._limits.last_retry_s)

    async def _settle(self) -> None:
        while True:
            await self._clock.sleep(self._limits.settle_every_s)
            await self.settle_now()


def refusal(placement: Placement) -> Refused | NoEngine:
    """The error for a placement that does not run."""
    message = placement.message or "The planner refused the request."
    if placement.reason is Reason.NO_ENGINE:
        return NoEngine(message)
    return Refused(
        message,
        reason=placement.reason.value,
        decision_id=placement.decision_id,
        retry_after_s=placement.retry_after_s,
    )


def usable(views: list[EngineView] | None, why: str = "") -> list[EngineView]:
    """The engines that take requests. Raises PlannerUnavailable or NoEngine when none is known."""
    if views is None:
        raise PlannerUnavailable(f"The planner has shown no engines yet; try again soon. {why}")
    able = [view for view in views if view.serves]
    if not able:
        raise NoEngine("No engine is attached that takes requests; try again soon.")
    return able


def place_alone(
    views: list[EngineView], in_flight: Mapping[str, int], decision_id: str
) -> Placement:
    """Co-located on the decode engine with the fewest of our own requests, without a promise."""
    return Placement(
        decision_id=decision_id,
        admission=Admission.BEST_EFFORT,
        reason=Reason.PLANNER_AWAY,
        message="The planner is away: the gateway chose the engine, without a promise.",
        decode=least_loaded(views, in_flight),
    )


def least_loaded(views: list[EngineView], in_flight: Mapping[str, int]) -> EngineRef:
    """The decode engine with the fewest of our own requests; any engine where none decodes."""

    def load(view: EngineView) -> tuple[bool, int, str]:
        engine = view.description
        return engine.role is not Role.DECODE, in_flight.get(engine.engine_id, 0), engine.name

    engine = min(views, key=load).description
    return EngineRef(name=engine.name, engine_id=engine.engine_id, address=engine.address)
