"""A request that waits for its decision, and what earlier rounds found for it."""

from dataclasses import dataclass, replace

from shared.requests import PlacementQuery


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferral:
    """What a round found for a request that it deferred.

    Attributes:
        takes_s: Seconds that its prompt takes of an engine.
        due_s: When its first token is due.
        latest_s: Placed later, it would be late even on an idle engine.
        looked_s: When a round last looked for a way.
        tried_s: When a round last found that it would be late without a promise; None: never.
        unpromised: It is to run without a promise, when its tenant's turn comes.
    """

    takes_s: float
    due_s: float
    latest_s: float
    looked_s: float
    tried_s: float | None = None
    unpromised: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRequest:
    """A request that waits for its decision. Times are on the planner's clock.

    `query.waited_s` is as of its last call. `arrived_at_s` is when the request came to its gateway,
    `first_asked_at_s` when it first came to the planner. `deferral` is from the last round that
    looked at it. `decision_id` is that of its record; a deferred request that asks again keeps its
    record.
    """

    query: PlacementQuery
    arrived_at_s: float
    first_asked_at_s: float
    deferral: Deferral | None = None
    decision_id: str = ""

    def as_of(self, now: float) -> "PendingRequest":
        """The request with `query.waited_s` as of `now`."""
        return replace(self, query=replace(self.query, waited_s=now - self.arrived_at_s))
