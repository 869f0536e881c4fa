"""Learns from reports how many tokens drafts give per step, by TPOT tier, as planning may count on
for a new request. `policies` sets the draft lengths.

A tier without reports gets the caller's prior. Otherwise no request with a TPOT that needs drafts
would be admitted, and nothing would be learned.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from services.planner.tuning import FRESH_DRAFTS, TIGHTER_TIERS
from shared.scheduling.rows import (
    COMPUTED,
    DRAFT,
    GENERATED,
    REMAINING,
    TOKENS_PER_STEP,
    TOTAL,
    TPOT,
    Rows,
)
from shared.scheduling.shares import ONE
from shared.scheduling.tiers import tier_of, tiers_of

_MOST_TIERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafts:
    """Drafted tokens per step, and tokens that such a step gives, on average."""

    tokens: float = 0.0
    gain: float = 1.0


@dataclass(slots=True)
class Drafting:
    """EWMAs by tier over all engines, since drafts depend on the model and on the requests."""

    _tiers: dict[float, Drafts] = field(default_factory=dict)

    def observe(self, rows: Rows) -> None:
        """Learns from the rows of one engine; decodes without a draft count as gain 1."""
        missing = rows[:, TOTAL] - rows[:, COMPUTED]
        decoding = rows[(rows[:, GENERATED] > 0) & (rows[:, REMAINING] > 0) & (missing <= ONE)]
        gains = np.where(decoding[:, DRAFT] > 0, decoding[:, TOKENS_PER_STEP], 1.0)
        numbers = tiers_of(decoding[:, TPOT])
        for tier in np.unique(numbers).tolist():
            here = numbers == tier
            self._note(tier, float(decoding[here, DRAFT].mean()), float(gains[here].mean()))

    def of(self, tpot_s: float, prior: Drafts, *, promised_s: float = math.nan) -> Drafts:
        """The drafts to count on at this TPOT: those of its tier, else those `about` the promised
        TPOT, else the prior.
        """
        here = self._tiers.get(tier_of(tpot_s))
        if here is None:
            return prior if math.isnan(promised_s) else self.about(promised_s, prior)
        return here

    def about(self, tpot_s: float, prior: Drafts) -> Drafts:
        """The newest estimate among this TPOT's tier and slightly tighter ones; else the prior."""
        tier = tier_of(tpot_s)
        near = (
            d for one, d in reversed(self._tiers.items()) if tier - TIGHTER_TIERS <= one <= tier
        )
        return next(near, prior)

    def count_on(self, rows: Rows, prior: Drafts) -> None:
        """Enters expected drafts into the rows of prompts, in place: they will draft once they
        decode.
        """
        prompts = rows[:, TOTAL] - rows[:, COMPUTED] > ONE
        for tpot_s in np.unique(rows[prompts, TPOT]).tolist():
            drafts = self.of(tpot_s, prior)
            here = prompts & (rows[:, TPOT] == tpot_s)
            rows[here, DRAFT], rows[here, TOKENS_PER_STEP] = drafts.tokens, drafts.gain

    def _note(self, tier: float, tokens: float, gain: float) -> None:
        before = self._tiers.pop(tier, Drafts())
        self._tiers[tier] = Drafts(
            tokens=before.tokens + FRESH_DRAFTS * (tokens - before.tokens),
            gain=before.gain + FRESH_DRAFTS * (gain - before.gain),
        )
        if len(self._tiers) > _MOST_TIERS:
            del self._tiers[next(iter(self._tiers))]
