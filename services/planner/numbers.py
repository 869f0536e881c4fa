"""The few numbers that decisions rest on. Reads no options."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerNumbers:
    """`model` and `vllm_version` None: the first engine sets them. The KV ones are for pairs of
    engines that nothing is known of. `grace_s` is how long after its own start or the loss of an
    engine the planner has requests wait, `hold_s` each time, rather than refuse them.
    `patience_s` is how long a request that asked for no start waits for an engine that can hold its
    pace. `by_program`: the multi-SLO program settles who gets an engine that not all can have, else
    the earliest deadline does; `same_pace_first`: engines that step as quickly already are
    preferred. Both are there to be switched off where somebody wants to see what they are worth.
    """

    model: str | None = None
    vllm_version: str | None = None
    kv_bytes_per_second: float = 5e8
    kv_fixed_s: float = 0.005
    grace_s: float = 10.0
    hold_s: float = 0.5
    retry_after_s: float = 1.0
    patience_s: float = 5.0
    kept_decisions: int = 4096
    by_program: bool = True
    same_pace_first: bool = True
