"""Keeps each decision until its request has ended, and then adds its outcome and the step times
beside those that were expected.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from services.planner.state.step_history import StepHistory
from shared.batch_time import StepTable
from shared.engines import StepReport
from shared.requests import Admission, Explanation, Outcome

_SETTLING_S: Final = 0.5  # the report of a request's last step may come after its end
_MOST_OPEN: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    """A decision that has not ended. Times are on the planner's clock; `tables` are the step times
    of its engines as known at the decision.
    """

    explanation: Explanation
    decided_at_s: float
    tables: dict[str, StepTable | None] = field(default_factory=dict)

    @property
    def arrived_at_s(self) -> float:
        return self.decided_at_s - self.explanation.query.waited_s


@dataclass(slots=True)
class DecisionRecords:
    """The open decisions. `ended` returns each decision once.

    A refusal has ended when it is made. A decision without a report of its gateway is returned
    without an outcome when more than `most_open` younger ones are open.
    """

    most_open: int = _MOST_OPEN
    _open: OrderedDict[str, _Open] = field(default_factory=OrderedDict)
    _settled: deque[tuple[float, _Open]] = field(default_factory=deque)
    _ended: list[Explanation] = field(default_factory=list)
    _histories: dict[str, StepHistory] = field(default_factory=dict)

    def decided(
        self, explanation: Explanation, tables: dict[str, StepTable | None], now: float
    ) -> None:
        """Adds a decision, or replaces a deferred one. `tables`: step times by engine name."""
        if explanation.placement.admission is Admission.REFUSED:
            self._open.pop(explanation.placement.decision_id, None)
            self._ended.append(explanation)
            return
        decision_id = explanation.placement.decision_id
        self._open[decision_id] = _Open(explanation=explanation, decided_at_s=now, tables=tables)
        while len(self._open) > self.most_open:
            self._ended.append(self._open.popitem(last=False)[1].explanation)

    def reported(self, engine: str, reports: Sequence[StepReport], now: float) -> None:
        self._histories.setdefault(engine, StepHistory()).add(reports, now)

    def left(self, engine: str) -> None:
        """Closes its settled decisions and drops its steps: another process, with another clock,
        may take its name.
        """
        self._close_settled(math.inf)
        self._histories.pop(engine, None)

    def settled(self, outcome: Outcome, now: float) -> None:
        """Adds the outcome to its decision; ignores unknown decisions."""
        one = self._open.pop(outcome.decision_id, None)
        if one is not None:
            explanation = replace(one.explanation, outcome=outcome)
            self._settled.append((now, replace(one, explanation=explanation)))

    def ended(self, now: float) -> list[Explanation]:
        """The decisions that ended since the last call. Settled ones wait for their last report."""
        self._close_settled(now - _SETTLING_S)
        taken, self._ended = self._ended, []
        return taken

    def all_that_is_left(self) -> list[Explanation]:
        """All decisions that were not returned yet, ended or not."""
        taken = self.ended(math.inf)
        taken += [one.explanation for one in self._open.values()]
        self._open.clear()
        return taken

    def _close_settled(self, until_s: float) -> None:
        while self._settled and self._settled[0][0] <= until_s:
            self._ended.append(self._with_steps(self._settled.popleft()[1]))

    def _with_steps(self, one: _Open) -> Explanation:
        explanation, outcome = one.explanation, one.explanation.outcome
        placement = explanation.placement
        if outcome is None or outcome.ttft_s is None or placement.decode is None:
            return explanation
        first_at_s = one.arrived_at_s + outcome.ttft_s
        due_at_s = one.arrived_at_s + (placement.ttft_s or math.inf)
        last_at_s = first_at_s + (outcome.tpot_s or 0.0) * max(0, outcome.output_tokens - 1)
        start, end = placement.prefill or placement.decode, placement.decode
        spans = (
            (start.name, one.decided_at_s, min(first_at_s, due_at_s)),
            (end.name, first_at_s, last_at_s),
        )
        before, after = (
            self._histories[name].sums(name, one.tables.get(name), start_s, end_s)
            if name in self._histories
            else None
            for name, start_s, end_s in spans
        )
        return replace(explanation, before_first=before, after_first=after)
