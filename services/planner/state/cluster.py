"""The planner's whole state: engines, placed requests, and what is learned from their outcomes."""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Final

from services.planner.estimators.kv_demand import KvDemand, KvFleet, KvRanks
from services.planner.estimators.long_prompt_deferral import LongPromptDeferral
from services.planner.estimators.refusals import Refusals
from services.planner.planner_config import PlannerConfig
from services.planner.scaling.recent_demand import RecentDemand
from services.planner.state.class_mix import ClassMix, Work, work_of
from services.planner.state.demand import Demand
from services.planner.state.engine_reservations import Reservation
from services.planner.state.engine_state import EngineState
from services.planner.state.fleet_estimates import FleetEstimates
from services.planner.state.reservations import colocated, pulled, split
from services.planner.state.tenants import TenantShares
from services.planner.state.turnover import usual_step_s
from shared.batch_time import StepTable
from shared.bounded import remember
from shared.engines import Role, StepReport
from shared.requests import (
    Admission,
    Explanation,
    Outcome,
    PlacementOption,
    PlacementQuery,
    PrefixExport,
    Reason,
)
from shared.scheduling.rows import key_of

_RANKED_EVERY_S: Final = 0.1  # the ranks of a large fleet take a millisecond


class ClusterState(FleetEstimates):
    """All in memory and bounded. After a restart of the planner, registering engines rebuild it.

    `epoch` keeps decision ids distinct from those before a restart.
    """

    def __init__(self, numbers: PlannerConfig, *, epoch: str, now: float) -> None:
        super().__init__(numbers, now)
        self._epoch = epoch
        self._decisions_made = 0
        self._explanations: OrderedDict[str, Explanation] = OrderedDict()
        self.tenants = TenantShares()
        self.long_prompt_deferral = LongPromptDeferral()
        self.class_mix = ClassMix()
        self.kv_demand = KvDemand()
        self._kv_ranks, self._ranked_at_s = KvRanks(), -math.inf
        self.refusals = Refusals()
        self.recent_demand = RecentDemand()

    # ---- engines

    def observe(self, engine: EngineState, reports: Sequence[StepReport], now: float) -> None:
        """Takes in steps of one engine, in order. Raises ValueError where one cannot be read."""
        for report in reports:  # before one that cannot be read ends all: they are told once
            self.prefixes.hear(engine.description, report.prefixes)
        for report in reports:
            self._transferred(engine, report, now)
            engine.observe(report, now, newest=report is reports[-1])
            self.policies.drafted(report.drafts, now)
        self._give_up_lost(engine)

    def _transferred(self, engine: EngineState, report: StepReport, now: float) -> None:
        for transfer in report.kv_transfers:
            held_by = self._named(transfer.peer_engine_id)
            self.transfers.report(held_by, engine.name, transfer, now)
            decision_id = engine.decision_of(transfer.request_id)
            explanation = self._explanations.get(decision_id)
            if explanation is not None:
                self._explanations[decision_id] = replace(explanation, transfer=transfer)

    def _give_up_lost(self, engine: EngineState) -> None:
        """Drops the promise at the decode engine where a first token at `engine` will be late."""
        lost = engine.lost_keys
        for other in self.engines.values() if lost else ():
            if other is not engine:
                other.give_up(lost)

    # ---- decisions

    @property
    def next_decision_id(self) -> str:
        return f"d-{self._epoch}-{self._decisions_made + 1}"

    def commit(self, explanation: Explanation, chosen: PlacementOption | None, now: float) -> None:
        """Records a decision. `chosen` is the way that the request runs, None when it does not."""
        self._decisions_made += 1
        self._learn_of_refusal(explanation, now)
        demand = self._note_demand(explanation, now)
        self._learn_of_prompt(explanation, demand)
        decision_id = explanation.placement.decision_id
        remember(self._explanations, decision_id, explanation, self.numbers.kept_decisions)
        if chosen is not None and explanation.placement.runs:
            self._place(explanation, chosen, demand, now)

    def settle(self, outcome: Outcome, now: float) -> None:
        """Releases what an ended request held and learns from it; ignores unknown decisions."""
        self.sessions.ended(outcome, now)
        self.tenants.ended(outcome.decision_id, outcome.output_tokens)
        self.recent_demand.ended(outcome.request_id, outcome.output_tokens)
        for engine in self.engines.values():
            engine.release(outcome.decision_id)
        explanation = self._explanations.get(outcome.decision_id)
        if explanation is None:
            return
        self._explanations[outcome.decision_id] = replace(explanation, outcome=outcome)
        if outcome.finished in ("stop", "length"):
            name, tokens = explanation.query.targets.class_name, outcome.output_tokens
            self.lengths.learn(name, tokens)
            self.survival.ends(name, key_of(outcome.decision_id), tokens)
            if not outcome.moves:  # the times of a moved request are those of several engines
                self.client_latency.learn(outcome)
                self._learn_of_engines(explanation, outcome, now)

    def exported(self, export: PrefixExport, now: float) -> None:
        """Learns from an export of a cached prefix; ignores unknown decisions."""
        explanation = self._explanations.get(export.decision_id)
        source = explanation.placement.prefix_source if explanation else None
        if source is not None:
            self.exports.learn(source, export, now)

    def _note_demand(self, explanation: Explanation, now: float) -> Demand:
        """The request's demand, noted for tenants, scaling and the class mix. What no fleet could
        serve does not count for tenants and scaling.
        """
        query, placement = explanation.query, explanation.placement
        ttft_s = math.inf if placement.ttft_s is None else placement.ttft_s
        demand = self.demand(query, ttft_s, now)
        if placement.reason is not Reason.NEVER:
            self.tenants.asks(query, demand, now)
            self.recent_demand.add(query.request_id, query.targets.class_name, demand)
        table = self.any_table
        if table is not None and demand.asks and placement.admission is not Admission.DEFERRED:
            work, name = self._work_of(query, demand, table, now), query.targets.class_name
            value, gain = query.targets.value, demand.drafts.gain
            self.class_mix.asked(name, work, value, now)
            own_tokens = query.prompt_tokens - max(demand.shared_tokens.values(), default=0)
            self.kv_demand.asked(name, own_tokens, value, gain, now)
        return demand

    def _learn_of_refusal(self, explanation: Explanation, now: float) -> None:
        placement, name = explanation.placement, explanation.query.targets.class_name
        if placement.admission is Admission.ADMITTED:
            self.refusals.promised(name)
        elif placement.reason in (Reason.COMPUTE, Reason.MEMORY):
            self.refusals.refused(name, now)

    def _work_of(self, query: PlacementQuery, demand: Demand, table: StepTable, now: float) -> Work:
        """The work of a request on a decode engine; no prompt where prefill engines serve."""
        most_drafts = max(one.description.max_speculation_tokens for one in self.engines.values())
        name, context_tokens = query.targets.class_name, query.prompt_tokens
        alone = self.quickest_alone(table, most_drafts, context_tokens, name, now)
        prompt_s = 0.0 if self.prefills_apart else self.prompt_s(demand.least_to_compute)
        return work_of(demand, self.expected_output_tokens(query), prompt_s, alone, table)

    def crowding_classes(self, now: float) -> frozenset[str]:
        """Classes that are promised nothing now, since they would crowd out others."""
        decodes = sum(one.description.role is Role.DECODE for one in self.serving())
        return self.class_mix.crowding_classes(decodes, now)

    def kv_ranks(self, now: float) -> KvRanks:
        """Which requests others leave KV to now."""
        if not 0.0 <= now - self._ranked_at_s < _RANKED_EVERY_S:
            self._kv_ranks, self._ranked_at_s = self._new_kv_ranks(now), now
        return self._kv_ranks

    def _new_kv_ranks(self, now: float) -> KvRanks:
        engines = [one for one in self.serving() if one.description.role is Role.DECODE]
        steps_s = [
            usual_step_s(one.rows, table)
            for one in engines
            if (table := one.table or self.any_table)
        ]
        if not steps_s:
            return KvRanks()
        kv_tokens = [
            one.description.kv_blocks * one.description.block_size_tokens for one in engines
        ]
        fleet = KvFleet(engines=len(engines), kv_tokens=fmean(kv_tokens), step_s=fmean(steps_s))
        return self.kv_demand.ranks(fleet, self.survival, now)

    def beyond_tight_pool(self, now: float) -> Mapping[str, frozenset[str]]:
        """By class, the decode engines on which it is promised nothing now.

        They are kept free of its TPOT, which would make all of their steps short. The pool is the
        first engines by name, so that it stays the same from round to round.
        """
        names = sorted(one.name for one in self.serving() if one.description.role is Role.DECODE)
        pool = self.class_mix.tight_pool(len(names), now)
        if pool is None:
            return {}
        return dict.fromkeys(pool.classes, frozenset(names[pool.engines :]))

    def _learn_of_prompt(self, explanation: Explanation, demand: Demand) -> None:
        placement = explanation.placement
        if placement.ttft_s is None or placement.admission is Admission.DEFERRED:
            return
        self.long_prompt_deferral.learn(self.prompt_s(demand.least_to_compute), placement.ttft_s)

    def _learn_of_engines(self, explanation: Explanation, outcome: Outcome, now: float) -> None:
        placement = explanation.placement
        prefill, decode = placement.prefill, placement.decode
        end = self.engines.get(decode.name) if decode else None
        start = self.engines.get(prefill.name) if prefill else end
        if start is not None:
            start.safety_margin.learn_start(placement, outcome)
        if end is not None:
            end.safety_margin.learn_pace(placement, outcome)
        if prefill is not None and start is not None:
            moved_bytes = self.kv_bytes(start, explanation.query.prompt_tokens)
            self.transfers.learn(explanation, outcome, moved_bytes, now)

    def note(self, explanation: Explanation) -> Explanation:
        """Stores the final record of a decision that is still kept, with its reported KV transfer;
        returns it.
        """
        decision_id = explanation.placement.decision_id
        known = self._explanations.get(decision_id)
        if known is None:
            return explanation
        whole = replace(explanation, transfer=known.transfer)
        self._explanations[decision_id] = whole
        return whole

    def explain(self, decision_id: str) -> Explanation | None:
        return self._explanations.get(decision_id)

    def _place(
        self, explanation: Explanation, chosen: PlacementOption, demand: Demand, now: float
    ) -> None:
        query, placement = explanation.query, explanation.placement
        prefill, decode = placement.prefill, placement.decode
        assert decode is not None
        demand = replace(demand, key=key_of(placement.decision_id))
        best_effort = placement.admission is Admission.BEST_EFFORT
        end = self.engines[decode.name]
        start = end if prefill is None else self.engines[prefill.name]
        first_in_s = max(0.0, (chosen.ttft_s or 0.0) - query.waited_s)
        ends_at_s = None if chosen.finish_s is None else now + chosen.finish_s - query.waited_s
        answer_tokens = self.lengths.cautious(query.targets.class_name, query.max_output_tokens)
        whole = Reservation(
            decision_id=placement.decision_id,
            request_id=query.request_id,
            prefill_tokens=query.prompt_tokens - demand.computed_on(start.description),
            kv_tokens=query.prompt_tokens + answer_tokens,
            class_name=query.targets.class_name,
            due_at_s=now + self.client_latency.there_s,
            ends_at_s=ends_at_s,
            adapter=query.adapter,
        )
        to_compute = whole.prefill_tokens
        source = placement.prefix_source
        if source is not None and source.engine.name in self.engines:
            begins_at_s = now + (chosen.queue_s or 0.0)
            run, export = pulled(whole, demand, source, begins_at_s, best_effort=best_effort)
            end.hold(run)
            to_compute = run.prefill_tokens
            self.engines[source.engine.name].hold(export)
        elif prefill is None:
            end.hold(colocated(whole, demand, end, best_effort=best_effort))
        else:
            first_at_s = now + first_in_s
            times_s = first_at_s, first_at_s + (chosen.transfer_s or 0.0)
            first, rest = split(whole, demand, start, *times_s, best_effort=best_effort)
            start.hold(first)
            end.hold(rest)
        self.sessions.placed(query, placement, now)
        usual_tokens = self.expected_output_tokens(query)
        self.tenants.placed(query, placement.decision_id, usual_tokens)
        self.policies.placed(query, placement, to_compute, now)
        name = prefill.name if prefill else None
        self._groups.placed(query.group_id, name, decode.name, now)
