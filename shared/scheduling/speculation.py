"""How far each tier may speculate, so that most time is left for prefills. Learns nothing.

SLOs-Serve, section 4.3 of the paper: a step whose verifications yield Acc(n) tokens may last
Acc(n) TPOTs, longer steps compute more tokens a second, and the price is the tokens verified.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared.batch_time import StepTable
from shared.batch_time.table import Numbers, sure_s
from shared.scheduling import draft_lengths
from shared.scheduling.acceptance import Caution, produced_by_length, produced_tokens
from shared.scheduling.draft_lengths import DECODING, TPOT_S, Produced, step_of

HYSTERESIS = 1.05  # what drafts must buy beside plain decoding
_CHANGE = 1.3  # what others must buy beside those in force, with which requests were promised
_UNGUARDED = np.zeros((0, 0))
Flags = npt.NDArray[np.bool_]
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

    Plain decoding is kept unless drafts buy 5 % more, and comes back as soon as it buys more.
    `before` are the drafts in force, kept unless others buy 30 % more: who decodes changes from one
    moment to the next, and what was promised counts on them. What is bought is counted by
    `caution`; with a `guard`, lengths are left out whose steps without prefills would not keep the
    paces by that count. Under pressure, when plain decoding leaves nothing for prefills, nobody
    speculates. Where no tier has a pace it is the length that produces most tokens per second.
    """
    numbers = _numbers(tiers)
    plain = _plain(numbers, engine)
    if not _paced(numbers).any():
        return _speculation(_most_produced(tiers, engine), plain)
    if not plain.prefill_tokens or engine.most_drafts < 1:
        return _speculation(plain, plain)
    produced = produced_of(tiers, engine, caution)
    sure = _UNGUARDED if guard is None else produced_of(tiers, engine, guard)
    table, most_tokens = engine.table.numbers, engine.most_tokens
    found, step_s, tokens = draft_lengths.most_bought(numbers, produced, sure, table, most_tokens)
    most = Bought(lengths=tuple(found.tolist()), step_s=step_s, prefill_tokens=tokens)
    best = max(plain, most, key=lambda choice: choice.per_s)
    kept = _kept(tiers, engine, produced, before)
    if kept and guard and not draft_lengths.keep(np.array(kept.lengths), numbers, sure, table):
        kept = None
    if kept and kept.per_s > plain.per_s and best.per_s <= _CHANGE * kept.per_s:
        return _speculation(kept, plain)
    return _speculation(best if best.per_s > HYSTERESIS * plain.per_s else plain, plain)


def prepare(table: StepTable) -> None:
    """Compiles what plans need, so that no plan waits for it."""
    tiers = [Tier(tpot_s=0.1, decoding=1, alpha=0.5)]
    engine = Engine(table=table, most_drafts=2, most_tokens=8)
    for guard in (None, Caution.LOW):
        best_speculation(tiers, engine, guard=guard, before=(1,))


def _speculation(choice: Bought, plain: Bought) -> Speculation:
    return Speculation(
        drafts=tuple(length - 1 for length in choice.lengths),
        step_s=choice.step_s,
        prefill_tokens=choice.prefill_tokens,
        prefill_per_s=choice.per_s,
        plain_per_s=plain.per_s,
    )


def _numbers(tiers: Sequence[Tier]) -> Numbers:
    """As compiled code knows them."""
    return np.array(
        [(tier.tpot_s, float(tier.decoding), tier.context_tokens) for tier in tiers]
    ).reshape(-1, 3)


def _paced(numbers: Numbers) -> Flags:
    paced: Flags = (numbers[:, DECODING] > 0) & np.isfinite(numbers[:, TPOT_S])
    return paced


def produced_of(tiers: Sequence[Tier], engine: Engine, caution: Caution) -> Produced:
    """Tokens per request and step, by tier and by length from 1 up."""
    return produced_by_length([tier.alpha for tier in tiers], engine.most_drafts + 1, caution)


def bought(lengths: Lengths, tiers: Sequence[Tier], engine: Engine, produced: Produced) -> Bought:
    """With every tier in every step, which lasts no longer than each of them can wait for what it
    yields; `produced` is that, by tier and length.
    """
    step_s, tokens = draft_lengths.bought(
        np.array(lengths), _numbers(tiers), produced, engine.table.numbers, engine.most_tokens
    )
    return Bought(lengths=lengths, step_s=step_s, prefill_tokens=tokens)


def _plain(numbers: Numbers, engine: Engine) -> Bought:
    """One token each; a looser tier is due in some of the steps only, its share of the batch."""
    paced = _paced(numbers)
    unit_s = float(numbers[paced, TPOT_S].min()) if paced.any() else math.inf
    shares, asks = np.zeros(len(numbers)), np.isfinite(numbers[:, TPOT_S])
    shares[asks] = unit_s / numbers[asks, TPOT_S]
    lengths = np.ones(len(numbers), dtype=np.int64)
    step_s, tokens = draft_lengths.filled(
        lengths, shares, numbers, engine.table.numbers, unit_s, engine.most_tokens
    )
    return Bought(lengths=tuple(lengths.tolist()), step_s=step_s, prefill_tokens=tokens)


def _kept(
    tiers: Sequence[Tier],
    engine: Engine,
    produced: Produced,
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
    numbers, verified = _numbers(tiers), sum(tier.decoding for tier in tiers)
    for length in range(1, engine.most_drafts + 2):
        lengths = np.full(len(tiers), length)
        counts = step_of(lengths, np.ones(len(tiers)), numbers)
        step_s = float(sure_s(engine.table.numbers, counts))
        tokens = sum(tier.decoding * produced_tokens(tier.alpha, length) for tier in tiers)
        fits = length == 1 or verified * length <= engine.most_tokens
        if fits and step_s > 0 and tokens / step_s > most_per_s * (HYSTERESIS if most_per_s else 1):
            best = Bought(lengths=tuple(lengths.tolist()), step_s=step_s)
            most_per_s = tokens / step_s
    return best
