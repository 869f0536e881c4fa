"""Place calls that wait for a decision: one room, decided together. It decides nothing itself and
knows no gRPC.
"""

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from services.planner.placement import Decision
from services.planner.rounds import Asked, Held
from shared.bounded import remember
from shared.clock import Clock
from shared.requests import Admission, Placement, PlacementQuery

_LOG = logging.getLogger(__name__)
_KEPT_PLACES = 65_536


class Decider(Protocol):
    """Who decides in rounds and keeps the books."""

    def decide_round(self, asked: Sequence[Asked], now: float) -> Sequence[Decision | Held | None]:
        """As `rounds.decide_round`."""

    def commit(self, asked: Asked, decision: Decision, now: float) -> Placement:
        """Takes a decision into the books; the placement to answer with."""

    def put_off(self, asked: Asked, so_far: Decision | None, now: float) -> Placement:
        """The answer for one whose call has to end undecided."""

    def withdraw(self, placement: Placement) -> None:
        """Nobody was there any more to take this answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingNumbers:
    """`hold_s` is how long a call waits for its decision, `pause_s` the least time between rounds
    for what became free, `recheck_s` the most between rounds while a request is held. A round comes
    sooner where one can wait no longer.
    """

    hold_s: float = 0.5
    pause_s: float = 0.005
    recheck_s: float = 0.05


@dataclass(slots=True, eq=False)
class _Call:
    asked: Asked
    ends_at_s: float
    answer: asyncio.Future[Placement]
    so_far: Decision | None = None


@dataclass(slots=True)
class WaitingRoom:
    """`place` for every call, `freed` when there is room again, `run` beside them all the time.

    Calls that come in the same turn of the event loop are decided in one round. Who was put off and
    asks again keeps the place in the order, and waits for the next round.
    """

    decider: Decider
    clock: Clock
    numbers: WaitingNumbers
    _calls: dict[_Call, None] = field(default_factory=dict)
    _places: OrderedDict[str, Asked] = field(default_factory=OrderedDict)
    _somebody: asyncio.Event = field(default_factory=asyncio.Event)
    _round_is_due: bool = False
    _freed: bool = False
    _last_round_s: float = -1.0
    _recheck_at_s: float = 0.0

    def __len__(self) -> int:
        """How many calls wait."""
        return len(self._calls)

    async def place(self, query: PlacementQuery, limit_s: float) -> Placement:
        """The answer within `limit_s` or the room's own limit, whichever is less.

        It leaves the room when cancelled.
        """
        call = self._enter(query, limit_s)
        try:
            return await call.answer
        except asyncio.CancelledError:
            self._places.pop(query.request_id, None)
            if call.answer.done() and not call.answer.cancelled():
                self.decider.withdraw(call.answer.result())
            raise
        finally:
            del self._calls[call]

    def freed(self) -> None:
        """There may be room for one that waits."""
        if not self._calls:
            return
        self._freed = True
        if self.clock.now() - self._last_round_s >= self.numbers.pause_s:
            self._ring()

    async def run(self) -> None:
        """Ends calls whose time is up and looks at the held ones again, until cancelled."""
        while True:
            await self._somebody.wait()
            await self.clock.sleep(self.numbers.pause_s)
            now = self.clock.now()
            self._put_off(until_s=now)
            if self._freed or now >= self._recheck_at_s:
                self._decide()
            if not self._calls:
                self._somebody.clear()

    def close(self) -> None:
        """Puts off everybody: the planner stops."""
        self._put_off(until_s=math.inf)

    def _enter(self, query: PlacementQuery, limit_s: float) -> _Call:
        now = self.clock.now()
        asked = self._places.pop(query.request_id, None) or Asked(
            query=query, arrived_at_s=now - query.waited_s, first_asked_at_s=now
        )
        call = _Call(
            asked=replace(asked, query=query),
            ends_at_s=now + min(limit_s, self.numbers.hold_s),
            answer=asyncio.get_running_loop().create_future(),
        )
        self._calls[call] = None
        self._somebody.set()
        if asked.held is None:
            self._ring()
        else:  # it goes on waiting
            self._recheck_at_s = min(self._recheck_at_s, asked.held.latest_s)
        return call

    def _ring(self) -> None:
        if not self._round_is_due:
            self._round_is_due = True
            asyncio.get_running_loop().call_soon(self._decide)

    def _waiting(self) -> list[_Call]:
        calls = (call for call in self._calls if not call.answer.done())
        return sorted(calls, key=lambda call: call.asked.first_asked_at_s)

    def _decide(self) -> None:
        self._round_is_due = self._freed = False
        calls = self._waiting()
        if not calls:
            return
        now = self._last_round_s = self.clock.now()
        try:
            self._round(calls, now)
        except Exception as error:  # noqa: BLE001 - else all of them would wait for nothing
            _LOG.exception("A round of %d requests could not be decided.", len(calls))
            for call in self._waiting():
                call.answer.set_exception(error)

    def _round(self, calls: Sequence[_Call], now: float) -> None:
        asked = [_as_of(call.asked, now) for call in calls]
        decisions = self.decider.decide_round(asked, now)
        pause_s, held = self.numbers.recheck_s, 0
        for call, one, decision in zip(calls, asked, decisions, strict=True):
            if isinstance(decision, Decision):
                if decision.placement.admission is not Admission.DEFERRED:
                    call.answer.set_result(self.decider.commit(one, decision, now))
                    continue
                call.so_far = decision
                pause_s = min(pause_s, _hold_s(decision))
            elif decision is not None:
                call.asked = replace(call.asked, held=decision)
                pause_s = min(pause_s, max(0.0, decision.latest_s - now))
            held += 1
        self._recheck_at_s = now + pause_s
        if 0 < held < len(calls):
            self._ring()

    def _put_off(self, *, until_s: float) -> None:
        now = self.clock.now()
        for call in self._waiting():
            if call.ends_at_s <= until_s:
                asked = _as_of(call.asked, now)
                placement = self.decider.put_off(asked, call.so_far, now)
                kept = replace(asked, decision_id=placement.decision_id)
                remember(self._places, asked.query.request_id, kept, _KEPT_PLACES)
                call.answer.set_result(placement)


def _as_of(asked: Asked, now: float) -> Asked:
    """Time goes on while it waits."""
    return replace(asked, query=replace(asked.query, waited_s=now - asked.arrived_at_s))


def _hold_s(decision: Decision) -> float:
    held_s = decision.placement.hold_s
    return math.inf if held_s is None else held_s
