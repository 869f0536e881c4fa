"""The safety margin of each promise, learned from kept and broken promises.

A new request may not use up all the slack of the others, which they need when an engine is slower
than expected. How slow that is shows in what becomes of promises: a broken one makes the safety
margin wider, a kept one a little narrower, so that the share of broken ones settles where it is
tolerated (adaptive conformal inference, arXiv 2106.00170).
"""

from dataclasses import dataclass

from services.planner.tuning import (
    MARGIN_STEP,
    TOLERATED_BROKEN,
    TPOT_MARGIN_FIRST,
    TPOT_MARGIN_LEAST,
    TPOT_MARGIN_MOST,
    TTFT_MARGIN_FIRST,
    TTFT_MARGIN_LEAST,
    TTFT_MARGIN_MOST,
)
from shared.requests import Admission, Outcome, Placement


@dataclass(slots=True)
class _Share:
    """The safety margin as a share of a promised time, between `least` and `most`."""

    share: float
    least: float
    most: float

    def learn(self, *, kept: bool) -> None:
        self.share += MARGIN_STEP * ((0.0 if kept else 1.0) - TOLERATED_BROKEN)
        self.share = min(self.most, max(self.least, self.share))


class SafetyMargin:
    """The reserves of one engine, as shares of the time left to a first token and of a TPOT."""

    def __init__(self) -> None:
        self._ttft = _Share(share=TTFT_MARGIN_FIRST, least=TTFT_MARGIN_LEAST, most=TTFT_MARGIN_MOST)
        self._tpot = _Share(share=TPOT_MARGIN_FIRST, least=TPOT_MARGIN_LEAST, most=TPOT_MARGIN_MOST)

    @property
    def ttft_share(self) -> float:
        return self._ttft.share

    @property
    def tpot_share(self) -> float:
        return self._tpot.share

    def learn_start(self, placement: Placement, outcome: Outcome) -> None:
        """Learns the TTFT reserve of the engine that gave the first token."""
        if _counts(placement) and placement.ttft_s is not None and outcome.ttft_s is not None:
            self._ttft.learn(kept=outcome.ttft_s <= placement.ttft_s)

    def learn_pace(self, placement: Placement, outcome: Outcome) -> None:
        """Learns the TPOT reserve of the engine that gave the other tokens."""
        if _counts(placement) and placement.tpot_s is not None and outcome.tpot_s is not None:
            lateness = outcome.stage_lateness
            if lateness is None:
                lateness = outcome.tpot_s / placement.tpot_s
            self._tpot.learn(kept=lateness <= 1)


def _counts(placement: Placement) -> bool:
    return placement.admission is Admission.ADMITTED
