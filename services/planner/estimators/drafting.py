"""What drafts give requests at present, by the tier of their pace, learned from what engines report
of them: what a newcomer may count on. Sets no lengths.

A tier of which nothing was reported yet counts on a prior, which its caller knows: else no request
of a pace that takes drafts would ever be admitted, and nothing would be learned.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from services.planner.tuning import FRESH_DRAFTS, TIGHTER_TIERS
from shared.scheduling.rows import COMPUTED, DRAFT, GAIN, LEFT, PRODUCED, TOTAL, TPOT, Rows
from shared.scheduling.shares import ONE
from shared.scheduling.tiers import tier_of, tiers_of

_MOST_TIERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafts:
    """Drafted tokens of a step, and tokens that the step then gives, on average."""

    tokens: float = 0.0
    gain: float = 1.0


@dataclass(slots=True)
class Drafting:
    """Over all engines: drafts are a matter of the model and of what is asked."""

    _tiers: dict[float, Drafts] = field(default_factory=dict)

    def observe(self, rows: Rows) -> None:
        """The requests of one engine; those whose text gave no draft count as well."""
        missing = rows[:, TOTAL] - rows[:, COMPUTED]
        decoding = rows[(rows[:, PRODUCED] > 0) & (rows[:, LEFT] > 0) & (missing <= ONE)]
        gains = np.where(decoding[:, DRAFT] > 0, decoding[:, GAIN], 1.0)
        numbers = tiers_of(decoding[:, TPOT])
        for tier in np.unique(numbers).tolist():
            here = numbers == tier
            self._note(tier, float(decoding[here, DRAFT].mean()), float(gains[here].mean()))

    def of(self, tpot_s: float, prior: Drafts, *, promised_s: float = math.nan) -> Drafts:
        """What a request that is asked for this pace may count on: what others of it got, else what
        those got that were asked for a little less than `promised_s`; the prior where nothing was
        seen.
        """
        here = self._tiers.get(tier_of(tpot_s))
        if here is None:
            return prior if math.isnan(promised_s) else self.about(promised_s, prior)
        return here

    def about(self, tpot_s: float, prior: Drafts) -> Drafts:
        """The newest of those that are asked for such a pace or a little tighter."""
        tier = tier_of(tpot_s)
        near = (
            d for one, d in reversed(self._tiers.items()) if tier - TIGHTER_TIERS <= one <= tier
        )
        return next(near, prior)

    def count_on(self, rows: Rows, prior: Drafts) -> None:
        """Prompts will draft once they decode, though their rows tell of no drafts yet."""
        prompts = rows[:, TOTAL] - rows[:, COMPUTED] > ONE
        for tpot_s in np.unique(rows[prompts, TPOT]).tolist():
            drafts = self.of(tpot_s, prior)
            here = prompts & (rows[:, TPOT] == tpot_s)
            rows[here, DRAFT], rows[here, GAIN] = drafts.tokens, drafts.gain

    def _note(self, tier: float, tokens: float, gain: float) -> None:
        before = self._tiers.pop(tier, Drafts())
        self._tiers[tier] = Drafts(
            tokens=before.tokens + FRESH_DRAFTS * (tokens - before.tokens),
            gain=before.gain + FRESH_DRAFTS * (gain - before.gain),
        )
        if len(self._tiers) > _MOST_TIERS:
            del self._tiers[next(iter(self._tiers))]
