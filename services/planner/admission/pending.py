"""A request that waits for its decision, and what is known of it from earlier rounds."""

from dataclasses import dataclass

from shared.requests import PlacementQuery


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Of a request that waits, what need not be found out again: its prompt takes `takes_s` of an
    engine and is due at `due_s`; placed soon after `latest_s` it would be late on an idle engine.
    `looked_s` is when a way was last looked for; `unpromised`: it is to run without a promise, when
    its tenant's turn comes.
    """

    takes_s: float
    due_s: float
    latest_s: float
    looked_s: float
    unpromised: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that waits for its decision. Times are on the planner's clock.

    `query.waited_s` holds for the moment of the round; `arrived_at_s` is when the request came to
    its gateway, `first_asked_at_s` when the planner first heard of it. `held` is what the round
    before answered. `decision_id` is that of its record so far: one that is put off and asks again
    has one record.
    """

    query: PlacementQuery
    arrived_at_s: float
    first_asked_at_s: float
    held: Held | None = None
    decision_id: str = ""
