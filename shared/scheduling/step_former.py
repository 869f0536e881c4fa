"""Which request goes first in the next step, how many tokens the step may hold, how far each may
speculate. Pure.

Today it shapes order and bounds; which tokens each request gets stays with the engine that is
shaped.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from shared.engines import Policy
from shared.scheduling.terms import Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A request that could run in the next step. `drafted_tokens` are waiting to be verified."""

    request_id: str
    terms: Terms
    prefilling: bool
    produced_tokens: int
    drafted_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShape:
    """What to do with the candidates of one step.

    `order` lists all of them, first served first. `held` are the prefills among them that sit this
    step out. `speculation_tokens` names only requests whose draft is to be cut.
    """

    order: tuple[str, ...]
    held: frozenset[str]
    max_tokens: int
    speculation_tokens: dict[str, int]


def shape_step(
    candidates: Iterable[Candidate],
    policy: Policy,
    *,
    engine_max_tokens: int,
    next_waiting: Candidate | None = None,
) -> StepShape:
    """Shapes one step of an engine that can compute at most `engine_max_tokens` tokens in it.

    Promises go before best effort; among equals a decode goes before a prefill chunk (it costs one
    token, the chunk takes what is left), and the earlier deadline before the later one. Ties keep
    the given order. The engine serves what runs before what waits, so a prefill that is due later
    than `next_waiting` is held: its chunk would take the tokens that the other needs.
    """
    pool = list(candidates)
    ranked = sorted(pool, key=_rank)
    cuts = {
        candidate.request_id: allowed
        for candidate in pool
        if candidate.drafted_tokens > (allowed := speculation_limit(candidate, policy))
    }
    return StepShape(
        order=tuple(candidate.request_id for candidate in ranked),
        held=_held(ranked, next_waiting),
        max_tokens=step_limit(policy, engine_max_tokens),
        speculation_tokens=cuts,
    )


def _rank(candidate: Candidate) -> tuple[bool, bool, float]:
    terms = candidate.terms
    return terms.best_effort, candidate.prefilling, terms.token_due_s(candidate.produced_tokens)


def _held(ranked: Iterable[Candidate], next_waiting: Candidate | None) -> frozenset[str]:
    if next_waiting is None:
        return frozenset()
    bar = _rank(next_waiting)
    return frozenset(
        candidate.request_id
        for candidate in ranked
        if candidate.prefilling and _rank(candidate) > bar
    )


def step_limit(policy: Policy, engine_max_tokens: int) -> int:
    """The policy's limit, never above the engine's own and never so low that nothing could run."""
    if policy.max_step_tokens <= 0:
        return engine_max_tokens
    return max(1, min(policy.max_step_tokens, engine_max_tokens))


def speculation_limit(candidate: Candidate, policy: Policy) -> int:
    """How many drafted tokens of this request may be verified in one step."""
    by_class = policy.speculation_by_class.get(candidate.terms.class_name)
    if by_class is not None:
        return by_class
    if policy.speculation_tokens is not None:
        return policy.speculation_tokens
    return candidate.drafted_tokens


NO_TARGET_PATIENCE_S = 10.0
"""A request that asked for nothing queues as if its first token were due this long after its
arrival.
"""

BEST_EFFORT_BACK_S = 1e6
"""How far behind all promises best effort queues, in seconds of deadline."""


def queue_priority(terms: Terms, *, client_priority: int = 0) -> int:
    """The place in an engine's waiting queue: lower is earlier (milliseconds of deadline, so that
    the order is EDF).

    `client_priority` is the request's own `priority` field (lower is earlier): one unit is
    worth one second.
    """
    due_s = terms.first_token_due_s
    if math.isinf(due_s):
        due_s = terms.arrived_at_s + NO_TARGET_PATIENCE_S
    if terms.best_effort:
        due_s += BEST_EFFORT_BACK_S
    return round((due_s + client_priority) * 1000)
