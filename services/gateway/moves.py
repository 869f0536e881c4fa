"""Requests that go on on another engine: why, how often, and how many at most. Pure."""

import math
from dataclasses import dataclass, field
from enum import StrEnum

from shared.errors import (
    DeadlinePassed,
    EngineDraining,
    EngineLost,
    EngineStalled,
    EngineUnreachable,
    SlosError,
)

MOVABLE = (EngineLost, EngineDraining, DeadlinePassed)


class Cause(StrEnum):
    """Why a request left its engine."""

    LOST = "lost"  # its stream broke: the engine died, or failed the request
    UNREACHABLE = "unreachable"
    STALLED = "stalled"  # it made no progress, or did not answer when asked
    DRAINING = "draining"
    SILENT = "silent"  # it answers, and gave this request nothing for too long


class Unmoved(StrEnum):
    """Why a request ended with its engine."""

    INEXACT = "inexact"  # its answer could not go on as it would have
    LIMIT = "limit"  # it had moved as often as one request may
    BUDGET = "budget"  # as much of the load had moved as may
    NOWHERE = "nowhere"  # no other engine took it


def cause_of(error: SlosError) -> Cause:
    """Of one of MOVABLE."""
    if isinstance(error, EngineUnreachable):
        return Cause.UNREACHABLE
    if isinstance(error, EngineStalled):
        return Cause.STALLED
    if isinstance(error, EngineDraining):
        return Cause.DRAINING
    return Cause.SILENT if isinstance(error, DeadlinePassed) else Cause.LOST


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One move. `after_tokens` are those that the client had."""

    cause: Cause
    engine: str
    after_tokens: int
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveLimits:
    """What keeps moves from becoming a storm.

    Attributes:
        most_per_request: A request that several engines failed may be what fails them.
        losses_per_request: So many engines may die under a request before the next one ends it. One
            that kills its engine would otherwise go through the fleet, and take the requests of
            each engine with it.
        share: Of the load of the last `window_s`, at most so much is moved.
        floor: So many may move in any case: all that one engine of a small fleet runs.
    """

    most_per_request: int = 3
    losses_per_request: int = 1
    share: float = 0.1
    floor: int = 64
    window_s: float = 60.0


@dataclass(slots=True)
class MoveBudget:
    """Counts requests and moves of about the last window; both fade with time."""

    limits: MoveLimits = field(default_factory=MoveLimits)
    _requests: float = 0.0
    _moves: float = 0.0
    _at_s: float = -math.inf

    def placed(self, now: float) -> None:
        """A request came."""
        self._fade(now)
        self._requests += 1

    def take(self, now: float) -> bool:
        """Whether one more may move; it is counted then."""
        self._fade(now)
        if self._moves + 1 > max(self.limits.floor, self.limits.share * self._requests):
            return False
        self._moves += 1
        return True

    def _fade(self, now: float) -> None:
        kept = math.exp(min(0.0, self._at_s - now) / self.limits.window_s)
        self._requests *= kept
        self._moves *= kept
        self._at_s = now
