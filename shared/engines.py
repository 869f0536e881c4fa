"""An engine as the planner sees it: what it is, what each step did, and what it is told to do."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

KV_USED: Final = "used"
_LEAST_SPAN_TOKENS: Final = 64  # 28,000 blocks of 16 tokens are 7,000 hashes to tell and to keep


def prefix_span_tokens(block_size_tokens: int) -> int:
    """How many tokens, in whole blocks, a hash stands for that engines tell of their caches."""
    return block_size_tokens * -(-_LEAST_SPAN_TOKENS // block_size_tokens)


class Role(StrEnum):
    """What an engine is for. Any engine can do both kinds of work."""

    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class KvAddress:
    """Where other engines fetch KV blocks from."""

    transport: str  # nixl | zmq
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDescription:
    """What an engine says of itself when it registers.

    `engine_id` is new with every start; `name` is stable. `kv_bytes_per_token` is what one token's
    KV weighs over all layers. `step_time` is its table of step times
    (`shared.batch_time.StepTable`), empty while it has none. `kv_addresses` are those of all its
    transports, best first; an engine with one transport may give `kv_address` alone.
    `prefix_span_tokens` are those of each hash in its `PrefixNews`; 0: it tells nothing of its
    prefix cache.
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

    @property
    def transports(self) -> tuple[str, ...]:
        """Over which it exchanges KV, best first."""
        alone = (self.kv_address,) if self.kv_address else ()
        return tuple(dict.fromkeys(one.transport for one in self.kv_addresses or alone))

    @property
    def kv_capacity_tokens(self) -> int:
        return self.kv_blocks * self.block_size_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafts:
    """What became of the drafted tokens of one class since the last report."""

    class_name: str
    verifications: int
    drafted_tokens: int
    accepted_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KvTransfer:
    """One transfer of a request's KV blocks, as the engine that pulled them saw it.

    `outcome` is `KV_USED` when the blocks were used; any other word says why the prompt was
    computed again.
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
    """How an engine's prefix cache has changed: hashes of spans that are there now or no longer,
    none of them in both. Each hash stands for its span of a prompt and all before it.

    `anew`: what was told before does not count, `stored` is all that is there.
    """

    stored: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()
    anew: bool = False

    def __bool__(self) -> bool:
        return bool(self.stored or self.removed or self.anew)

    def bring_up_to_date(self, hashes: set[int]) -> None:
        """Changes what was there before, in place."""
        if self.anew:
            hashes.clear()
        hashes.difference_update(self.removed)
        hashes.update(self.stored)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What one engine step did, and how the engine stands after it.

    Counts are tokens computed in the step, by kind; contexts, chunks, earlier tokens and attention
    pairs are those of `shared.batch_time.Step`. `predicted_s` is what the engine expected the step
    to take (0: it knew nothing), `busy_s` how long it expects to be busy with steps already formed.
    `late` counts promised tokens that came after their deadline in this step, `worst_late_s` is by
    how much; `evicted` counts requests whose KV was dropped to make room.

    `queued_prefill_tokens` is the prompt work not yet computed of waiting and running requests.
    `finished` lists request ids that left the engine since the last report. `kv_transfers_failed`
    counts transfers whose prompt was computed again here, `kv_transfers` are those that ended
    since the last report. `requests` holds a row for each request
    in the engine (`shared.scheduling.rows`), `step_time` its table of step times, `prefixes` how
    its prefix cache has changed since the last report; all are empty where nothing is told of them.
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
    step_time: bytes = b""
    kv_transfers: tuple[KvTransfer, ...] = ()
    prefixes: PrefixNews = field(default_factory=PrefixNews)

    @property
    def tokens(self) -> int:
        return self.prefill_tokens + self.decode_tokens + self.speculated_tokens

    @property
    def context_tokens(self) -> int:
        """All KV that the step read."""
        return self.decode_context_tokens + self.earlier_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the planner tells an engine. It goes on with the last one when the planner is away.

    `max_step_tokens` 0 keeps the engine's own limit. `speculation_tokens` bounds speculation for
    requests whose class has no entry in `speculation_by_class`; None keeps the engine's own.
    `longest_step_s` 0 bounds no step's time: a step that nothing hurries could otherwise keep a
    tight request waiting that comes while it runs. Best effort leaves `kept_blocks` of the KV cache
    free beside promised requests: what is cached in them will be asked for again.
    """

    version: int = 0
    max_step_tokens: int = 0
    speculation_tokens: int | None = None
    speculation_by_class: dict[str, int] = field(default_factory=dict)
    longest_step_s: float = 0.0
    kept_blocks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineView:
    """An attached engine as the planner shows it to gateways and people.

    `stalled`: neither its host nor its engine core gives a sign of progress.
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
    """How many engines of each role the requests of the last `window_s` needed.

    `present_prefill` and `present_decode` are attached and not draining. `reason` says in words
    what the numbers rest on.
    """

    desired_prefill: int
    desired_decode: int
    present_prefill: int
    present_decode: int
    window_s: float
    reason: str
