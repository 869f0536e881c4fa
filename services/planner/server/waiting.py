"""Answers the Place calls of one event loop by rounds of the waiting queue."""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from services.planner.admission.waiting_queue import Answer, Call, WaitingQueue
from shared.clock import Clock
from shared.requests import Placement, PlacementQuery

_LOG = logging.getLogger(__name__)


def _ignore(_: object) -> None: ...


@dataclass(slots=True)
class WaitingCalls:
    """Call `place` for every call and `ring` after anything that may make a round due, with `run`
    as a task beside them.

    Calls of the same turn of the event loop share a round. `answered` is called with every answer,
    `round_took` with the seconds of every round.
    """

    queue: WaitingQueue
    clock: Clock
    answered: Callable[[Answer], None] = _ignore
    round_took: Callable[[float], None] = _ignore
    _futures: dict[Call, asyncio.Future[Placement]] = field(default_factory=dict)
    _somebody: asyncio.Event = field(default_factory=asyncio.Event)
    _rung: bool = False

    async def place(self, query: PlacementQuery, limit_s: float) -> Placement:
        """Waits for the answer, at most `limit_s` or the queue's own limit, whichever is less.

        A cancelled call leaves the queue.
        """
        call = self.queue.enter(query, limit_s, self.clock.now())
        future: asyncio.Future[Placement] = asyncio.get_running_loop().create_future()
        self._futures[call] = future
        self.ring()
        try:
            return await future
        except asyncio.CancelledError:
            answer = future.result() if future.done() and not future.cancelled() else None
            self.queue.leave(call, answer, self.clock.now())
            raise
        finally:
            del self._futures[call]

    def ring(self) -> None:
        """Schedules a round for the loop's next turn where one is due; else `run` looks again."""
        if self._rung:
            return
        if self.queue.round_is_due:
            self._rung = True
            asyncio.get_running_loop().call_soon(self._decide)
        elif self.queue:
            self._somebody.set()

    async def run(self) -> None:
        """Ends calls that have waited their time and decides the others again, until cancelled."""
        while True:
            await self._somebody.wait()
            await self.clock.sleep(self.queue.numbers.pause_s)
            self._drop_cancelled()
            self._hand_out(self.queue.look_again(self.clock.now()))
            self._decide()
            if not self.queue:
                self._somebody.clear()

    def close(self) -> None:
        """Defers all calls, since the planner stops."""
        self._drop_cancelled()
        self._hand_out(self.queue.defer(until_s=math.inf, now=self.clock.now()))

    def _decide(self) -> None:
        self._rung = False
        if not self.queue.round_is_due:
            self.ring()
            return
        self._drop_cancelled()
        began_s, somebody_waits = self.clock.now(), len(self.queue) > 0
        try:
            self._hand_out(self.queue.decide(began_s))
        except Exception as error:  # noqa: BLE001 - else these calls would never be answered
            self._fail(error)
            return
        took_s = self.clock.now() - began_s
        self.queue.took(took_s)
        if somebody_waits:
            self.round_took(took_s)
        self.ring()

    def _drop_cancelled(self) -> None:
        """Removes cancelled calls now; their own clean-up runs in a later turn of the loop."""
        for call in [call for call, future in self._futures.items() if future.cancelled()]:
            self.queue.leave(call, None, self.clock.now())

    def _fail(self, error: Exception) -> None:
        calls = self.queue.fail()
        _LOG.exception("A round of %d requests could not be decided.", len(calls))
        for call in calls:
            self._futures[call].set_exception(error)

    def _hand_out(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            self.answered(answer)
            self._futures[answer.call].set_result(answer.placement)
