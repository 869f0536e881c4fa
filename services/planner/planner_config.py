"""The operator's numbers that decisions depend on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerConfig:
    """The options that decisions use.

    Attributes:
        model, vllm_version: What engines must register; None: the first engine sets it.
        kv_bytes_per_second, kv_fixed_s: The KV transfer time of a pair without measurements.
        grace_s: After a start of the planner or the loss of an engine, requests without an engine
            wait for this long instead of being refused.
        hold_s: The longest wait of one call; an undecided request is deferred then and asks again.
        patience_s: How long a request without a TTFT target waits for an engine that can hold its
            TPOT.
        admission_dp: The admission DP decides which requests get a contested engine; off: EDF.
        same_pace_first: Prefers engines that step as quickly already. This and `admission_dp` can
            be switched off to measure what they gain.
        pull_prefixes: A cached prefix is pulled from another engine where that is faster than to
            compute it.
    """

    model: str | None = None
    vllm_version: str | None = None
    kv_bytes_per_second: float = 5e8
    kv_fixed_s: float = 0.005
    grace_s: float = 10.0
    hold_s: float = 0.5
    retry_after_s: float = 1.0
    patience_s: float = 60.0
    kept_decisions: int = 4096
    admission_dp: bool = True
    same_pace_first: bool = True
    pull_prefixes: bool = False
