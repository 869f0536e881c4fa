"""What a request demands of engines, and the rows that it will have there."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.planner.estimators.drafting import Drafts
from services.planner.tuning import GUESSED_TOKENS
from shared.batch_time.table import FloatArray
from shared.engines import EngineDescription
from shared.scheduling.grace import Grace, grace_of
from shared.scheduling.rows import BEST_EFFORT, NO_SLO, PROMISED, new_row


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """One request. Times are seconds on the planner's clock.

    Attributes:
        due_s: When the first token is due at the client; infinite without a target.
        tpot_s: The TPOT target; infinite without one.
        delivery_s: An engine has to produce the first token this much before it is due.
        cached_tokens: Tokens of the prompt in prefix caches, by the engine's name.
        shared_tokens: Of these, tokens in KV blocks that running requests hold anyway.
        few_tokens: The answer most likely has at least this many tokens; None: unknown.
        grace: The TPOT and slack that engines get in place of a mean, where no KV moves.
        drafts: The drafts that planning counts on.
    """

    prompt_tokens: int
    max_output_tokens: int
    arrived_at_s: float
    due_s: float
    tpot_s: float
    delivery_s: float = 0.0
    cached_tokens: Mapping[str, int] = field(default_factory=dict)
    shared_tokens: Mapping[str, int] = field(default_factory=dict)
    key: int = 0
    few_tokens: int | None = None
    grace: Grace
    drafts: Drafts = field(default_factory=Drafts)

    @property
    def asks(self) -> bool:
        return self.due_s < math.inf or self.tpot_s < math.inf

    def grace_when_moved(self, moved_s: float) -> Grace:
        """The slack where moving its KV takes `moved_s`; 0: the KV does not move."""
        if not moved_s > 0 or self.grace.by_deadlines:
            return self.grace
        few_tokens = self.few_tokens or min(GUESSED_TOKENS, self.max_output_tokens)
        return grace_of(self.tpot_s, few_tokens - 1, moved_s=moved_s)

    def computed_on(self, engine: EngineDescription) -> int:
        """Cached prompt tokens on the engine, in whole blocks; the last one is always computed."""
        hit = min(self.cached_tokens.get(engine.name, 0), self.prompt_tokens - 1)
        return hit - hit % engine.block_size_tokens

    def shared_on(self, engine: EngineDescription) -> int:
        """The cached tokens for which it takes no KV blocks of the engine."""
        shared = self.shared_tokens.get(engine.name, 0)
        return min(shared, self.computed_on(engine)) if shared else 0

    @property
    def least_to_compute(self) -> int:
        """Prompt tokens that the engine with the longest cached prefix has to compute."""
        most = max(self.cached_tokens.values(), default=0)
        return self.prompt_tokens - max(0, min(most, self.prompt_tokens - 1))

    def whole(
        self, computed: int, available_s: float, *, shared: int = 0, best_effort: bool = False
    ) -> FloatArray:
        """The row on an engine that computes the prompt and the answer."""
        return new_row(
            key=self.key,
            tokens=self.prompt_tokens,
            computed=computed,
            left=max(1, self.max_output_tokens),
            due_s=self.due_s - self.delivery_s,
            tpot_s=self.grace.pace_s,
            grace_s=self.grace.later_s,
            kind=self._kind(best_effort),
            available_s=available_s,
            draft=self.drafts.tokens,
            gain=self.drafts.gain,
            shared=shared,
        )

    def prompt_only(
        self, computed: int, available_s: float, *, best_effort: bool = False
    ) -> FloatArray:
        """The row on an engine that computes the prompt and gives the first token only."""
        return new_row(
            key=self.key,
            tokens=self.prompt_tokens,
            computed=computed,
            left=1,
            due_s=self.due_s - self.delivery_s,
            kind=self._kind(best_effort),
            available_s=available_s,
        )

    def export(
        self, available_s: float, latest_s: float, *, best_effort: bool = False
    ) -> FloatArray:
        """The row on an engine that exports a cached prefix by `latest_s`: one token to compute.

        The cached blocks are those of running requests, or free now: they are only held for the
        time of a transfer.
        """
        return new_row(
            key=self.key,
            tokens=1,
            computed=0,
            left=1,
            due_s=min(latest_s, self.due_s - self.delivery_s) if self.asks else math.inf,
            kind=self._kind(best_effort),
            available_s=available_s,
        )

    def answer_only(
        self, first_token_s: float, arrives_s: float, *, best_effort: bool = False
    ) -> FloatArray:
        """The row on the engine that decodes once the KV has arrived, at `arrives_s`."""
        grace = self.grace_when_moved(arrives_s - first_token_s)
        counts_from_s = first_token_s + grace.later_s
        if grace.by_deadlines:
            counts_from_s = self.due_s - self.delivery_s
        return new_row(
            key=self.key,
            tokens=self.prompt_tokens + 1,
            computed=self.prompt_tokens,
            produced=1,
            left=max(1, self.max_output_tokens - 1),
            due_s=counts_from_s + grace.pace_s,
            tpot_s=grace.pace_s,
            kind=self._kind(best_effort),
            available_s=arrives_s,
            draft=self.drafts.tokens,
            gain=self.drafts.gain,
        )

    def _kind(self, best_effort: bool) -> float:
        if best_effort:
            return BEST_EFFORT
        return PROMISED if self.asks else NO_SLO
