"""vLLM as the paper ran it (prefill first), and vLLM today (chunked prefill, one budget)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from services.evaluation.baselines import chunked, prefill_first
from services.evaluation.baselines.baseline import Baseline, StepFormer
from services.evaluation.baselines.routers import LeastLoaded
from services.evaluation.settings import Setting, TuningCase, colocated
from shared.simulation.engine import SimEngine
from shared.workloads.calls import Load

_DRAFTING_REQUESTS = 32
# A draft model that drafts token by token needs one more slot per request than the step has tokens
# (`max_num_new_slots_for_drafting`).
_DRAFT_SLOTS = 1


def paper_settings(case: TuningCase) -> Iterator[Setting]:
    """Its default bounds prompts by the length of the model, 2,048 for the paper's models."""
    for setting in colocated(case):
        for budget in case.budgets(2048, 8192):
            yield replace(setting, budget_tokens=budget)


def build_paper(setting: Setting, engines: Sequence[SimEngine], load: Load) -> Baseline:  # noqa: ARG001 - as all builders
    """Prompts before decodes, on the least loaded engine."""
    assert setting.budget_tokens is not None
    return Baseline(LeastLoaded(), whole_prompts(setting.budget_tokens), drafts=setting.drafts)


def whole_prompts(budget_tokens: int) -> StepFormer:
    """Steps of whole prompts, as many as the budget allows, or of decodes."""
    return lambda rows, tokens, counts, table, limits, now: prefill_first.form(
        rows, tokens, counts, table, limits, now, float(budget_tokens)
    )


def settings(case: TuningCase) -> Iterator[Setting]:
    """Usual budgets (`--max-num-batched-tokens`), drafts for all or for few requests
    (`num_speculative_tokens_per_batch_size`), and priorities where classes differ.
    """
    ranks = len(set(tightness(case.load).values()))
    for setting in colocated(case):
        for budget in case.budgets(256, 512, 1024, 2048, 8192):
            one = replace(setting, budget_tokens=budget)
            yield one
            if setting.drafts:
                yield replace(one, drafting_requests=_DRAFTING_REQUESTS)
            if ranks > 1:
                yield replace(one, by_priority=True)


def build(setting: Setting, engines: Sequence[SimEngine], load: Load) -> Baseline:
    """First come first served, or tight classes first (`--scheduling-policy priority`)."""
    return Baseline(
        LeastLoaded(tightness(load) if setting.by_priority else {}),
        chunks(by_priority=bool(setting.by_priority), drafts=setting.drafts),
        drafts=setting.drafts,
        drafting_requests=setting.drafting_requests,
        budget_tokens=budgets(setting, engines),
    )


def chunks(*, by_priority: bool = False, drafts: int = 0) -> StepFormer:
    """Steps of all running requests, filled with chunks. With `drafts` each request of a step takes
    one token of its budget for the draft model.
    """
    slots = float(_DRAFT_SLOTS if drafts else 0)
    return lambda rows, tokens, counts, table, limits, now: chunked.form(
        rows, tokens, counts, table, limits, now, by_priority, slots
    )


def budgets(setting: Setting, engines: Sequence[SimEngine]) -> dict[str, int]:
    """The budget, the same for each engine."""
    assert setting.budget_tokens is not None
    return {engine.name: setting.budget_tokens for engine in engines}


def tightness(load: Load) -> dict[str, int]:
    """The rank of each class: 0 has the tightest TTFT, and of equal ones the tightest pace."""
    wishes: dict[str, tuple[float, float]] = {}
    for call in (call for program in load for call in program.calls):
        ttft = call.ttft_slowdown if call.ttft_slowdown is not None else call.ttft_s
        tpot_s = min(stage.tpot_s for stage in call.stages)
        wishes.setdefault(call.class_name, (ttft if ttft is not None else 1e9, tpot_s))
    ranks = {wish: rank for rank, wish in enumerate(sorted(set(wishes.values())))}
    return {name: ranks[wish] for name, wish in wishes.items()}
