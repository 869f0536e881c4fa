"""Counts, by class, how many requests had which SLO and met it."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from shared.engine.standalone import DEFAULT_CLASS, Slo


class Kind(StrEnum):
    """How a request was taken. INVALID: what it asked for could not be read, so that it is served
    without an SLO.
    """

    SLO = "slo"
    NO_SLO = "no_slo"
    INVALID = "invalid"


class Target(StrEnum):
    """A part of an SLO."""

    TTFT = "ttft"
    TPOT = "tpot"


@dataclass(slots=True)
class _Answer:
    """The answer so far of a request with an SLO. Times are seconds on the engine's clock."""

    slo: Slo
    arrived_s: float
    first_s: float = 0.0
    last_s: float = 0.0
    tokens: int = 0


@dataclass(slots=True)
class Attainment:
    """Counts since the engine's start. `taken` is by class and kind, `judged` by class, target and
    whether it was met.

    TTFT is judged at the first token, TPOT at the end of an answer of two tokens or more: the mean
    time per token after the first. A request that ends without a token has missed its TTFT if the
    deadline has passed, and is else not judged.
    """

    taken: Counter[tuple[str, Kind]] = field(default_factory=Counter)
    judged: Counter[tuple[str, Target, bool]] = field(default_factory=Counter)
    _answers: dict[str, _Answer] = field(default_factory=dict)

    def take(self, request_id: str, slo: Slo, kind: Kind, *, arrived_s: float) -> None:
        """Counts a request that came, and follows its answer if it has an SLO."""
        self.taken[slo.class_name, kind] += 1
        if kind is Kind.SLO:
            self._answers[request_id] = _Answer(slo, arrived_s)

    def take_invalid(self) -> None:
        self.taken[DEFAULT_CLASS, Kind.INVALID] += 1

    def give(self, request_id: str, tokens: int, now: float) -> None:
        """A step gave so many tokens of the answer."""
        answer = self._answers.get(request_id)
        if answer is None or tokens <= 0:
            return
        if not answer.tokens:
            answer.first_s = now
            self._judge_first(answer, now)
        answer.last_s = now
        answer.tokens += tokens

    def end(self, request_id: str, now: float) -> None:
        """The request left, for whatever reason; a second call does nothing."""
        answer = self._answers.pop(request_id, None)
        if answer is None:
            return
        slo = answer.slo
        if not answer.tokens:
            if slo.ttft_s is not None and now - answer.arrived_s > slo.ttft_s:
                self._judge_first(answer, now)
        elif slo.tpot_s is not None and answer.tokens > 1:
            tpot_s = (answer.last_s - answer.first_s) / (answer.tokens - 1)
            self.judged[slo.class_name, Target.TPOT, tpot_s <= slo.tpot_s] += 1

    def _judge_first(self, answer: _Answer, now: float) -> None:
        slo = answer.slo
        if slo.ttft_s is not None:
            met = now - answer.arrived_s <= slo.ttft_s
            self.judged[slo.class_name, Target.TTFT, met] += 1

    def lines(self) -> list[str]:
        """One line for each class that has requests, for the log."""
        return [self._line(name) for name in sorted({name for name, _ in self.taken.copy()})]

    def _line(self, name: str) -> str:
        kinds = ", ".join(f"{self.taken[name, one]} {one}" for one in Kind if self.taken[name, one])
        parts = [f"class {name}: {kinds}"]
        for target in Target:
            met, missed = (self.judged[name, target, one] for one in (True, False))
            if met + missed:
                parts.append(f"{target.upper()} met by {met} of {met + missed}")
        return "; ".join(parts)
