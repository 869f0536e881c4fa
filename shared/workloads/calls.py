"""The parts of a load: programs of calls, with lengths and targets."""

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

from shared.requests import OnRefuse, Pacing, SloTargets, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLoad:
    """A stage of an answer: its length, and its TPOT target, infinite for none."""

    name: str
    output_tokens: int
    tpot_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to the gateway, and its output length, which only the load knows.

    Attributes:
        prompt_tokens: The whole prompt, with the text of earlier calls of its program.
        prefix_tokens: Its first tokens that an earlier call of its program, or of the group
            `prefix_group`, has computed; an engine may have them cached.
        after_s: Time of the tool or user since the end of the program's previous call.
        acceptance: Mean probability that a drafted token is accepted.
    """

    class_name: str
    prompt_tokens: int
    stages: tuple[StageLoad, ...]
    max_output_tokens: int
    prefix_tokens: int = 0
    prefix_group: str | None = None
    ttft_s: float | None = None
    ttft_slowdown: float | None = None
    after_s: float = 0.0
    value: float = 1.0
    acceptance: float = 0.7
    pacing: Pacing = Pacing.MEAN

    def __post_init__(self) -> None:
        outputs = [stage.output_tokens for stage in self.stages]
        if not outputs or min(outputs) < 0:
            raise ValueError("a call has at least one stage, and none with tokens below 0")
        if not 0 < sum(outputs) <= self.max_output_tokens:
            raise ValueError(f"{sum(outputs)} tokens of at most {self.max_output_tokens}")
        if not 0 <= self.prefix_tokens <= self.prompt_tokens or self.prompt_tokens < 1:
            raise ValueError(f"{self.prefix_tokens} of {self.prompt_tokens} prompt tokens")

    @property
    def output_tokens(self) -> int:
        return sum(stage.output_tokens for stage in self.stages)

    @property
    def new_prompt_tokens(self) -> int:
        """Prompt tokens that even an engine with a full cache has to compute."""
        return self.prompt_tokens - self.prefix_tokens

    def targets(self, on_refuse: OnRefuse = OnRefuse.BEST_EFFORT) -> SloTargets:
        """The call's targets as in a query of the gateway."""
        staged, pace_s = len(self.stages) > 1, self.stages[0].tpot_s
        return SloTargets(
            class_name=self.class_name,
            ttft_s=self.ttft_s,
            ttft_slowdown=self.ttft_slowdown,
            tpot_s=None if staged or math.isinf(pace_s) else pace_s,
            stages=tuple(Stage(name=one.name, tpot_s=one.tpot_s) for one in self.stages)
            if staged
            else (),
            on_refuse=on_refuse,
            value=self.value,
            pacing=self.pacing,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A chat, a tool loop, or one call: each call starts when the one before it has ended."""

    program_id: str
    application: str
    arrives_s: float
    calls: tuple[Call, ...]

    def __post_init__(self) -> None:
        if not self.calls:
            raise ValueError(f"program {self.program_id} has no call")


Load: TypeAlias = tuple[Program, ...]  # in the order of arrival


def rate(load: Load) -> float:
    """Programs per second between the first and the last arrival; 0 for fewer than two."""
    if len(load) < 2 or load[-1].arrives_s <= load[0].arrives_s:
        return 0.0
    return (len(load) - 1) / (load[-1].arrives_s - load[0].arrives_s)


def requests(load: Load) -> int:
    """The number of calls of all programs."""
    return sum(len(program.calls) for program in load)


def total_tokens(load: Load) -> int:
    """Tokens of all prompts and answers, without prefixes that were computed before."""
    return sum(call.new_prompt_tokens + call.output_tokens for p in load for call in p.calls)


def at_rate(load: Load, programs_per_s: float) -> Load:
    """The same programs at another rate: all gaps are scaled by one factor, from time 0.

    Raises ValueError for a rate that is not above 0, and for programs that all arrive at once.
    """
    if programs_per_s <= 0:
        raise ValueError(f"a rate is above 0, not {programs_per_s}")
    if len(load) < 2:
        return tuple(replace(program, arrives_s=0.0) for program in load)
    now = rate(load)
    if not now:
        raise ValueError("programs that all come at once cannot be stretched")
    start, stretch = load[0].arrives_s, now / programs_per_s
    return tuple(replace(one, arrives_s=(one.arrives_s - start) * stretch) for one in load)
