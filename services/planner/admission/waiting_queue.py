"""The queue of requests without a decision: when a round is due, and what it answers."""

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from services.planner.admission.pending import Deferral, PendingRequest
from services.planner.admission.placement import Decision
from shared.bounded import remember
from shared.requests import Admission, Placement, PlacementQuery

_MOST_DEFERRED: Final = 65_536


class Decides(Protocol):
    """Decides rounds and records decisions, as `decider.Decider` does."""

    def decide_round(
        self, asked: Sequence[PendingRequest], now: float
    ) -> Sequence[Decision | Deferral | None]:
        """As `rounds.decide_round`."""

    def commit(self, asked: PendingRequest, decision: Decision, now: float) -> Placement:
        """Records a decision; returns the placement to answer with."""

    def defer(self, asked: PendingRequest, so_far: Decision | None, now: float) -> Placement:
        """Records and returns the answer of a call that ends undecided."""

    def withdraw(self, placement: Placement, now: float) -> None:
        """Undoes a placement: its caller left before the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingLimits:
    """How long calls wait, in seconds.

    Attributes:
        hold_s: From a call to its answer at most; an undecided request is deferred then.
        pause_s: The least time from one round to the next that freed room asks for, if rounds take
            less than half of it.
        recheck_s: The most time between rounds while a request waits. A round comes sooner where
            a request can wait no longer.
    """

    hold_s: float = 0.5
    pause_s: float = 0.005
    recheck_s: float = 0.05


@dataclass(slots=True, eq=False)
class Call:
    """One waiting request. It is answered by `ends_at_s`, with `so_far` if no round decided it."""

    asked: PendingRequest
    ends_at_s: float
    so_far: Decision | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """The placement that ends a call. `waited_s` counts from the first call for the request."""

    call: Call
    placement: Placement
    waited_s: float


@dataclass(slots=True)
class WaitingQueue:
    """Waiting calls, in the order of their requests' first call.

    Call `enter` for every call, `freed` when an engine may have room again, `look_again` at the
    time of `next_look_s`, and `decide` whenever `round_is_due`. A deferred request that asks again
    keeps its place in the order and waits for the next round.
    """

    decider: Decides
    numbers: WaitingLimits
    round_is_due: bool = False
    _calls: dict[Call, None] = field(default_factory=dict)
    _deferred: OrderedDict[str, PendingRequest] = field(default_factory=OrderedDict)
    _freed: bool = False  # since the last round
    _last_round_s: float = -math.inf
    _recheck_at_s: float = -math.inf
    _took_s: float = 0.0
    _pause_s: float = 0.0  # from the beginning of a round to the next

    def __len__(self) -> int:
        """How many calls wait."""
        return len(self._calls)

    def enter(self, query: PlacementQuery, limit_s: float, now: float) -> Call:
        """Adds a call, to be answered within `limit_s` or `hold_s`, whichever is less."""
        asked = self._deferred.pop(query.request_id, None) or PendingRequest(
            query=query, arrived_at_s=now - query.waited_s, first_asked_at_s=now
        )
        ends_at_s = now + min(limit_s, self.numbers.hold_s)
        call = Call(asked=replace(asked, query=query), ends_at_s=ends_at_s)
        self._calls[call] = None
        if asked.deferral is None:
            self.round_is_due = True
        else:
            self._recheck_at_s = min(self._recheck_at_s, asked.deferral.latest_s)
        return call

    def leave(self, call: Call, answer: Placement | None, now: float) -> None:
        """Removes a call that its caller gave up; withdraws its `answer`, if there is one."""
        self._calls.pop(call, None)
        self._deferred.pop(call.asked.query.request_id, None)
        if answer is not None:
            self.decider.withdraw(answer, now)

    def fail(self) -> list[Call]:
        """Ends all calls without an answer, and returns them."""
        calls, self._calls = list(self._calls), {}
        return calls

    def freed(self, now: float) -> None:
        """Notes that an engine may have room; a round is due some time after the last one began."""
        if not self._calls:
            return
        self._freed = True
        if now - self._last_round_s >= max(self.numbers.pause_s, self._pause_s):
            self.round_is_due = True

    def next_look_s(self, now: float) -> float:
        """When to call `look_again`; infinite while no call waits."""
        if not self._calls:
            return math.inf
        soonest_s = now + self.numbers.pause_s
        return soonest_s if self._freed else max(soonest_s, self._recheck_at_s)

    def took(self, round_s: float) -> None:
        """Notes the time of the last round. Rounds that freed room or a recheck asks for take at
        most half of all time, so that reports and new calls do not wait behind them.

        The shorter of two rounds counts: a single slow one may be the machine's.
        """
        self._pause_s, self._took_s = 2 * min(round_s, self._took_s), round_s

    def look_again(self, now: float) -> list[Answer]:
        """Defers the calls that have waited their time; makes a round due where room was freed
        since the last one, or a recheck is due.
        """
        answers = self.defer(until_s=now, now=now)
        may_follow = now - self._last_round_s >= self._pause_s
        if (self._freed and may_follow) or now >= self._recheck_at_s:
            self.round_is_due = True
        return answers

    def defer(self, *, until_s: float, now: float) -> list[Answer]:
        """Defers the calls that end by `until_s`; each keeps its place for its next call."""
        answers = []
        for call in self._in_order():
            if call.ends_at_s <= until_s:
                asked = call.asked.as_of(now)
                placement = self.decider.defer(asked, call.so_far, now)
                kept = replace(asked, decision_id=placement.decision_id)
                remember(self._deferred, asked.query.request_id, kept, _MOST_DEFERRED)
                answers.append(self._answer(call, placement, now))
        return answers

    def decide(self, now: float) -> Iterator[Answer]:
        """Decides one round over all calls. Yields each answer as it is recorded, so that none is
        lost where a later one fails. Another round is due at once where only some were decided.
        """
        self.round_is_due = self._freed = False
        calls = self._in_order()
        if not calls:
            return
        self._last_round_s = now
        decisions = self.decider.decide_round([call.asked for call in calls], now)
        pause_s = max(self.numbers.recheck_s, self._pause_s)
        for call, decision in zip(calls, decisions, strict=True):
            if isinstance(decision, Decision):
                if decision.placement.admission is not Admission.DEFERRED:
                    placement = self.decider.commit(call.asked.as_of(now), decision, now)
                    yield self._answer(call, placement, now)
                    continue
                call.so_far = decision
                pause_s = min(pause_s, _hold_s(decision))
            elif decision is not None:
                if decision is not call.asked.deferral:
                    call.asked = replace(call.asked, deferral=decision)
                pause_s = min(pause_s, max(0.0, decision.latest_s - now))
        self._recheck_at_s = now + pause_s
        self.round_is_due = 0 < len(self._calls) < len(calls)

    def _answer(self, call: Call, placement: Placement, now: float) -> Answer:
        del self._calls[call]
        waited_s = now - call.asked.first_asked_at_s
        return Answer(call=call, placement=placement, waited_s=waited_s)

    def _in_order(self) -> list[Call]:
        return sorted(self._calls, key=lambda call: call.asked.first_asked_at_s)


def _hold_s(decision: Decision) -> float:
    held_s = decision.placement.hold_s
    return math.inf if held_s is None else held_s
