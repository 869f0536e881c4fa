"""The least engine time that the calls of a load cost under any scheduler: a lower bound.

Relaxed: every step has the size that is best for all. Mixing prompts and decodes costs nothing,
tiles are never padded, nothing is computed twice, and every prefix stays cached. Each call drafts
as many tokens as suit it best; how many are accepted remains chance.

Kept, for any number S of steps that read N tokens together: a step's fixed part and layers f(n) are
convex in its tokens. So S steps cost at least S f(N/S), which lies above each of its tangents
c1 N + c0 S. The least S follows from KV memory, the number of running requests and the longest
step. (The contexts that all decodes read must fit into memory, step by step.) With a tangent and
one of these three bounds, the cost is a sum over calls, so each call is computed alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.errors import ConfigError
from shared.hardware import Hardware, TrueStep
from shared.workloads.calls import Call, Load

Seconds = npt.NDArray[np.float64]
_TANGENTS: Final = 24
_RISE: Final = 1e-3  # relative step in tokens, for a slope


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Prices of one token and of one step. Steps are counted by `per_context` for each KV token
    that a decode reads, by `per_decode` for each decode, and by `per_token` for each token.
    """

    token_s: float
    step_s: float
    per_context: float = 0.0
    per_decode: float = 0.0
    per_token: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Costs:
    """Engine seconds of each program, and of the prompt of its first call alone."""

    whole_s: Seconds
    prompt_s: Seconds


def least_costs(load: Load, hardware: Hardware) -> Costs:
    """The costs under the prices that make the whole load dearest; each choice of prices is a lower
    bound. Raises ConfigError for hardware known only by a fit.
    """
    if not isinstance(hardware.step, TrueStep):
        raise ConfigError(f"there is no bound for {hardware.name}: name a table of shared/hardware")
    step = hardware.step
    found = (_costs(load, hardware, step, price) for price in _prices(hardware, step))
    return max(found, key=lambda costs: float(costs.whole_s.sum()))


def _costs(load: Load, hardware: Hardware, step: TrueStep, price: Price) -> Costs:
    calls = [call for program in load for call in program.calls]
    prompts_s = np.array([_prompt_s(call, step, price) for call in calls])
    starts = np.cumsum([0, *(len(program.calls) for program in load)])[:-1]
    whole_s = np.add.reduceat(prompts_s + _decodes_s(calls, hardware, step, price), starts)
    return Costs(whole_s=whole_s, prompt_s=prompts_s[starts])


def _prices(hardware: Hardware, step: TrueStep) -> Iterator[Price]:
    fixed_s = hardware.host_overhead_s + step.fixed_s
    for tokens in np.geomspace(1.0, hardware.max_step_tokens, _TANGENTS).tolist():
        at_s = _layers_s(step, tokens)
        slope_s = (_layers_s(step, tokens * (1 + _RISE)) - at_s) / (tokens * _RISE)
        # The chord's slope is slightly steeper than the tangent's, so its intercept is taken lower.
        step_s = fixed_s + max(0.0, at_s - slope_s * tokens * (1 + _RISE))
        yield Price(token_s=slope_s, step_s=step_s, per_context=1 / hardware.kv_tokens)
        yield Price(token_s=slope_s, step_s=step_s, per_decode=1 / hardware.max_running_requests)
        yield Price(token_s=slope_s, step_s=step_s, per_token=1 / hardware.max_step_tokens)


def _layers_s(step: TrueStep, tokens: float) -> float:
    """Seconds of the layers as in the true step, without tiles."""
    weights_s = step.weights_s + step.weights_token_s * tokens
    arithmetic_s = step.arithmetic_s + step.arithmetic_token_s * tokens
    longer_s, shorter_s = max(weights_s, arithmetic_s), min(weights_s, arithmetic_s)
    return float(longer_s * (1 + (shorter_s / longer_s) ** step.corner) ** (1 / step.corner))


def _prompt_s(call: Call, step: TrueStep, price: Price) -> float:
    new, earlier = call.new_prompt_tokens, call.prefix_tokens
    pairs = new * (earlier + new / 2)
    each_s = price.token_s + price.step_s * price.per_token
    return new * each_s + step.sequence_s + step.earlier_s * earlier + step.pair_s * pairs


def _decodes_s(calls: Sequence[Call], hardware: Hardware, step: TrueStep, price: Price) -> Seconds:
    """Seconds of all tokens after the first, with the draft length that makes them cheapest."""
    tokens = np.array([call.output_tokens - 1.0 for call in calls])
    prompts = np.array([call.prompt_tokens for call in calls])
    chances = np.array([call.acceptance for call in calls])
    most = hardware.draft.max_speculation_tokens if hardware.draft else 0
    gains, cheapest_s = np.ones(len(calls)), np.full(len(calls), np.inf)
    for drafts in range(most + 1):
        # A step reads the tokens computed before it, on average half of the answer.
        contexts = prompts + np.maximum(0.0, tokens - gains) / 2
        each_s = _decode_s(contexts, drafts, hardware, step, price)
        cheapest_s = np.minimum(cheapest_s, tokens / gains * each_s)
        gains = gains + chances ** (drafts + 1)
    return cheapest_s


def _decode_s(
    contexts: Seconds, drafts: int, hardware: Hardware, step: TrueStep, price: Price
) -> Seconds:
    """Seconds of one step of each of these decodes, with its share of the step's common cost."""
    steps = price.per_context * contexts + price.per_decode + price.per_token * (1 + drafts)
    # The decodes that fit into memory together share a step's runs of the draft model.
    shared = np.maximum(contexts / hardware.kv_tokens, 1 / hardware.max_running_requests)
    own_s = (1 + drafts) * price.token_s + step.sequence_s + step.context_s * contexts
    result: Seconds = (
        own_s + steps * price.step_s + drafts * (step.draft_sequence_s + step.draft_s * shared)
    )
    return result
