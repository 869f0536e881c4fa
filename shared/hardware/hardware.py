"""The description of an engine for the simulator, as one value."""

from dataclasses import dataclass, replace

from shared.hardware.truth import KnownStep, TrueStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A draft model beside the engine's own.

    `step_s` is the time of one run, `sequence_s` the additional time of each sequence; both are
    part of the true step.
    """

    model: str
    max_speculation_tokens: int
    step_s: float
    sequence_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One model on one sort of GPU.

    Attributes:
        gpus: Number of GPUs, by tensor parallelism.
        source: The origin of each figure.
        step: The true time of a step, and its noise.
        stall_chance: Probability that a step lasts `stall_s` longer.
        link_bytes_per_s: Rate of a KV transfer between two such engines.
        link_latency_s: Latency of such a transfer.
        host_overhead_s: Time between two steps, not part of either.
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
        """Sigma of the log-normal noise factor on each step, of mean 1."""
        return self.step.noise_sigma

    def slower(self, factor: float) -> "Hardware":
        """The same engine with all steps `factor` times as long."""
        return replace(self, step=self.step.slower(factor))
