"""What a policy of the planner's means for one engine. Pure."""

from shared.engines import Policy
from shared.scheduling.terms import Terms


def step_limit(policy: Policy, engine_max_tokens: int) -> int:
    """The policy's limit, never above the engine's own and never so low that nothing could run."""
    if policy.max_step_tokens <= 0:
        return engine_max_tokens
    return max(1, min(policy.max_step_tokens, engine_max_tokens))


def speculation_limit(terms: Terms, policy: Policy) -> int | None:
    """How many drafted tokens of a request may be verified in one step; None: all."""
    return policy.drafts_of(terms.class_name)
