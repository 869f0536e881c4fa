"""Estimates what requests will take, from learned answer lengths, drafts and step times."""

import math
from collections.abc import Mapping

from services.planner.estimators.client_latency import ClientLatency
from services.planner.estimators.drafting import Drafts
from services.planner.estimators.exports import Exports
from services.planner.estimators.kv_speed import Line
from services.planner.estimators.lengths import OutputLengths
from services.planner.estimators.survival import Survival
from services.planner.estimators.transfers import Transfers
from services.planner.planner_config import PlannerConfig
from services.planner.policies import PolicyBook
from services.planner.state.attached_engines import AttachedEngines
from services.planner.state.demand import Demand
from services.planner.state.engine_state import EngineState
from services.planner.tuning import BESIDE_OTHERS, PRIOR_CONTEXT_TOKENS
from shared.batch_time import StepTable
from shared.requests import Pacing, PlacementQuery
from shared.scheduling.grace import by_deadlines, grace_of
from shared.scheduling.speculation import Alone, quickest_alone

_MANY = 2048  # prompt tokens of a step in which its fixed time hardly counts


class FleetEstimates(AttachedEngines):
    """The estimators that all engines share, and the estimates for a request."""

    def __init__(self, numbers: PlannerConfig, now: float) -> None:
        super().__init__(numbers, now)
        self.transfers = Transfers(
            Line(fixed_s=numbers.kv_fixed_s, s_per_byte=1 / numbers.kv_bytes_per_second)
        )
        self.exports = Exports()
        self.client_latency = ClientLatency()
        self.lengths = OutputLengths()
        self.survival = Survival()
        self.policies = PolicyBook()

    def expected_output_tokens(self, query: PlacementQuery) -> int:
        """The recent median of its class, at most what the request allows."""
        return self.lengths.usual(query.targets.class_name, query.max_output_tokens)

    def demand(self, query: PlacementQuery, ttft_s: float, now: float) -> Demand:
        """The demand of an enriched query; `ttft_s` is the target in force, or infinite."""
        tpot_s = query.targets.tightest_tpot_s or math.inf
        arrived_at_s = now - query.waited_s
        cached_tokens = self.cached_tokens(query, now)
        few_tokens = self._few_tokens(query)
        drafting = self.policies.drafting
        prior = self.prior_drafts(query.targets.class_name, now)
        gain = drafting.about(tpot_s, prior).gain
        least_pace_s = self._least_pace_s(query.prompt_tokens) / gain
        if query.targets.pacing is Pacing.DEADLINES and math.isfinite(ttft_s):
            grace = by_deadlines(tpot_s)
        else:
            grace = grace_of(tpot_s, (few_tokens or 1) - 1, least_pace_s=least_pace_s, gain=gain)
        return Demand(
            prompt_tokens=query.prompt_tokens,
            max_output_tokens=query.max_output_tokens,
            arrived_at_s=arrived_at_s,
            due_s=arrived_at_s + ttft_s,
            tpot_s=tpot_s,
            delivery_s=self.client_latency.before(ttft_s),
            cached_tokens=cached_tokens,
            shared_tokens={
                name: self.engines[name].shared_kv.tokens.get(query.targets.class_name, 0)
                for name in cached_tokens
                if name in self.engines
            },
            few_tokens=few_tokens,
            grace=grace,
            drafts=drafting.of(grace.pace_s, prior, promised_s=tpot_s),
        )

    def prior_drafts(self, class_name: str, now: float) -> Drafts:
        """The drafts to count on for a class until some of its TPOT tier are observed."""
        engine = next((one for one in self.engines.values() if _drafts(one)), None)
        table = None if engine is None else engine.table or self.any_table
        if engine is None or table is None:
            return Drafts()
        most = engine.description.max_speculation_tokens
        alone = self.quickest_alone(table, most, PRIOR_CONTEXT_TOKENS, class_name, now)
        return Drafts(tokens=alone.drafts, gain=alone.gain)

    def quickest_alone(
        self, table: StepTable, most_drafts: int, context_tokens: float, class_name: str, now: float
    ) -> Alone:
        """The draft length at which a request decodes quickest on an idle engine, and its TPOT, by
        the acceptance of its class.
        """
        alpha = self.policies.acceptance.alpha(class_name, now)
        return quickest_alone(table, most_drafts, context_tokens=context_tokens, alpha=alpha)

    def _few_tokens(self, query: PlacementQuery) -> int | None:
        """The tokens that its answer most likely has at least; half of that for an answer in
        stages, each of which has a TPOT of its own.
        """
        few_tokens = self.lengths.few(query.targets.class_name, query.max_output_tokens)
        staged = len(query.targets.stages) > 1
        return few_tokens // 2 if few_tokens and staged else few_tokens

    def _least_pace_s(self, context_tokens: int) -> float:
        """The TPOT that an engine can hold with other requests in the batch; 0: unknown."""
        table = self.any_table
        return 0.0 if table is None else BESIDE_OTHERS * table.decodes_s(1, context_tokens)

    def cached_tokens(self, query: PlacementQuery, now: float) -> Mapping[str, int]:
        """Cached prompt tokens by engine: all where its group runs, else as engines report."""
        group = self.group_engines(query.group_id, now)
        if group is not None:
            return {(group[0] or group[1]).name: query.prompt_tokens}
        return self.prefixes.found(query.prompt_hashes)

    def prompt_s(self, tokens: float) -> float:
        """Seconds that so many prompt tokens take in full steps; 0: unknown."""
        table = self.any_table
        return 0.0 if table is None else tokens * table.prompt_s(_MANY, _MANY) / _MANY

    @property
    def ahead_s(self) -> float:
        """Seconds of promised prompts with a TTFT that an engine has to compute, on average."""
        engines = list(self.serving())
        tokens = sum(engine.promised.due_prompt_tokens for engine in engines)
        return self.prompt_s(tokens) / max(1, len(engines))

    def kv_bytes(self, prefill: EngineState, prompt_tokens: int) -> int:
        """The size of a prompt's KV."""
        return prefill.description.kv_bytes_per_token * prompt_tokens


def _drafts(engine: EngineState) -> bool:
    return engine.description.max_speculation_tokens > 0
