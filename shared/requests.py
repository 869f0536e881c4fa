"""Data about requests: targets, queries, placements, outcomes, explanations and phases."""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

from shared.engines import KvTransfer

DEFAULT_TENANT: Final = "default"
"""The tenant of all requests without the key of another one."""


class PlacementMode(StrEnum):
    """Placement mode: the prompt runs on the decode engine, or elsewhere with its KV moved."""

    COLOCATED = "colocated"
    DISAGGREGATED = "disaggregated"


class Admission(StrEnum):
    """The planner's decision on a request."""

    ADMITTED = "admitted"
    DEFERRED = "deferred"
    BEST_EFFORT = "best_effort"
    REFUSED = "refused"


class OnRefuse(StrEnum):
    """What becomes of a request if its targets cannot be promised."""

    REFUSE = "refuse"
    BEST_EFFORT = "best_effort"


class Pacing(StrEnum):
    """What a TPOT target promises.

    MEAN: the mean time per token of each stage, after the first token. DEADLINES: token n by the
    arrival plus TTFT plus n - 1 TPOT targets, so that an answer that begins early may slow down
    later; without a TTFT it is MEAN.
    """

    MEAN = "mean"
    DEADLINES = "deadlines"


class Reason(StrEnum):
    """The reason for a decision; `NONE` for a plain admission."""

    NONE = "none"
    NO_TARGET = "no_target"  # it has no targets, so nothing is promised
    COMPUTE = "compute"  # the targets cannot be met at this load
    MEMORY = "memory"  # the KV cache cannot hold it now
    NEVER = "never"  # no engine of this fleet could ever hold or meet it
    NO_ENGINE = "no_engine"  # no engine is attached that could serve it
    PLANNER_AWAY = "planner_away"  # decided by the gateway alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of an answer with its own TPOT target, e.g. `thinking` and `answer`."""

    name: str
    tpot_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SloTargets:
    """The SLO of a request. None means no target.

    `ttft_slowdown` is a multiple of the zero-load TTFT of the same prompt; if `ttft_s` is given as
    well, `ttft_s` holds. `value` is the worth of the kept promise relative to other requests, when
    not all can be served.
    """

    class_name: str = "default"
    ttft_s: float | None = None
    ttft_slowdown: float | None = None
    tpot_s: float | None = None
    stages: tuple[Stage, ...] = ()
    on_refuse: OnRefuse = OnRefuse.BEST_EFFORT
    value: float = 1.0
    pacing: Pacing = Pacing.MEAN

    @property
    def tightest_tpot_s(self) -> float | None:
        """The least TPOT target of all stages, which the engine must be able to keep."""
        paces = [stage.tpot_s for stage in self.stages]
        if self.tpot_s is not None:
            paces.append(self.tpot_s)
        return min(paces, default=None)

    @property
    def asks_for_nothing(self) -> bool:
        return self.ttft_s is None and self.ttft_slowdown is None and self.tightest_tpot_s is None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptHashes:
    """Hashes of a prompt's whole spans of `span_tokens`, each of its span and of all before it.

    Two prompts with the same n-th hash begin with the same n spans.
    """

    span_tokens: int
    hashes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementQuery:
    """A request for a placement, from the gateway to the planner.

    Attributes:
        group_id: Shared by the sequences of one client request (`n > 1`), which have one prompt.
        session_id: The session, unique within its tenant.
        waited_s: Time since the request's arrival at the gateway.
        forced_way: The placement mode that the client requires, if any.
        whole_on_one_engine: Splitting would change the result (prompt logprobs, pooling).
        avoid: Ids of engines that failed the gateway, used only if no other can serve.
        weight: The tenant's share when not all can be served.
        client_id: The client's `x-request-id`, for records; two clients may send the same one.
        prompt_hashes: Show which engines hold KV of the prompt's beginning; None if unknown.
        adapter: The number of its LoRA adapter; 0 without one.
    """

    request_id: str
    group_id: str
    session_id: str | None = None
    model: str
    targets: SloTargets
    prompt_tokens: int
    max_output_tokens: int
    waited_s: float = 0.0
    forced_way: PlacementMode | None = None
    whole_on_one_engine: bool = False
    avoid: tuple[str, ...] = ()
    tenant: str = DEFAULT_TENANT
    weight: float = 1.0
    client_id: str = ""
    prompt_hashes: PromptHashes | None = None
    adapter: int = 0

    @property
    def session_key(self) -> str | None:
        """The session, unique over all tenants, since their names have no slash."""
        return None if self.session_id is None else f"{self.tenant}/{self.session_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRef:
    """The address of an engine. `engine_id` changes with every start, `name` does not."""

    name: str
    engine_id: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixSource:
    """An engine from whose prefix cache the decode engine pulls the beginning of a prompt.

    Attributes:
        tokens: How many are cached there.
        limit_s: Where the engine has not exported them by then, the decode engine computes them.
        forecast_s: Until they are exported, by the engine's load alone.
    """

    engine: EngineRef
    tokens: int
    limit_s: float
    forecast_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixExport:
    """What became of the export of a cached prefix, from the gateway that asked for it.

    Attributes:
        seconds: From the call to the reply, or until the export failed or was given up.
        exported: Whether the prefix could be pulled. Else it was computed.
    """

    decision_id: str
    seconds: float
    exported: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The planner's answer. Predictions and retry times are None if unknown.

    Attributes:
        prefill: Set only if disaggregated.
        decode: Set if the request runs.
        ttft_s: TTFT target in force; a slowdown is resolved here.
        hold_s: Time after which a deferred request is to ask again.
        grace_s: Decode slack: the tokens after the first are due this much later.
        pace_share: Share of each TPOT target that engines schedule for, to regain that slack.
        delivery_s: Time from engine to client; engines produce the first token this much earlier.
        pacing: The pacing in force.
        prefix_source: Where the beginning of the prompt is pulled from, only if co-located.
    """

    decision_id: str
    admission: Admission
    reason: Reason
    message: str = ""
    way: PlacementMode = PlacementMode.COLOCATED
    prefill: EngineRef | None = None
    decode: EngineRef | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None
    predicted_ttft_s: float | None = None
    predicted_tpot_s: float | None = None
    hold_s: float | None = None
    retry_after_s: float | None = None
    grace_s: float = 0.0
    pace_share: float = 1.0
    delivery_s: float = 0.0
    pacing: Pacing = Pacing.MEAN
    prefix_source: PrefixSource | None = None

    @property
    def runs(self) -> bool:
        return self.admission in (Admission.ADMITTED, Admission.BEST_EFFORT)

    @property
    def gives_way(self) -> bool:
        """Whether its engine serves it after promised requests and requests without targets.

        Requests that a gateway places without the planner count as requests without targets.
        """
        best_effort = self.admission is Admission.BEST_EFFORT
        return best_effort and self.reason is not Reason.PLANNER_AWAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a placed request ended, from its gateway. Times are None if not reached.

    `held_s`, `queue_s`, `prefill_s` and, if the first token waited for it, the transfer add up to
    `ttft_s`.

    Attributes:
        held_s: From the arrival to the placement.
        queue_s: From the placement to the first step that computed some of it.
        prefill_s: From that step to the end of its prompt.
        stage_lateness: TPOT over its target, of the slowest stage. Under deadline pacing the
            greatest ratio of arrival to due time of the tokens after the first. Else None.
        moves: Moves to another engine; the decision that a move ends has `finished` = `moved`.
    """

    decision_id: str
    request_id: str
    finished: str  # stop | length | abort | error | moved
    output_tokens: int = 0
    ttft_s: float | None = None
    tpot_s: float | None = None
    met: bool | None = None  # None: no SLO, aborted or moved
    recomputed: bool = False  # the KV did not arrive, the decode engine computed the prompt again
    message: str = ""
    transfer_s: float | None = (
        None  # from the end of the prefill to the decode engine's first reply
    )
    held_s: float | None = None
    queue_s: float | None = None
    prefill_s: float | None = None
    stage_lateness: float | None = None
    moves: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementOption:
    """One placement option that the planner weighed; `rejected` says why it was not possible.

    `prefill` and `decode` are engine names; `source` is the engine whose cached prefix is pulled,
    in `transfer_s`. `cached_tokens` of the prompt are cached on the engine that computes it, or
    pulled. Times are None if unknown; `ttft_s` and `finish_s` count from the arrival at the
    gateway.
    """

    way: PlacementMode
    prefill: str | None = None
    decode: str | None = None
    queue_s: float | None = None
    prefill_s: float | None = None
    transfer_s: float | None = None
    decode_s: float | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None
    finish_s: float | None = None
    rejected: str = ""
    source: str | None = None
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSums:
    """Sums over the steps of one engine during a part of a request's life.

    `expected_s` and `sure_s` are the mean and the bound for these steps by the engine's table of
    step times at the placement. `beyond_sure` counts steps beyond the bound; `worst_excess_s` is
    the greatest excess.
    """

    engine: str
    steps: int
    real_s: float
    expected_s: float
    sure_s: float
    beyond_sure: int
    worst_excess_s: float
    prefill_tokens: int
    decode_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A decision with its options and its end. Unknown parts are None.

    Attributes:
        outcome: None while the request runs.
        before_first: Steps from the decision to the first token, or to its due time if it was late.
        after_first: Steps from the first token to the last.
        transfer: The KV transfer, as the decode engine reported it.
    """

    query: PlacementQuery
    placement: Placement
    decided_at_epoch_s: float
    ways: tuple[PlacementOption, ...] = ()
    outcome: Outcome | None = None
    before_first: StepSums | None = None
    after_first: StepSums | None = None
    transfer: KvTransfer | None = None


class Phase(Enum):
    """The state of a request at the gateway."""

    PLACING = "placing"
    HELD = "held"
    PREFILLING = "prefilling"
    TRANSFERRING = "transferring"
    DECODING = "decoding"
    DONE = "done"
    FAILED = "failed"
    ABORTED = "aborted"


TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.PLACING: frozenset(
        {
            Phase.HELD,
            Phase.PREFILLING,
            Phase.TRANSFERRING,  # its KV waits for another decode engine
            Phase.DECODING,
            Phase.FAILED,
            Phase.ABORTED,
        }
    ),
    Phase.HELD: frozenset({Phase.PLACING, Phase.FAILED, Phase.ABORTED}),
    # A running request is placed again when its engine is lost.
    Phase.PREFILLING: frozenset(
        {Phase.PLACING, Phase.TRANSFERRING, Phase.DONE, Phase.FAILED, Phase.ABORTED}
    ),
    Phase.TRANSFERRING: frozenset({Phase.PLACING, Phase.DECODING, Phase.FAILED, Phase.ABORTED}),
    Phase.DECODING: frozenset({Phase.PLACING, Phase.DONE, Phase.FAILED, Phase.ABORTED}),
    Phase.DONE: frozenset(),
    Phase.FAILED: frozenset(),
    Phase.ABORTED: frozenset(),
}
