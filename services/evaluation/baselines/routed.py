"""vLLM engines behind the routers of others: Kubernetes' or vLLM's own, Dynamo's and llm-d's."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from services.evaluation.baselines.baseline import Baseline
from services.evaluation.baselines.prefix_routers import (
    LeastCost,
    RoundRobin,
    ScorerWeights,
    by_requests,
    dynamo_costs,
    llmd_costs,
)
from services.evaluation.baselines.routers import Router
from services.evaluation.baselines.vllm import budgets, chunks
from services.evaluation.settings import Setting, TuningCase, colocated
from shared.simulation.engine import SimEngine
from shared.workloads.calls import Load

_PREFILL_SCALES = (1.0, 2.0, 4.0)  # Dynamo's default, and what its guide says for a better TTFT
# Prefix, free KV, queue, active requests: llm-d's guide, its indexer's example, and its guide with
# the scorer that counts what the router itself has sent.
_SCORER_WEIGHTS = ((3.0, 2.0, 2.0, 0.0), (2.0, 1.0, 1.0, 0.0), (3.0, 2.0, 2.0, 3.0))


def settings(case: TuningCase) -> Iterator[Setting]:
    """Step budgets around vLLM's default."""
    for setting in colocated(case):
        for budget in case.budgets(512, 2048, 8192):
            yield replace(setting, budget_tokens=budget)


def dynamo_settings(case: TuningCase) -> Iterator[Setting]:
    """The same, each with several weights of the prompt (`--router-prefill-load-scale`)."""
    for setting in settings(case):
        for scale in _PREFILL_SCALES:
            yield replace(setting, prefill_scale=scale)


def llmd_settings(case: TuningCase) -> Iterator[Setting]:
    """The same, each with several weights of the scorers."""
    for setting in settings(case):
        for weights in _SCORER_WEIGHTS:
            yield replace(setting, scorer_weights=weights)


def build_in_turn(setting: Setting, engines: Sequence[SimEngine], load: Load) -> Baseline:  # noqa: ARG001 - as all builders
    """Each request to the next engine."""
    return _routed(RoundRobin(), setting, engines)


def build_by_requests(setting: Setting, engines: Sequence[SimEngine], load: Load) -> Baseline:  # noqa: ARG001 - as all builders
    """Each request to the engine with the fewest."""
    return _routed(LeastCost(by_requests), setting, engines)


def build_dynamo(setting: Setting, engines: Sequence[SimEngine], load: Load) -> Baseline:  # noqa: ARG001 - as all builders
    """Each request to the engine of the least cost."""
    assert setting.prefill_scale is not None
    return _routed(LeastCost(dynamo_costs(setting.prefill_scale)), setting, engines)


def build_llmd(setting: Setting, engines: Sequence[SimEngine], load: Load) -> Baseline:  # noqa: ARG001 - as all builders
    """Each request to the engine of the greatest score."""
    assert setting.scorer_weights is not None
    prefix, kv, queue, active = setting.scorer_weights
    weights = ScorerWeights(prefix=prefix, kv=kv, queue=queue, active=active)
    return _routed(LeastCost(llmd_costs(weights)), setting, engines)


def _routed(router: Router, setting: Setting, engines: Sequence[SimEngine]) -> Baseline:
    return Baseline(
        router,
        chunks(drafts=setting.drafts),
        drafts=setting.drafts,
        budget_tokens=budgets(setting, engines),
    )
