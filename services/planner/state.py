"""What the planner knows: engines, what was placed, how it ended. Decides nothing."""

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from services.planner.class_mix import ClassMix, Work, work_of
from services.planner.delivery import Delivery
from services.planner.demand import Demand
from services.planner.drafting import Drafts
from services.planner.engine_state import SILENCE_LIMIT_S, EngineState, Hold
from services.planner.groups import Groups
from services.planner.holdings import colocated, split
from services.planner.kv_speed import Line
from services.planner.lengths import OutputLengths
from services.planner.numbers import PlannerNumbers
from services.planner.policies import PolicyBook
from services.planner.prefix_index import PrefixIndex
from services.planner.refusals import Refusals
from services.planner.registration import why_unfit
from services.planner.restraint import Restraint
from services.planner.scaling.demanded import Demanded
from services.planner.sessions import Sessions
from services.planner.survival import Survival
from services.planner.tenants import TenantShares
from services.planner.transfers import Transfers
from shared.batch_time import StepTable
from shared.bounded import remember
from shared.engines import EngineDescription, Role, StepReport
from shared.requests import (
    Admission,
    Explanation,
    Outcome,
    Pacing,
    PlacementQuery,
    Reason,
    WayConsidered,
)
from shared.scheduling.grace import by_deadlines, grace_of
from shared.scheduling.rows import key_of
from shared.scheduling.speculation import Alone, quickest_alone
from shared.ticks import TICK_S

_WITH_OTHERS = 2.0  # times as long as alone a token takes at least
_MANY = 2048  # prompt tokens among which the fixed time of a step does not count
_KEPT_TABLES = 1024
_PRIOR_CONTEXT_TOKENS = 1024.0  # for which the best drafts are found before any were seen
_HEARD = round(SILENCE_LIMIT_S / TICK_S)  # ticks of silence that are none


