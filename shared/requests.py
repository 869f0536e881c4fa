"""A request as the planner sees it: its promise, its placement, its life. No tokens, no tensors."""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

from shared.engines import KvTransfer

DEFAULT_TENANT: Final = "default"
"""The tenant of all requests that come without a key of another one."""


class Way(StrEnum):
    """Where the prompt is computed: on the decode engine, or on another with the KV moved over."""

    COLOCATED = "colocated"
    DISAGGREGATED = "disaggregated"


class Admission(StrEnum):
    """The planner's answer."""

    ADMITTED = "admitted"
    DEFERRED = "deferred"
    BEST_EFFORT = "best_effort"
    REFUSED = "refused"


class OnRefuse(StrEnum):
    """What the caller wants when its targets cannot be promised."""

    REFUSE = "refuse"
    BEST_EFFORT = "best_effort"


class Pacing(StrEnum):
    """What a TPOT promises. MEAN: the mean time per token of each stage, after the first token.
    DEADLINES: token n by the arrival plus TTFT plus n - 1 paces, so that an answer which begins
    early may slow down later, and none is ever further behind; without a TTFT it is MEAN.
    """

    MEAN = "mean"
    DEADLINES = "deadlines"


class Reason(StrEnum):
    """Why a decision fell as it did; `NONE` for a plain admission."""

    NONE = "none"
    NO_TARGET = "no_target"  # nothing was asked for, so nothing is promised
    COMPUTE = "compute"  # the targets cannot be met at this load
    MEMORY = "memory"  # the KV cache cannot hold it now
    NEVER = "never"  # no engine of this fleet could ever hold or meet it
    NO_ENGINE = "no_engine"  # no engine is attached that could serve it
    PLANNER_AWAY = "planner_away"  # decided by the gateway alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of a request with its own pace, e.g. `thinking` and `answer`."""

    name: str
    tpot_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SloTargets:
    """What is asked for. None means that nothing is asked of this quantity.

    `ttft_slowdown` is a multiple of the zero-load TTFT of the same prompt; when both it and
    `ttft_s` are given, `ttft_s` binds. `value` is what keeping the promise is worth beside other
    requests when not all can be served.
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
        """The pace that the engine must be able to hold: the least over all stages."""
        paces = [stage.tpot_s for stage in self.stages]
        if self.tpot_s is not None:
            paces.append(self.tpot_s)
        return min(paces, default=None)

    @property
    def asks_for_nothing(self) -> bool:
        return self.ttft_s is None and self.ttft_slowdown is None and self.tightest_tpot_s is None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptHashes:
    """Hashes of a prompt's whole spans of `span_tokens`, each of its span and of all before it: two
    prompts with the same n-th hash begin with the same n spans.
    """

    span_tokens: int
    hashes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementQuery:
    """What the gateway asks the planner.

    `group_id` is shared by the sequences of one client request (`n > 1`): they belong together,
    their prompt is the same. `forced_way` is the caller's wish; `whole_on_one_engine` says that
    splitting would change the result (prompt logprobs, pooling).
    `waited_s` is how long the request is already with us.
    `avoid` are ids of engines that failed the gateway; one is taken only where no other can serve.
    Where not all can be served, tenants share by `weight`; a session id is known to one tenant.
    `client_id` is the client's own `x-request-id`. Records show it; two clients may send the same.
    `prompt_hashes` tell which engines have the KV of its beginning; None: nothing is known of that.
    """

    request_id: str
    group_id: str
    session_id: str | None = None
    model: str
    targets: SloTargets
    prompt_tokens: int
    max_output_tokens: int
    waited_s: float = 0.0
    forced_way: Way | None = None
    whole_on_one_engine: bool = False
    avoid: tuple[str, ...] = ()
    tenant: str = DEFAULT_TENANT
    weight: float = 1.0
    client_id: str = ""
    prompt_hashes: PromptHashes | None = None

    @property
    def session_key(self) -> str | None:
        """The session among those of all tenants; their names have no slash."""
        return None if self.session_id is None else f"{self.tenant}/{self.session_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRef:
    """Enough of an engine to talk to it. `engine_id` changes with every start, `name` does not."""

    name: str
    engine_id: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What the planner answers.

    `decode` is set when the request is to run, `prefill` only when disaggregated.
    `ttft_s` is the TTFT target in force (a slowdown is resolved here). Predictions and retry hints
    are None when unknown.
    A deferred placement is to be asked again after `hold_s`.
    Engines hold `pace_share` of each promised pace, so that an answer may begin `grace_s` late.
    `pacing` is the one in force.
    They give a first token `delivery_s` before it is due: its way to the client takes time, too.
    """

    decision_id: str
    admission: Admission
    reason: Reason
    message: str = ""
    way: Way = Way.COLOCATED
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

    @property
    def runs(self) -> bool:
        return self.admission in (Admission.ADMITTED, Admission.BEST_EFFORT)

    @property
    def gives_way(self) -> bool:
        """Whether its engine serves it after promises and after requests without targets. A
        gateway that places alone weighs no promise, so its requests count as those without targets.
        """
        best_effort = self.admission is Admission.BEST_EFFORT
        return best_effort and self.reason is not Reason.PLANNER_AWAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a placed request ended, as its gateway saw it. Times are None for stages not reached.

    `held_s` is from the arrival to the placement, `queue_s` from there to the first step that held
    some of it, `prefill_s` from there to the end of its prompt. With the transfer, where the first
    token had to wait for that, they make up `ttft_s`. `stage_lateness` is the time per token over
    the pace of its stage, of the slowest stage; with deadlines in force, of the worst token after
    the first, when it came over when it was due, from the arrival. None where neither holds.
    `moves` counts how often it went on on another engine; a decision that ended so is `moved`.
    """

    decision_id: str
    request_id: str
    finished: str  # stop | length | abort | error | moved
    output_tokens: int = 0
    ttft_s: float | None = None
    tpot_s: float | None = None
    met: bool | None = None  # None: nothing was asked for, or the client went away first
    recomputed: bool = False  # the KV did not arrive, the decode engine computed the prompt again
    message: str = ""
    transfer_s: float | None = None  # from the end of the prefill to the decode engine's first word
    held_s: float | None = None
    queue_s: float | None = None
    prefill_s: float | None = None
    stage_lateness: float | None = None
    moves: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WayConsidered:
    """One way that the planner weighed; `rejected` says why it could not be taken.

    `prefill` and `decode` are engine names. Times are None when unknown; `ttft_s` and `finish_s`
    count from the arrival at the gateway.
    """

    way: Way
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSums:
    """The steps of one engine over a part of a request's life, its own and those of others.

    `expected_s` and `sure_s` are what the engine's table of step times said of these very steps
    when the request was placed. `beyond_sure` counts those that took longer than sure,
    `worst_excess_s` is by how much the worst one did.
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
    """What was decided, out of which ways, and how it ended (None while it runs).

    `before_first` are the steps from the decision to the first token, or to the moment at which it
    was due, when it came later; `after_first` those from the first token to the last. `transfer` is
    what the decode engine told of its KV on the way. None while they are not known.
    """

    query: PlacementQuery
    placement: Placement
    decided_at_epoch_s: float
    ways: tuple[WayConsidered, ...] = ()
    outcome: Outcome | None = None
    before_first: StepSums | None = None
    after_first: StepSums | None = None
    transfer: KvTransfer | None = None


class Phase(Enum):
    """Where a request is in its life at the gateway."""

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
            Phase.TRANSFERRING,  # its prompt is done already and waits for another decode engine
            Phase.DECODING,
            Phase.FAILED,
            Phase.ABORTED,
        }
    ),
    Phase.HELD: frozenset({Phase.PLACING, Phase.FAILED, Phase.ABORTED}),
    # Whatever runs is placed again when its engine is lost.
    Phase.PREFILLING: frozenset(
        {Phase.PLACING, Phase.TRANSFERRING, Phase.DONE, Phase.FAILED, Phase.ABORTED}
    ),
    Phase.TRANSFERRING: frozenset({Phase.PLACING, Phase.DECODING, Phase.FAILED, Phase.ABORTED}),
    Phase.DECODING: frozenset({Phase.PLACING, Phase.DONE, Phase.FAILED, Phase.ABORTED}),
    Phase.DONE: frozenset(),
    Phase.FAILED: frozenset(),
    Phase.ABORTED: frozenset(),
}
