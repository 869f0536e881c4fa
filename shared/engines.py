"""An engine as the planner sees it: what it is, what each step did, and what it is told to do."""

from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """What an engine is for. Any engine can do both kinds of work."""

    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class KvAddress:
    """Where other engines fetch KV blocks from."""

    transport: str  # nixl
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDescription:
    """What an engine says of itself when it registers.

    `engine_id` is new with every start; `name` is stable. `kv_bytes_per_token` is what one token's
    KV weighs over all layers.
    """

    name: str
    engine_id: str
    role: Role
    address: str
    model: str
    vllm_version: str
    block_size_tokens: int
    kv_blocks: int
    kv_bytes_per_token: int
    max_model_len_tokens: int
    max_running_requests: int
    max_step_tokens: int
    max_speculation_tokens: int
    kv_address: KvAddress | None = None
    metrics_address: str = ""

    @property
    def kv_capacity_tokens(self) -> int:
        return self.kv_blocks * self.block_size_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What one engine step did. Counts are tokens computed in the step, by kind.

    `queued_prefill_tokens` is the prompt work not yet computed of waiting and running requests.
    `finished` lists request ids that left the engine since the last report. `kv_transfers_failed`
    counts transfers whose prompt was computed again here.
    """

    step: int
    ended_at_s: float  # the engine's monotonic clock
    duration_s: float
    prefill_tokens: int
    decode_tokens: int
    context_tokens: int
    speculated_tokens: int
    accepted_tokens: int
    running: int
    waiting: int
    queued_prefill_tokens: int
    free_kv_blocks: int
    kv_transfers_failed: int = 0
    finished: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        return self.prefill_tokens + self.decode_tokens + self.speculated_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the planner tells an engine. It goes on with the last one when the planner is away.

    `max_step_tokens` 0 keeps the engine's own limit. `speculation_tokens` bounds speculation for
    requests whose class has no entry in `speculation_by_class`; None keeps the engine's own.
    """

    version: int = 0
    max_step_tokens: int = 0
    speculation_tokens: int | None = None
    speculation_by_class: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineView:
    """An attached engine as the planner shows it to gateways and people."""

    description: EngineDescription
    draining: bool = False
    running: int = 0
    waiting: int = 0
    free_kv_blocks: int = 0
