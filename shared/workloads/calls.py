"""What a load is made of: programs of calls, with lengths and targets. No tokens, no clock."""

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

from shared.requests import OnRefuse, Pacing, SloTargets, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLoad:
    """A part of an answer: how long it gets, and the pace that is asked for it; infinite: none."""

    name: str
    output_tokens: int
    tpot_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to the gateway, and what nobody but the load knows: how long it will be.

    `prompt_tokens` is all of the prompt, with what earlier calls of the program left in it; of
    these the first `prefix_tokens` were computed before, by earlier calls of the program or of the
    program that `prefix_group` names, and may still be in an engine's cache. `after_s` is the time
    of the tool or the user, from the end of the program's previous call. `acceptance` is the mean
    chance that a drafted token of this call is accepted.
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
        """What has to be computed even by an engine that has kept everything."""
        return self.prompt_tokens - self.prefix_tokens

    def targets(self, on_refuse: OnRefuse = OnRefuse.BEST_EFFORT) -> SloTargets:
        """The call's targets as the gateway asks the planner for them."""
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


Load: TypeAlias = tuple[Program, ...]  # in the order in which its programs arrive


def rate(load: Load) -> float:
    """Programs per second between the first and the last to arrive; 0 for fewer than two."""
    if len(load) < 2 or load[-1].arrives_s <= load[0].arrives_s:
        return 0.0
    return (len(load) - 1) / (load[-1].arrives_s - load[0].arrives_s)


def requests(load: Load) -> int:
    """Calls of all programs."""
    return sum(len(program.calls) for program in load)


def total_tokens(load: Load) -> int:
    """Prompts and answers, without the part of a prompt that was computed before."""
    return sum(call.new_prompt_tokens + call.output_tokens for p in load for call in p.calls)


def at_rate(load: Load, programs_per_s: float) -> Load:
    """The same programs at another rate: the times between arrivals are stretched alike.

    The first arrives at 0. Raises ValueError for a rate that is not above 0, and for a load whose
    programs all come at once.
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
