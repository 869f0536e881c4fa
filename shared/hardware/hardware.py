"""All that a simulator must know of an engine, as one value. Reads no file."""

from dataclasses import dataclass, replace

from shared.hardware.truth import KnownStep, TrueStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A draft model beside the engine's own. `step_s`: one run of it, `sequence_s`: more for each
    sequence; both are part of the true step.
    """

    model: str
    max_speculation_tokens: int
    step_s: float
    sequence_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One model on one sort of GPU. `source` says where each figure comes from.

    `step`: the true time of a step, and its noise. `stall_chance`, `stall_s`: a rare step that
    lasts so much longer. `host_overhead_s`: between two steps, in no step's time.
    `link_bytes_per_s`, `link_latency_s`: of a KV transfer between two such engines. The model is
    on `gpus` by tensor parallelism.
    """

    name: str
    model: str
    gpu: str
    gpus: int
    source: str
    step: TrueStep | KnownStep
    stall_chance: float
    stall_s: float
    kv_blocks: int
    block_size_tokens: int
    kv_bytes_per_token: float
    max_step_tokens: int
    max_running_requests: int
    max_model_len_tokens: int
    link_bytes_per_s: float
    link_latency_s: float
    host_overhead_s: float
    draft: Draft | None = None

    @property
    def kv_tokens(self) -> int:
        return self.kv_blocks * self.block_size_tokens

    @property
    def noise_sigma(self) -> float:
        """Of the log-normal factor on each step, whose mean is 1."""
        return self.step.noise_sigma

    def slower(self, factor: float) -> "Hardware":
        """The same engine where all of its steps last `factor` times as long."""
        return replace(self, step=self.step.slower(factor))
