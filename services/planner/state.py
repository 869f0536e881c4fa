"""What the planner knows: engines, what was placed, how it ended. Decides nothing."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from services.planner.engine_state import EngineState, Hold
from services.planner.registration import why_unfit
from shared.batch_time import BatchTimeModel
from shared.engines import EngineDescription, Role, StepReport
from shared.requests import Explanation, Outcome, Placement, PlacementQuery, WayConsidered

_K = TypeVar("_K")
_V = TypeVar("_V")

_KEPT_MODELS = 1024
_KEPT_GROUPS = 16_384
_GROUP_LIMIT_S = 60.0  # by then the first sequence's prefix may be gone; ids may be used again
_KEPT_PAIRS = 65_536
_KEPT_CLASSES = 256
_UNKNOWN_OUTPUT_TOKENS = 256
_FRESH = 0.1  # weight of the newest value in a running mean


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerNumbers:
    """The few numbers that decisions rest on.

    `model` and `vllm_version` None: the first engine sets them. The KV ones are for pairs of
    engines that nothing is known of. `grace_s` is how long after its own start or the loss of an
    engine the planner has requests wait, `hold_s` each time, rather than refuse them.
    """

    model: str | None = None
    vllm_version: str | None = None
    kv_bytes_per_second: float = 5e8
    kv_fixed_s: float = 0.005
    grace_s: float = 10.0
    hold_s: float = 0.5
    retry_after_s: float = 1.0
    kept_decisions: int = 4096


class ClusterState:
    """All in memory and bounded; after a restart engines that register again rebuild it.

    `epoch` sets this planner's decision ids apart from those of its earlier lives.
    """

    def __init__(self, numbers: PlannerNumbers, *, epoch: str, now: float) -> None:
        self.numbers = numbers
        self.engines: dict[str, EngineState] = {}
        self.fleet_model = BatchTimeModel()
        self._epoch = epoch
        self._decisions_made = 0
        self._changed_at_s = now  # when the planner started or an engine left
        self._explanations: OrderedDict[str, Explanation] = OrderedDict()
        self._models: OrderedDict[str, BatchTimeModel] = OrderedDict()
        self._groups: OrderedDict[str, tuple[str | None, str, float]] = OrderedDict()
        self._recomputed: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._output_tokens: OrderedDict[str, float] = OrderedDict()

    # ---- engines

    def register(self, description: EngineDescription) -> tuple[EngineState | None, str]:
        """The engine's state, or None and why it may not join.

        An engine of that name is replaced; the same process keeps what was placed on it.
        """
        fleet = (engine.description for engine in self.engines.values())
        unfit = why_unfit(
            description,
            fleet,
            model=self.numbers.model,
            vllm_version=self.numbers.vllm_version,
        )
        if unfit:
            return None, unfit
        model = self._models.get(description.name) or BatchTimeModel()
        engine = EngineState(description=description, model=model)
        before = self.engines.get(description.name)
        if before and before.description.engine_id == description.engine_id:
            _inherit(engine, before)
        self.engines[description.name] = engine
        _remember(self._models, description.name, model, _KEPT_MODELS)
        return engine, ""

    def leave(self, engine: EngineState, now: float) -> None:
        """The engine is gone with all that it held, unless another took over its name."""
        if self.engines.get(engine.name) is engine:
            del self.engines[engine.name]
            self._changed_at_s = now

    def observe(self, engine: EngineState, reports: Iterable[StepReport], now: float) -> None:
        for report in reports:
            engine.observe(report, now)
            self.fleet_model.observe(report)

    def serving(self) -> Iterator[EngineState]:
        return (engine for engine in self.engines.values() if not engine.draining)

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
        usual = self._output_tokens.get(query.targets.class_name, _UNKNOWN_OUTPUT_TOKENS)
        return min(query.max_output_tokens, max(1, round(usual)))

    def tokens_to_compute(self, query: PlacementQuery, now: float) -> int:
        """Of its prompt; the sequences of a group find theirs in the cache but for a block."""
        engines = self.group_engines(query.group_id, now)
        if engines is None:
            return query.prompt_tokens
        return min(query.prompt_tokens, engines[1].description.block_size_tokens)

    def recomputed_share(self, prefill: str, decode: str) -> float:
        """How often the KV did not arrive between these two lately, 0 to 1."""
        return self._recomputed.get((prefill, decode), 0.0)

    # ---- decisions

    @property
    def next_decision_id(self) -> str:
        return f"d-{self._epoch}-{self._decisions_made + 1}"

    def group_engines(
        self, group_id: str, now: float
    ) -> tuple[EngineState | None, EngineState] | None:
        """Prefill (None when co-located) and decode engine of a group, while both still serve."""
        prefill_name, decode_name, placed_at_s = self._groups.get(group_id, (None, "", now))
        prefill, decode = self._serving_by_name(prefill_name), self._serving_by_name(decode_name)
        too_late = now - placed_at_s > _GROUP_LIMIT_S
        if decode is None or (prefill_name and prefill is None) or too_late:
            return None
        return prefill, decode

    def commit(self, explanation: Explanation, chosen: WayConsidered | None, now: float) -> None:
        """Takes a decision into the books. `chosen` is the way it runs, None when it does not."""
        self._decisions_made += 1
        decision_id = explanation.placement.decision_id
        _remember(self._explanations, decision_id, explanation, self.numbers.kept_decisions)
        if chosen is not None and explanation.placement.runs:
            self._place(explanation.query, explanation.placement, chosen, now)

    def settle(self, outcome: Outcome) -> None:
        """A request has ended: nothing is held for it any more. Unknown decisions are no matter."""
        for engine in self.engines.values():
            engine.release(outcome.decision_id)
        explanation = self._explanations.get(outcome.decision_id)
        if explanation is None:
            return
        self._explanations[outcome.decision_id] = replace(explanation, outcome=outcome)
        if outcome.finished in ("stop", "length"):
            self._learn(explanation, outcome)

    def explain(self, decision_id: str) -> Explanation | None:
        return self._explanations.get(decision_id)

    def forget_old_holds(self, now: float) -> None:
        for engine in self.engines.values():
            engine.forget_old_holds(now)

    def _serving_by_name(self, name: str | None) -> EngineState | None:
        engine = self.engines.get(name or "")
        return None if engine is None or engine.draining else engine

    def _place(
        self, query: PlacementQuery, placement: Placement, chosen: WayConsidered, now: float
    ) -> None:
        prefill, decode = placement.prefill, placement.decode
        assert decode is not None
        first_in_s = max(0.0, (chosen.ttft_s or 0.0) - query.waited_s)
        ends_at_s = None if chosen.finish_s is None else now + chosen.finish_s - query.waited_s
        output_tokens = self.expected_output_tokens(query)
        whole = Hold(
            decision_id=placement.decision_id,
            request_id=query.request_id,
            prefill_tokens=self.tokens_to_compute(query, now),
            kv_tokens=query.prompt_tokens + output_tokens,
            due_at_s=now,
            ends_at_s=ends_at_s,
        )
        if prefill is None:
            self.engines[decode.name].hold(whole)
        else:
            arrives_at_s = now + first_in_s + (chosen.transfer_s or 0.0)
            prompt = replace(whole, kv_tokens=query.prompt_tokens, ends_at_s=arrives_at_s)
            self.engines[prefill.name].hold(prompt)
            rest = replace(whole, prefill_tokens=0, due_at_s=arrives_at_s)
            self.engines[decode.name].hold(rest)
        engines = (prefill.name if prefill else None, decode.name, now)
        _remember(self._groups, query.group_id, engines, _KEPT_GROUPS)

    def _learn(self, explanation: Explanation, outcome: Outcome) -> None:
        class_name = explanation.query.targets.class_name
        usual = self._output_tokens.get(class_name, float(outcome.output_tokens))
        usual += _FRESH * (outcome.output_tokens - usual)
        _remember(self._output_tokens, class_name, usual, _KEPT_CLASSES)
        prefill, decode = explanation.placement.prefill, explanation.placement.decode
        if prefill and decode:
            pair = (prefill.name, decode.name)
            share = self._recomputed.get(pair, 0.0)
            share += _FRESH * (float(outcome.recomputed) - share)
            _remember(self._recomputed, pair, share, _KEPT_PAIRS)


def engines_by_role(engines: Iterable[EngineState]) -> dict[Role, int]:
    counts = dict.fromkeys(Role, 0)
    for engine in engines:
        counts[engine.description.role] += 1
    return counts


def _inherit(engine: EngineState, before: EngineState) -> None:
    """The same process on a new stream: what it reported and holds is still true."""
    engine.report = before.report
    engine.seen.update(before.seen)
    for hold in before.unseen.values():
        engine.hold(hold)


def _remember(store: OrderedDict[_K, _V], key: _K, value: _V, limit: int) -> None:
    store[key] = value
    store.move_to_end(key)
    while len(store) > limit:
        store.popitem(last=False)
