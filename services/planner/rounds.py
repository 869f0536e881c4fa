"""All requests that wait, decided together. Pure; the caller takes the decisions into its books."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.planner.placement import Decision, decide
from services.planner.state import ClusterState
from shared.requests import Admission, PlacementQuery


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that waits for its decision. Times are on the planner's clock.

    `query.waited_s` holds for the moment of the round; `arrived_at_s` is when the request came to
    its gateway, `first_asked_at_s` when the planner first heard of it.
    """

    query: PlacementQuery
    arrived_at_s: float
    first_asked_at_s: float


def decide_round(asked: Sequence[Asked], state: ClusterState, now: float) -> list[Decision | None]:
    """A decision for each, in the order given, or None for one that is to be held.

    A deferred decision holds it as well, and says why. Whoever is held is asked again as soon as
    the others are in the books.
    """
    decisions: list[Decision | None] = [None] * len(asked)
    for number, one in enumerate(asked):
        decision = decisions[number] = decide(one.query, state, now)
        if decision.placement.admission is not Admission.DEFERRED:
            break
    return decisions
