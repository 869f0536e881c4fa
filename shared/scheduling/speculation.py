"""How far each tier may speculate, so that most time is left for prefills. Learns nothing.

SLOs-Serve, section 4.3 of the paper: a step whose verifications yield Acc(n) tokens may last
Acc(n) TPOTs, longer steps compute more tokens a second, and the price is the tokens verified.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from shared.batch_time import StepTable
from shared.batch_time.table import (
    CHUNKS,
    COUNTS,
    DECODE_CONTEXT,
    DECODES,
    LONGEST_CONTEXT,
    LONGEST_PROMPT,
    PAIRS,
    PREFILL,
    SPECULATED,
    SPECULATION_STEPS,
    Numbers,
    sure_s,
)
from shared.compiled import compiled
from shared.scheduling.acceptance import Caution, produced_tokens

HYSTERESIS = 1.05  # what another plan must buy beside the one in force
_ROUNDING = 1e-12
Lengths = tuple[int, ...]  # tokens that each tier verifies per request and step; 1: plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Requests that share a pace (infinite: none was asked for); their mean context, and how
    likely a draft of theirs is accepted.
    """

    tpot_s: float
    decoding: int
    context_tokens: float = 0.0
    alpha: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """A plan. `drafts` are per tier, request and step, all 0 for plain decoding.

    `step_s` is how long its steps last with `prefill_tokens` in each beside the decodes;
    `plain_per_s` is what plain decoding leaves, in prefill tokens per second.
    """

    drafts: tuple[int, ...]
    step_s: float
    prefill_tokens: int
    prefill_per_s: float
    plain_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What bounds a plan: step times, the longest draft, the most tokens of a step."""

    table: StepTable
    most_drafts: int
    most_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """What a choice of lengths leaves for prefills: a chunk in each step of `step_s`."""

    lengths: Lengths
    step_s: float = 0.0
    prefill_tokens: int = 0

    @property
    def per_s(self) -> float:
        return self.prefill_tokens / self.step_s if self.prefill_tokens else 0.0


def best_speculation(
    tiers: Sequence[Tier],
    engine: Engine,
    *,
    caution: Caution = Caution.EXPECTED,
    guard: Caution | None = None,
    before: Sequence[int] | None = None,
) -> Speculation:
    """The drafts per tier that leave the most prefill tokens per second.

    `before` are the drafts in force, kept unless others buy 5 % more; plain decoding is kept in the
    same way, and comes back as soon as it buys more. What is bought is counted by `caution`; with
    a `guard`, lengths are left out whose steps without prefills would not keep the paces by that
    count. Under pressure, when plain decoding leaves nothing for prefills, nobody speculates. Where
    no tier has a pace it is the length that produces most tokens per second.
    """
    plain = _plain(tiers, engine)
    if not any(_paced(tier) for tier in tiers):
        return _speculation(_most_produced(tiers, engine), plain)
    if not plain.prefill_tokens or engine.most_drafts < 1:
        return _speculation(plain, plain)
    produced = produced_by_length(tiers, engine, caution)
    sure = produced if guard is None else produced_by_length(tiers, engine, guard)
    choices = [
        bought(one, tiers, engine, produced)
        for one in _lengths(tiers, produced)
        if guard is None or _keeps_paces(one, tiers, engine, sure)
    ]
    best = max((plain, *choices), key=lambda choice: choice.per_s)
    kept = _kept(tiers, engine, produced, before)
    if kept and guard and not _keeps_paces(kept.lengths, tiers, engine, sure):
        kept = None
    if kept and kept.per_s > plain.per_s and best.per_s <= HYSTERESIS * kept.per_s:
        return _speculation(kept, plain)
    return _speculation(best if best.per_s > HYSTERESIS * plain.per_s else plain, plain)


def prepare() -> None:
    """Compiles what plans need, so that no plan waits for it."""
    _room(np.zeros(16 + COUNTS), np.zeros(COUNTS), 1.0, 2)
    produced_tokens(0.5, 2, Caution.LOW)


def _speculation(choice: Bought, plain: Bought) -> Speculation:
    return Speculation(
        drafts=tuple(length - 1 for length in choice.lengths),
        step_s=choice.step_s,
        prefill_tokens=choice.prefill_tokens,
        prefill_per_s=choice.per_s,
        plain_per_s=plain.per_s,
    )


def _paced(tier: Tier) -> bool:
    return tier.decoding > 0 and math.isfinite(tier.tpot_s)


def produced_by_length(
    tiers: Sequence[Tier], engine: Engine, caution: Caution
) -> list[list[float]]:
    """Tokens per request and step, by tier and by length from 1 up."""
    lengths = range(1, engine.most_drafts + 2)
    return [[produced_tokens(tier.alpha, n, caution) for n in lengths] for tier in tiers]


def _lengths(tiers: Sequence[Tier], produced: Sequence[Sequence[float]]) -> Iterator[Lengths]:
    """Each tier in turn as the bottleneck, at each length; the others take the shortest length
    with which they may wait as long. The best of all vectors is among them.
    """
    seen: set[Lengths] = set()
    for tier, counts in zip(tiers, produced, strict=True):
        for count in counts if _paced(tier) else ():
            unit_s = tier.tpot_s * count
            found = [
                _shortest(other, unit_s, counts)
                for other, counts in zip(tiers, produced, strict=True)
            ]
            lengths = tuple(length for length in found if length)
            if len(lengths) == len(tiers) and lengths not in seen:
                seen.add(lengths)
                yield lengths


def _shortest(tier: Tier, unit_s: float, produced: Sequence[float]) -> int:
    """The shortest length whose allowed time is not below; 0 when none is that long."""
    if not _paced(tier):
        return 1
    enough = (1 - _ROUNDING) * unit_s
    return next((n for n, count in enumerate(produced, 1) if tier.tpot_s * count >= enough), 0)


def bought(
    lengths: Lengths,
    tiers: Sequence[Tier],
    engine: Engine,
    produced: Sequence[Sequence[float]],
) -> Bought:
    """With every tier in every step, which lasts no longer than each of them can wait for what it
    yields; `produced` is that, by tier and length.
    """
    unit_s = min(
        tier.tpot_s * counts[n - 1]
        for tier, n, counts in zip(tiers, lengths, produced, strict=True)
        if _paced(tier)
    )
    counts = _counts(tiers, lengths, [1.0] * len(tiers))
    return _filled(lengths, counts, engine, unit_s)


def _keeps_paces(
    lengths: Lengths,
    tiers: Sequence[Tier],
    engine: Engine,
    produced: Sequence[Sequence[float]],
) -> bool:
    """Whether steps of all tiers, without prefills, are no longer than each of them can wait."""
    counts = _counts(tiers, lengths, [1.0] * len(tiers))
    step_s = float(sure_s(engine.table.numbers, counts))
    return all(
        step_s <= tier.tpot_s * counts[length - 1]
        for tier, length, counts in zip(tiers, lengths, produced, strict=True)
        if _paced(tier)
    )


def _plain(tiers: Sequence[Tier], engine: Engine) -> Bought:
    """One token each; a looser tier is due in some of the steps only, its share of the batch."""
    unit_s = min((tier.tpot_s for tier in tiers if _paced(tier)), default=math.inf)
    shares = [unit_s / tier.tpot_s if math.isfinite(tier.tpot_s) else 0.0 for tier in tiers]
    lengths = (1,) * len(tiers)
    return _filled(lengths, _counts(tiers, lengths, shares), engine, unit_s)


def _filled(lengths: Lengths, counts: Numbers, engine: Engine, unit_s: float) -> Bought:
    room_tokens = engine.most_tokens - math.ceil(counts[DECODES] + counts[SPECULATED] - 1e-9)
    tokens = int(_room(engine.table.numbers, counts, unit_s, room_tokens))
    step_s = float(sure_s(engine.table.numbers, counts))
    return Bought(lengths=lengths, step_s=step_s, prefill_tokens=tokens)


def _kept(
    tiers: Sequence[Tier],
    engine: Engine,
    produced: Sequence[Sequence[float]],
    before: Sequence[int] | None,
) -> Bought | None:
    """What the drafts in force buy now; None where they were none or cannot go on."""
    if not before or len(before) != len(tiers) or not any(before):
        return None
    if max(before) > engine.most_drafts:
        return None
    return bought(tuple(drafts + 1 for drafts in before), tiers, engine, produced)


def _most_produced(tiers: Sequence[Tier], engine: Engine) -> Bought:
    """Nobody has a pace: the one length that produces most; drafts must be worth 5 %."""
    best, most_per_s = Bought(lengths=(1,) * len(tiers)), 0.0
    for length in range(1, engine.most_drafts + 2):
        lengths = (length,) * len(tiers)
        counts = _counts(tiers, lengths, [1.0] * len(tiers))
        step_s = float(sure_s(engine.table.numbers, counts))
        tokens = sum(tier.decoding * produced_tokens(tier.alpha, length) for tier in tiers)
        verified = sum(tier.decoding for tier in tiers) * length
        fits = length == 1 or verified <= engine.most_tokens
        if fits and step_s > 0 and tokens / step_s > most_per_s * (HYSTERESIS if most_per_s else 1):
            best, most_per_s = Bought(lengths=lengths, step_s=step_s), tokens / step_s
    return best


def _counts(tiers: Sequence[Tier], lengths: Lengths, shares: Sequence[float]) -> Numbers:
    """The step of all tiers without prefills; `shares` of their requests take part."""
    counts = np.zeros(COUNTS)
    for tier, length, share in zip(tiers, lengths, shares, strict=True):
        requests = share * tier.decoding
        if requests > 0:
            counts[DECODES] += requests
            counts[SPECULATED] += requests * (length - 1)
            counts[SPECULATION_STEPS] = max(counts[SPECULATION_STEPS], length - 1)
            counts[DECODE_CONTEXT] += requests * tier.context_tokens
            counts[LONGEST_CONTEXT] = max(counts[LONGEST_CONTEXT], tier.context_tokens)
    return counts


@compiled
def _with_chunk(table: Numbers, counts: Numbers, tokens: int) -> float:
    """Seconds of the step when `counts` has one chunk of a prompt, from its start."""
    counts[CHUNKS] = 1.0 if tokens > 0 else 0.0
    counts[PREFILL] = tokens
    counts[PAIRS] = tokens * tokens / 2.0
    counts[LONGEST_PROMPT] = tokens
    return float(sure_s(table, counts))


@compiled
def _room(table: Numbers, counts: Numbers, unit_s: float, most_tokens: int) -> int:
    """The chunk within `unit_s` and `most_tokens` that computes most prefill tokens a second; 0
    when there is none. Leaves it in `counts`.

    Times are convex in the chunk, so the tokens per second rise and then fall.
    """
    low, high = 0, max(0, most_tokens)
    while low < high:
        middle = (low + high + 1) // 2
        if _with_chunk(table, counts, middle) <= unit_s:
            low = middle
        else:
            high = middle - 1
    first, last = min(1, low), low
    while first < last:
        middle = (first + last) // 2
        here_s = _with_chunk(table, counts, middle)
        if (middle + 1) * here_s > middle * _with_chunk(table, counts, middle + 1):
            first = middle + 1
        else:
            last = middle
    _with_chunk(table, counts, first)
    return first
