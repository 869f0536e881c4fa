"""What a policy of the planner's means for one engine. Pure."""

from collections.abc import Sequence
from typing import Any

from shared.engines import Policy
from shared.scheduling.terms import Terms
from shared.scheduling.tuning import FULL_GRAPH_DRAFTS


def step_limit(policy: Policy, engine_max_tokens: int) -> int:
    """The policy's limit, never above the engine's own and never so low that nothing could run."""
    if policy.max_step_tokens <= 0:
        return engine_max_tokens
    return max(1, min(policy.max_step_tokens, engine_max_tokens))


def speculation_limit(terms: Terms, policy: Policy) -> int | None:
    """How many drafted tokens of a request may be verified in one step; None: all."""
    return policy.drafts_of(terms.class_name)


def has_full_decode_graphs(compilation: Any) -> bool:
    """Whether vLLM captures full CUDA graphs for decode batches, by its CompilationConfig.

    With speculation these are batches in which each request has the most drafts (vLLM 0.32,
    `v1/worker/gpu/cudagraph_utils.py`); other steps run in pieces between attention calls.
    """
    mode = compilation.cudagraph_mode
    return bool(mode and mode.separate_routine() and mode.decode_mode().has_full_cudagraphs())


def worth_a_full_graph(limits: Sequence[int | None], most_drafts: int) -> bool:
    """Whether to verify all drafts of each request, so that a full graph runs the step.

    It is where the lengths by class (`limits`; None: all) are at least half of it on average: no
    request then drafts less than was planned, and the step has at most twice the tokens.
    """
    lengths = [most_drafts if one is None else min(one, most_drafts) for one in limits]
    return bool(lengths) and sum(lengths) >= FULL_GRAPH_DRAFTS * most_drafts * len(lengths)
