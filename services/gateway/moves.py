"""Moves of requests to another engine: their causes and their limits."""

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
    SILENT = "silent"  # it answers probes, but sent this request nothing for too long


class Unmoved(StrEnum):
    """Why a request ended with its engine."""

    INEXACT = "inexact"  # no other engine could continue its answer exactly
    LIMIT = "limit"  # it had moved as often as one request may
    BUDGET = "budget"  # the gateway's budget of moves was used up
    NOWHERE = "nowhere"  # no other engine took it


def cause_of(error: SlosError) -> Cause:
    """The cause of a move by one of the errors in MOVABLE."""
    if isinstance(error, EngineUnreachable):
        return Cause.UNREACHABLE
    if isinstance(error, EngineStalled):
        return Cause.STALLED
    if isinstance(error, EngineDraining):
        return Cause.DRAINING
    return Cause.SILENT if isinstance(error, DeadlinePassed) else Cause.LOST


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One move, after `after_tokens` tokens of the answer had been delivered."""

    cause: Cause
    engine: str
    after_tokens: int
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveLimits:
    """Limits that keep moves from becoming a storm.

    Attributes:
        most_per_request: Moves of one request; it may itself be what fails its engines.
        losses_per_request: Engines that may die under a request before the next loss ends it. A
            request that kills its engine would otherwise go through the fleet, and end the
            requests of each engine.
        share: Greatest share of the requests of the last `window_s` that moves.
        floor: Moves allowed in any case: all requests that one engine of a small fleet runs.
    """

    most_per_request: int = 3
    losses_per_request: int = 1
    share: float = 0.1
    floor: int = 64
    window_s: float = 60.0


@dataclass(slots=True)
class MoveBudget:
    """Counts requests and moves; both counts decay exponentially over `window_s`."""

    limits: MoveLimits = field(default_factory=MoveLimits)
    _requests: float = 0.0
    _moves: float = 0.0
    _at_s: float = -math.inf

    def placed(self, now: float) -> None:
        """Counts a new request."""
        self._fade(now)
        self._requests += 1

    def take(self, now: float) -> bool:
        """Whether one more request may move; if so, the move is counted."""
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
