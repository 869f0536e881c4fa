"""Plans the draft length of each tier, so that its engine completes the most work.

SLOs-Serve (section 4.3 of the paper) maximizes prefill tokens per second. A step that verifies and
yields Acc(n) tokens may last Acc(n) TPOTs, and longer steps compute more tokens per second. Here
that is the special case of prompts that never end. In general a prefill is worth as much as the
decodes that need it, and drafts shorten decodes as well.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from shared.batch_time import StepTable
from shared.batch_time.table import (
    COUNTS,
    DECODE_CONTEXT,
    DECODES,
    LONGEST_CONTEXT,
    SPECULATED,
    SPECULATION_STEPS,
    FloatArray,
    expected_s,
)
from shared.compiled import compiled
from shared.scheduling import draft_lengths
from shared.scheduling.acceptance import Caution, mean_tokens, produced_by_length
from shared.scheduling.draft_lengths import (
    BOUNDS,
    LONGEST_S,
    MOST_TOKENS,
    PREFILL_TOKENS,
    PROMPT_TOKENS_EACH,
    STEP_S,
    Produced,
    is_better,
    weigh,
)
from shared.scheduling.tuning import DRAFT_CHANGE, HYSTERESIS

_Weighed = tuple[FloatArray, Produced, Produced, FloatArray, FloatArray]
_NO_WAITS: FloatArray = np.zeros((0, 2))
Lengths = tuple[int, ...]  # tokens that each tier verifies per request and step; 1: no drafts


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Requests of one TPOT target (infinite: none), their mean context and the acceptance rate of
    their drafts.
    """

    tpot_s: float
    decoding: int
    context_tokens: float = 0.0
    alpha: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What bounds a plan: step times, the longest draft, the most tokens of a step; how many prompt
    tokens have to be computed for each token that the requests produce (infinite: prompts never
    end); how long a step with prompts may last; and for each recent prompt with a TTFT target its
    weight and the seconds that it may wait for a step to end, of shape (n, 2).
    """

    table: StepTable
    most_drafts: int
    most_tokens: int
    prompt_tokens_each: float = math.inf
    longest_step_s: float = math.inf
    prompt_waits: FloatArray | None = None

    @property
    def bounds(self) -> FloatArray:
        """The bounds as an array for compiled code."""
        waits = _NO_WAITS if self.prompt_waits is None else self.prompt_waits
        bounds = np.concatenate((np.zeros(BOUNDS), waits.ravel()))
        bounds[MOST_TOKENS] = self.most_tokens
        bounds[PROMPT_TOKENS_EACH] = self.prompt_tokens_each
        bounds[LONGEST_S] = self.longest_step_s
        return bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """A plan. `drafts` are per tier, request and step, all 0 for plain decoding.

    `step_s` is how long its steps last with `prefill_tokens` in each beside the decodes.
    """

    drafts: tuple[int, ...]
    step_s: float
    prefill_tokens: int

    @property
    def prefill_per_s(self) -> float:
        return self.prefill_tokens / self.step_s if self.prefill_tokens else 0.0


def best_speculation(
    tiers: Sequence[Tier],
    engine: Engine,
    *,
    caution: Caution = Caution.EXPECTED,
    guard: Caution | None = None,
    before: Sequence[int] | None = None,
) -> Speculation:
    """The drafts per tier with which the engine completes the most work per second.

    Lengths that keep the paces come first, else those that come closest. Drafts must be worth 5 %
    more than plain decoding. `before` are the drafts in force, kept unless others are worth 30 %
    more: which requests decode changes from one moment to the next, and promises count on the
    drafts. `caution` is how produced tokens are counted, `guard` how they are counted for the test
    of the paces (default: as by `caution`).
    """
    weighed = _weighed_by(tiers, engine, caution, guard)
    worth = partial(_worth, weighed)
    plain = (1,) * len(tiers)
    best: Lengths = tuple(draft_lengths.best_lengths(*weighed).tolist())
    if not is_better(worth(best), worth(plain), HYSTERESIS):
        best = plain
    kept = _kept(tiers, engine, before)
    if kept is not None and is_better(worth(kept), worth(plain), 1.0):
        best = best if is_better(worth(best), worth(kept), DRAFT_CHANGE) else kept
    return _speculation(best, worth(best))


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """The fastest decoding of one request on an otherwise idle engine: its drafts per step, the
    mean tokens that such a step yields, and the mean seconds per token.
    """

    drafts: int
    gain: float
    tpot_s: float


def quickest_alone(
    table: StepTable, most_drafts: int, *, context_tokens: float, alpha: float
) -> Alone:
    """The fastest of all draft lengths, where a draft is accepted with probability `alpha`."""
    found = _quickest_alone(table.numbers, most_drafts, float(context_tokens), float(alpha))
    return Alone(drafts=int(found[0]), gain=found[1], tpot_s=found[2])


@compiled
def _quickest_alone(
    table: FloatArray, most_drafts: int, context_tokens: float, alpha: float
) -> tuple[float, float, float]:
    """The fields of `Alone`."""
    counts = np.zeros(COUNTS)
    counts[DECODES] = 1.0
    counts[DECODE_CONTEXT] = counts[LONGEST_CONTEXT] = context_tokens
    best = (0.0, 1.0, np.inf)
    for drafts in range(most_drafts + 1):
        counts[SPECULATED] = counts[SPECULATION_STEPS] = drafts
        gain = mean_tokens(alpha, drafts + 1)
        tpot_s = expected_s(table, counts) / gain
        if tpot_s < best[2]:
            best = (float(drafts), gain, tpot_s)
    return best


def prepare(table: StepTable) -> None:
    """Compiles what plans need, so that no plan waits for it."""
    tiers = [Tier(tpot_s=0.1, decoding=1, alpha=0.5)]
    engine = Engine(table=table, most_drafts=2, most_tokens=8)
    for guard in (None, Caution.LOW):
        best_speculation(tiers, engine, guard=guard, before=(1,))
    quickest_alone(table, 2, context_tokens=1.0, alpha=0.5)


def plan_of(
    lengths: Lengths, tiers: Sequence[Tier], engine: Engine, caution: Caution = Caution.EXPECTED
) -> Speculation:
    """The plan with these lengths, whether it keeps the paces or not."""
    return _speculation(lengths, _worth(_weighed_by(tiers, engine, caution), lengths))


def _weighed_by(
    tiers: Sequence[Tier], engine: Engine, caution: Caution, guard: Caution | None = None
) -> _Weighed:
    """The arguments of `weigh` after the lengths."""
    produced = produced_of(tiers, engine, caution)
    sure = produced if guard is None else produced_of(tiers, engine, guard)
    return _numbers(tiers), produced, sure, engine.table.numbers, engine.bounds


def _worth(weighed: _Weighed, lengths: Lengths) -> FloatArray:
    found: FloatArray = weigh(np.array(lengths, dtype=np.int64), *weighed)
    return found


def produced_of(tiers: Sequence[Tier], engine: Engine, caution: Caution) -> Produced:
    """Tokens per request and step, by tier and by length from 1 up."""
    return produced_by_length([tier.alpha for tier in tiers], engine.most_drafts + 1, caution)


def _speculation(lengths: Lengths, worth: FloatArray) -> Speculation:
    return Speculation(
        drafts=tuple(length - 1 for length in lengths),
        step_s=float(worth[STEP_S]),
        prefill_tokens=int(worth[PREFILL_TOKENS]),
    )


def _numbers(tiers: Sequence[Tier]) -> FloatArray:
    """The tiers as an array for compiled code."""
    return np.array(
        [(tier.tpot_s, float(tier.decoding), tier.context_tokens) for tier in tiers]
    ).reshape(-1, 3)


def _kept(tiers: Sequence[Tier], engine: Engine, before: Sequence[int] | None) -> Lengths | None:
    """The lengths in force; None where they were plain or cannot go on."""
    if not before or len(before) != len(tiers) or not any(before):
        return None
    if max(before) > engine.most_drafts:
        return None
    return tuple(drafts + 1 for drafts in before)
