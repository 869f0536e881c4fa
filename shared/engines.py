"""Data about engines: their descriptions, step reports, policies and views."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

KV_USED: Final = "used"
_LEAST_SPAN_TOKENS: Final = 64  # 28,000 blocks of 16 tokens make 7,000 hashes to send and to keep


def prefix_span_tokens(block_size_tokens: int) -> int:
    """Tokens, in whole blocks, that each hash stands for when engines report their caches."""
    return block_size_tokens * -(-_LEAST_SPAN_TOKENS // block_size_tokens)


class Role(StrEnum):
    """The main work of an engine. Any engine can do both kinds of work."""

    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class KvAddress:
    """An address from which other engines fetch KV blocks."""

    transport: str  # nixl | zmq
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDescription:
    """What an engine sends when it registers.

    Attributes:
        name: Stable over starts.
        engine_id: New at every start.
        kv_bytes_per_token: Bytes of one token's KV over all layers.
        kv_address: Its transport; an engine with several gives `kv_addresses`, best first.
        step_time: Its table of step times (`shared.batch_time.StepTable`); empty if it has none.
        prefix_span_tokens: Tokens of each hash in its `PrefixNews`; 0 if it sends none.
        adapter_slots: LoRA adapters that may run at once; 0 without LoRA.
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
    step_time: bytes = b""
    kv_addresses: tuple[KvAddress, ...] = ()
    prefix_span_tokens: int = 0
    adapter_slots: int = 0

    @property
    def transports(self) -> tuple[str, ...]:
        """The transports over which it exchanges KV, best first."""
        alone = (self.kv_address,) if self.kv_address else ()
        return tuple(dict.fromkeys(one.transport for one in self.kv_addresses or alone))

    @property
    def kv_capacity_tokens(self) -> int:
        return self.kv_blocks * self.block_size_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafts:
    """Drafted and accepted tokens of one class since the last report."""

    class_name: str
    verifications: int
    drafted_tokens: int
    accepted_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KvTransfer:
    """One transfer of a request's KV blocks, measured by the engine that pulled them.

    `outcome` is `KV_USED` if the blocks were used; any other word says why the prompt was computed
    again.
    """

    request_id: str
    peer_engine_id: str
    transport: str
    bytes: int
    seconds: float
    outcome: str

    @property
    def used(self) -> bool:
        return self.outcome == KV_USED


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixNews:
    """Changes of an engine's prefix cache, as hashes of spans.

    Each hash stands for its span of a prompt and all before it. No hash is both `stored` and
    `removed`. `anew`: `stored` is the whole cache, and replaces earlier news.
    """

    stored: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()
    anew: bool = False

    def __bool__(self) -> bool:
        return bool(self.stored or self.removed or self.anew)

    def bring_up_to_date(self, hashes: set[int]) -> None:
        """Applies the changes to a set of hashes, in place."""
        if self.anew:
            hashes.clear()
        hashes.difference_update(self.removed)
        hashes.update(self.stored)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What one engine step did, and the state of the engine after it.

    Token counts are those computed in the step, by kind; contexts, chunks, earlier tokens and
    attention pairs are those of `shared.batch_time.Step`.

    Attributes:
        queued_prefill_tokens: Prompt tokens of waiting and running requests not yet computed.
        finished: Ids of requests that left the engine since the last report.
        predicted_s: Step time that the engine predicted; 0 if it could not.
        busy_s: Predicted time of the steps that are already formed.
        late: Promised tokens of this step that came after their deadline.
        worst_late_s: The greatest delay among them.
        evicted: Requests that lost their KV to make room.
        requests: A row for each request in the engine (`shared.scheduling.rows`); may be empty.
        shared_tokens: SHARED of each of these rows; empty where it is 0 for all.
        step_time: Its table of step times; may be empty.
        kv_transfers_failed: Transfers that failed, so that the prompt was computed again here.
        kv_transfers: Transfers that ended since the last report.
        prefixes: Changes of its prefix cache since the last report.
        adapters: Numbers of the LoRA adapters of its requests.
    """

    step: int
    ended_at_s: float  # the engine's monotonic clock
    duration_s: float
    prefill_tokens: int
    decode_tokens: int
    decode_context_tokens: int
    speculated_tokens: int
    accepted_tokens: int
    running: int
    waiting: int
    queued_prefill_tokens: int
    free_kv_blocks: int
    kv_transfers_failed: int = 0
    finished: tuple[str, ...] = ()
    longest_context_tokens: int = 0
    chunks: int = 0
    earlier_tokens: int = 0
    attention_pairs: float = 0.0
    longest_prompt_tokens: int = 0
    predicted_s: float = 0.0
    busy_s: float = 0.0
    late: int = 0
    worst_late_s: float = 0.0
    evicted: int = 0
    drafts: tuple[Drafts, ...] = ()
    requests: bytes = b""
    shared_tokens: bytes = b""
    step_time: bytes = b""
    kv_transfers: tuple[KvTransfer, ...] = ()
    prefixes: PrefixNews = field(default_factory=PrefixNews)
    adapters: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        return self.prefill_tokens + self.decode_tokens + self.speculated_tokens

    @property
    def context_tokens(self) -> int:
        """All KV that the step read."""
        return self.decode_context_tokens + self.earlier_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the planner tells an engine, which keeps the last one while the planner is away.

    Attributes:
        max_step_tokens: Token budget of a step; 0 keeps the engine's own.
        speculation_tokens: Draft length of classes without an entry in `speculation_by_class`;
            None keeps the engine's own.
        longest_step_s: Limit of a step's time, so that a tight request that arrives meanwhile does
            not wait long; 0: no limit.
        kept_blocks: KV blocks that best effort leaves free beside promised requests, for cached
            prefixes that will be used again.
    """

    version: int = 0
    max_step_tokens: int = 0
    speculation_tokens: int | None = None
    speculation_by_class: dict[str, int] = field(default_factory=dict)
    longest_step_s: float = 0.0
    kept_blocks: int = 0

    def drafts_of(self, class_name: str) -> int | None:
        """The draft length of a class; None: the engine's own."""
        return self.speculation_by_class.get(class_name, self.speculation_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineView:
    """An attached engine as the planner shows it to gateways and people.

    `stalled`: its host is silent or its engine core makes no progress, for too long.
    """

    description: EngineDescription
    draining: bool = False
    running: int = 0
    waiting: int = 0
    free_kv_blocks: int = 0
    stalled: bool = False

    @property
    def serves(self) -> bool:
        """Whether it can take a request now."""
        return not (self.draining or self.stalled)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleAdvice:
    """The number of engines of each role that the requests of the last `window_s` needed.

    `present_prefill` and `present_decode` count attached engines that do not drain. `reason`
    explains the numbers in words.
    """

    desired_prefill: int
    desired_decode: int
    present_prefill: int
    present_decode: int
    window_s: float
    reason: str