class ClusterState:
    """All in memory and bounded; after a restart engines that register again rebuild it.

    `epoch` sets this planner's decision ids apart from those of its earlier lives.
    """

    def __init__(self, numbers: PlannerNumbers, *, epoch: str, now: float) -> None:
        self.numbers = numbers
        self.engines: dict[str, EngineState] = {}
        self._epoch = epoch
        self._decisions_made = 0
        self._changed_at_s = now  # when the planner started, or an engine left or stalled
        self._explanations: OrderedDict[str, Explanation] = OrderedDict()
        self._tables: OrderedDict[str, StepTable] = OrderedDict()
        self._replaced: OrderedDict[str, None] = OrderedDict()  # engine ids
        self._groups = Groups()
        self.transfers = Transfers(
            Line(fixed_s=numbers.kv_fixed_s, s_per_byte=1 / numbers.kv_bytes_per_second)
        )
        self.delivery = Delivery()
        self.lengths = OutputLengths()
        self.survival = Survival()
        self.sessions = Sessions()
        self.prefixes = PrefixIndex()
        self.tenants = TenantShares()
        self.policies = PolicyBook()
        self.restraint = Restraint()
        self.class_mix = ClassMix()
        self.refusals = Refusals()
        self.demanded = Demanded()

    # ---- engines

    def register(self, description: EngineDescription) -> tuple[EngineState | None, str]:
        """The engine's state, or None and why it may not join.

        An engine of that name is replaced when it is not heard any more, and its process may not
        come back; the same process keeps what was placed on it.
        """
        fleet = (engine.description for engine in self.engines.values())
        unfit = why_unfit(
            description,
            fleet,
            model=self.numbers.model,
            vllm_version=self.numbers.vllm_version,
        )
        unfit = unfit or self._why_not_again(description)
        if unfit:
            return None, unfit
        try:
            table = _table_of(description) or self._tables.get(description.name)
        except ValueError as error:
            return None, f"Engine {description.name} is refused: {error}."
        engine = EngineState(description=description, table=table)
        before = self.engines.get(description.name)
        if before and before.description.engine_id == description.engine_id:
            engine.inherit(before)
        elif before:
            remember(self._replaced, before.description.engine_id, None, _KEPT_TABLES)
            self.sessions.lost(before.name)
            self.prefixes.lost(before.name)
        self.engines[description.name] = engine
        return engine, ""

    def _why_not_again(self, description: EngineDescription) -> str:
        """Why this process may not have the name that it wants; empty when it may."""
        name, engine_id = description.name, description.engine_id
        before = self.engines.get(name)
        if self.was_replaced(engine_id):
            return (
                f"Engine {name} is refused: an engine that started later has taken over its name. "
                "Start it again under another one (--name)."
            )
        if before and before.description.engine_id != engine_id and before.silent_ticks < _HEARD:
            return (
                f"Engine {name} is refused: another engine of that name serves at "
                f"{before.description.address}. Give one of them another name (--name)."
            )
        return ""

    def was_replaced(self, engine_id: str) -> bool:
        """Whether an engine that started later has taken over the name of this one."""
        return engine_id in self._replaced

    def tick(self, now: float) -> bool:
        """A moment has passed; whether it made an engine serve no longer."""
        before = sum(engine.serves for engine in self.engines.values())
        for engine in self.engines.values():
            engine.silent_ticks += 1
        changed = before != sum(engine.serves for engine in self.engines.values())
        if changed:
            self._changed_at_s = now
        return changed

    def is_overdue(self, engine: EngineState, overdue_s: float, now: float) -> bool:
        """What the host of an engine says of its core; whether that changes if it serves."""
        before, engine.overdue_s = engine.stalled, overdue_s
        if engine.stalled and not before:
            self._changed_at_s = now
        return before is not engine.stalled

    def leave(self, engine: EngineState, now: float) -> None:
        """The engine is gone with all that it held, unless another took over its name."""
        if self.engines.get(engine.name) is engine:
            del self.engines[engine.name]
            self._changed_at_s = now
            self.sessions.lost(engine.name)
            self.prefixes.lost(engine.name)
            if engine.table is not None:
                remember(self._tables, engine.name, engine.table, _KEPT_TABLES)

    def observe(self, engine: EngineState, reports: Sequence[StepReport], now: float) -> None:
        """Steps of one engine in order. Raises ValueError where one cannot be read."""
        for report in reports:
            self._transferred(engine, report, now)
            engine.observe(report, now, newest=report is reports[-1])
            self.prefixes.hear(engine.description, report.prefixes)
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

    def _named(self, engine_id: str) -> str:
        """Empty where no engine attached has this id."""
        engines = self.engines.values()
        return next((one.name for one in engines if one.description.engine_id == engine_id), "")

    def _give_up_lost(self, engine: EngineState) -> None:
        """Whose first token cannot be on time here is not promised where it is to go on, either."""
        lost = engine.lost_keys
        for other in self.engines.values() if lost else ():
            if other is not engine:
                other.give_up(lost)

    @property
    def any_table(self) -> StepTable | None:
        """The step times of some engine of the fleet, for one that has none."""
        return next((engine.table for engine in self.engines.values() if engine.table), None)

    def serving(self) -> Iterator[EngineState]:
        return (engine for engine in self.engines.values() if engine.serves)

    @property
    def model(self) -> str | None:
        """What the fleet serves; None while nothing says it."""
        attached = next(iter(self.engines.values()), None)
        return self.numbers.model or (attached.description.model if attached else None)

    def in_grace(self, now: float) -> bool:
        """Whether an engine may well come (back) soon."""
        return now - self._changed_at_s <= self.numbers.grace_s

    # ---- predictions that need the whole fleet

    def expected_output_tokens(self, query: PlacementQuery) -> int:
        """What requests of its class have produced lately, within what it allows."""
        return self.lengths.usual(query.targets.class_name, query.max_output_tokens)

    def demand(self, query: PlacementQuery, ttft_s: float, now: float) -> Demand:
        """What an enriched query asks of engines; `ttft_s` is the target in force, or infinite."""
        tpot_s = query.targets.tightest_tpot_s or math.inf
        arrived_at_s = now - query.waited_s
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
            delivery_s=self.delivery.before(ttft_s),
            cached_tokens=self.cached_tokens(query, now),
            few_tokens=few_tokens,
            grace=grace,
            drafts=drafting.of(grace.pace_s, prior, promised_s=tpot_s),
        )

    def prior_drafts(self, class_name: str, now: float) -> Drafts:
        """What a request of this class may count on while none of its pace was seen."""
        engine = next((one for one in self.engines.values() if _drafts(one)), None)
        table = None if engine is None else engine.table or self.any_table
        if engine is None or table is None:
            return Drafts()
        most = engine.description.max_speculation_tokens
        alone = self.quickest_alone(table, most, _PRIOR_CONTEXT_TOKENS, class_name, now)
        return Drafts(tokens=alone.drafts, gain=alone.gain)

    def quickest_alone(
        self, table: StepTable, most_drafts: int, context_tokens: float, class_name: str, now: float
    ) -> Alone:
        """How a request of this class decodes quickest on such an engine, by what is known of its
        drafts.
        """
        alpha = self.policies.acceptance.alpha(class_name, now)
        return quickest_alone(table, most_drafts, context_tokens=context_tokens, alpha=alpha)

    def _few_tokens(self, query: PlacementQuery) -> int | None:
        """What its answer most likely has at least; a pace holds for the tokens of its stage."""
        few_tokens = self.lengths.few(query.targets.class_name, query.max_output_tokens)
        staged = len(query.targets.stages) > 1
        return few_tokens // 2 if few_tokens and staged else few_tokens

    def _least_pace_s(self, context_tokens: int) -> float:
        """What an engine holds with others beside."""
        table = self.any_table
        return 0.0 if table is None else _WITH_OTHERS * table.decodes_s(1, context_tokens)

    def cached_tokens(self, query: PlacementQuery, now: float) -> Mapping[str, int]:
        """How much of its prompt is where: all of it where its group is, or what engines tell."""
        group = self.group_engines(query.group_id, now)
        if group is not None:
            return {(group[0] or group[1]).name: query.prompt_tokens}
        return self.prefixes.found(query.prompt_hashes)

    def prompt_s(self, tokens: float) -> float:
        """What so many tokens take of an engine among those of other prompts; 0: not known."""
        table = self.any_table
        return 0.0 if table is None else tokens * table.prompt_s(_MANY, _MANY) / _MANY

    @property
    def ahead_s(self) -> float:
        """Of promised prompts that an engine has to compute, on average."""
        engines = list(self.serving())
        tokens = sum(engine.promised.prompt_tokens for engine in engines)
        return self.prompt_s(tokens) / max(1, len(engines))

    # ---- decisions

    @property
    def next_decision_id(self) -> str:
        return f"d-{self._epoch}-{self._decisions_made + 1}"

    def group_engines(
        self, group_id: str, now: float
    ) -> tuple[EngineState | None, EngineState] | None:
        """Prefill (None when co-located) and decode engine of a group, while both still serve."""
        names = self._groups.engines(group_id, now)
        if names is None:
            return None
        prefill, decode = self._serving_by_name(names[0]), self._serving_by_name(names[1])
        if decode is None or (names[0] and prefill is None):
            return None
        return prefill, decode

    def commit(self, explanation: Explanation, chosen: WayConsidered | None, now: float) -> None:
        """Takes a decision into the books. `chosen` is the way it runs, None when it does not."""
        self._decisions_made += 1
        self._learn_of_refusal(explanation, now)
        demand = self._note_demand(explanation, now)
        self._learn_of_prompt(explanation, demand)
        decision_id = explanation.placement.decision_id
        remember(self._explanations, decision_id, explanation, self.numbers.kept_decisions)
        if chosen is not None and explanation.placement.runs:
            self._place(explanation, chosen, demand, now)

    def settle(self, outcome: Outcome, now: float) -> None:
        """A request has ended: nothing is held for it any more. Unknown decisions are no matter."""
        self.sessions.ended(outcome, now)
        self.tenants.ended(outcome.decision_id, outcome.output_tokens)
        self.demanded.ended(outcome.request_id, outcome.output_tokens)
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
            if not outcome.moves:  # else its times are of several engines
                self.delivery.learn(outcome)
                self._learn_of_engines(explanation, outcome, now)

    def _note_demand(self, explanation: Explanation, now: float) -> Demand:
        """What no fleet could serve is no demand for engines."""
        query, placement = explanation.query, explanation.placement
        ttft_s = math.inf if placement.ttft_s is None else placement.ttft_s
        demand = self.demand(query, ttft_s, now)
        if placement.reason is not Reason.NEVER:
            self.tenants.asks(query, demand, now)
            self.demanded.asked(query.request_id, query.targets.class_name, demand)
        table = self.any_table
        if table is not None and demand.asks and placement.admission is not Admission.DEFERRED:
            work, name = self._work_of(query, demand, table, now), query.targets.class_name
            self.class_mix.asked(name, work, query.targets.value, now)
        return demand

    def _learn_of_refusal(self, explanation: Explanation, now: float) -> None:
        placement, name = explanation.placement, explanation.query.targets.class_name
        if placement.admission is Admission.ADMITTED:
            self.refusals.promised(name)
        elif placement.reason in (Reason.COMPUTE, Reason.MEMORY):
            self.refusals.refused(name, now)

    def _work_of(self, query: PlacementQuery, demand: Demand, table: StepTable, now: float) -> Work:
        """Where other engines compute prompts, without that."""
        most_drafts = max(one.description.max_speculation_tokens for one in self.engines.values())
        name, context_tokens = query.targets.class_name, query.prompt_tokens
        alone_s = self.quickest_alone(table, most_drafts, context_tokens, name, now).tpot_s
        prompt_s = 0.0 if self.prefills_apart else self.prompt_s(demand.least_to_compute)
        return work_of(demand, self.expected_output_tokens(query), prompt_s, alone_s, table)

    @property
    def prefills_apart(self) -> bool:
        """Whether some engines are for prompts alone."""
        return any(engine.description.role is Role.PREFILL for engine in self.serving())

    def left_out(self, now: float) -> frozenset[str]:
        """Classes that are promised nothing at present, for what they take from others."""
        decodes = sum(one.description.role is Role.DECODE for one in self.serving())
        return self.class_mix.left_out(decodes, now)

    def _learn_of_prompt(self, explanation: Explanation, demand: Demand) -> None:
        placement = explanation.placement
        if placement.ttft_s is None or placement.admission is Admission.DEFERRED:
            return
        self.restraint.learn(self.prompt_s(demand.least_to_compute), placement.ttft_s)

    def _learn_of_engines(self, explanation: Explanation, outcome: Outcome, now: float) -> None:
        placement = explanation.placement
        prefill, decode = placement.prefill, placement.decode
        end = self.engines.get(decode.name) if decode else None
        start = self.engines.get(prefill.name) if prefill else end
        if start is not None:
            start.reserve.learn_start(placement, outcome)
        if end is not None:
            end.reserve.learn_pace(placement, outcome)
        if prefill is not None and start is not None:
            moved_bytes = self.kv_bytes(start, explanation.query.prompt_tokens)
            self.transfers.learn(explanation, outcome, moved_bytes, now)

    def note(self, explanation: Explanation) -> Explanation:
        """Keeps what came to be known of a decision after its end, if it is still remembered; with
        what its engines had told before.
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

    def forget_old_holds(self, now: float) -> None:
        for engine in self.engines.values():
            engine.forget_old_holds(now)

    def kv_bytes(self, prefill: EngineState, prompt_tokens: int) -> int:
        """What the KV of a prompt weighs."""
        return prefill.description.kv_bytes_per_token * prompt_tokens

    def _serving_by_name(self, name: str | None) -> EngineState | None:
        engine = self.engines.get(name or "")
        return engine if engine is not None and engine.serves else None

    def _place(
        self, explanation: Explanation, chosen: WayConsidered, demand: Demand, now: float
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
        whole = Hold(
            decision_id=placement.decision_id,
            request_id=query.request_id,
            prefill_tokens=query.prompt_tokens - demand.computed_on(start.description),
            kv_tokens=query.prompt_tokens + answer_tokens,
            class_name=query.targets.class_name,
            due_at_s=now + self.delivery.there_s,
            ends_at_s=ends_at_s,
        )
        if prefill is None:
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
        self.policies.placed(query, placement, now)
        name = prefill.name if prefill else None
        self._groups.placed(query.group_id, name, decode.name, now)


def _drafts(engine: EngineState) -> bool:
    return engine.description.max_speculation_tokens > 0


def _table_of(description: EngineDescription) -> StepTable | None:
    return StepTable.from_bytes(description.step_time) if description.step_time else None
