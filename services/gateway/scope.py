"""What the gateway knows of a request: the cluster client fills it, the HTTP layer reads it."""

from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from services.gateway.deadline_line import DeadlineLine
from services.gateway.moves import Move, Unmoved
from services.gateway.stages import StageProgress
from services.gateway.tenant_account import Account
from shared.errors import InvalidRequest, SlosError
from shared.requests import TRANSITIONS, Phase, Placement, PlacementMode, SloTargets


@dataclass(slots=True)
class SequenceRecord:
    """One generated sequence (`n=2` has two). Times are on the gateway's monotonic clock.

    `moves` are its moves to other engines; `unmoved` is why it could not move when it failed.
    """

    request_id: str
    prompt_tokens: int
    phase: Phase = Phase.PLACING
    placement: Placement | None = None
    placed_at_s: float | None = None
    started_at_s: float | None = None  # the first step that computed some of it
    first_token_at_s: float | None = None
    last_token_at_s: float | None = None
    output_tokens: int = 0
    finished: str | None = None
    recomputed: bool = False
    prefilled_at_s: float | None = None
    decoding_at_s: float | None = None
    stages: StageProgress | None = None
    line: DeadlineLine | None = None  # under deadline pacing; it outlasts moves
    moves: list[Move] = field(default_factory=list)
    unmoved: Unmoved | None = None

    @property
    def transfer_s(self) -> float | None:
        """From the prefill engine's last reply to the decode engine's first; None on one engine."""
        if self.prefilled_at_s is None or self.decoding_at_s is None:
            return None
        return self.decoding_at_s - self.prefilled_at_s

    @property
    def queue_s(self) -> float | None:
        """From the placement to the first step that computed some of it."""
        if self.placed_at_s is None or self.started_at_s is None:
            return None
        return self.started_at_s - self.placed_at_s

    @property
    def prefill_s(self) -> float | None:
        """From its first step to the end of its prompt."""
        ends = [at_s for at_s in (self.prefilled_at_s, self.first_token_at_s) if at_s is not None]
        if self.started_at_s is None or not ends:
            return None
        return min(ends) - self.started_at_s

    @property
    def tpot_s(self) -> float | None:
        """Mean time per output token after the first; None below two tokens."""
        if self.output_tokens < 2 or self.first_token_at_s is None or self.last_token_at_s is None:
            return None
        return (self.last_token_at_s - self.first_token_at_s) / (self.output_tokens - 1)


@dataclass(slots=True)
class RequestScope:
    """One HTTP request.

    Attributes:
        request_id: The gateway's id.
        client_id: The client's id; for logs only.
        failure: The error before any token, while the HTTP status can still be chosen.
    """

    request_id: str
    arrived_at_s: float
    targets: SloTargets
    client_id: str = ""
    forced_way: PlacementMode | None = None
    session_id: str | None = None
    wants_report: bool = False
    prompts: int = 0  # that have an id so far
    planned_sequences: int = 0
    account: Account = field(default_factory=Account)
    sequences: dict[str, SequenceRecord] = field(default_factory=dict)
    failure: SlosError | None = None

    @property
    def targets_in_force(self) -> SloTargets:
        """The request's targets; without any, those of its session, from the planner's answer."""
        if not self.targets.asks_for_nothing:
            return self.targets
        placements = [one.placement for one in self.sequences.values() if one.placement]
        told = next((one for one in placements if one.ttft_s or one.tpot_s), None)
        if told is None:
            return self.targets
        return replace(self.targets, ttft_s=told.ttft_s, tpot_s=told.tpot_s, pacing=told.pacing)

    def next_prompt_id(self) -> str:
        """A new id for one prompt of this request and all sequences made from it."""
        self.prompts += 1
        return f"{self.request_id}-{self.prompts}"

    def plan_sequences(self, count: int, limit: int) -> None:
        """Counts `count` more sequences. Raises InvalidRequest above `limit` in all."""
        self.planned_sequences += count
        if self.planned_sequences > limit:
            raise InvalidRequest(
                f"n: this request asks for more than {limit} sequences, its prompts times n; "
                "send several requests",
                param="n",
            )

    def held_s(self, sequence: SequenceRecord) -> float | None:
        """From the arrival to the placement."""
        return None if sequence.placed_at_s is None else sequence.placed_at_s - self.arrived_at_s

    def ttft_s(self, sequence: SequenceRecord) -> float | None:
        if sequence.first_token_at_s is None:
            return None
        return sequence.first_token_at_s - self.arrived_at_s


current_scope: ContextVar[RequestScope | None] = ContextVar("slos_request_scope", default=None)


def enter(record: SequenceRecord, phase: Phase) -> None:
    """Sets the record's phase: the same one, or a next one by TRANSITIONS."""
    if phase is record.phase:
        return
    assert phase in TRANSITIONS[record.phase], f"{record.phase} to {phase}"
    record.phase = phase
