"""The latest steps of one engine, to compare their times with the expected ones. The caller says
when a report came.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from shared.batch_time import StepTable
from shared.batch_time.table import (
    CHUNKS,
    COUNTS,
    DECODE_CONTEXT,
    DECODES,
    EARLIER,
    LONGEST_CONTEXT,
    LONGEST_PROMPT,
    PAIRS,
    PREFILL,
    SPECULATED,
    FloatArray,
    expected_s,
    sure_s,
)
from shared.compiled import compiled
from shared.engines import StepReport
from shared.requests import StepSums

_FIRST_ROWS: Final = 256
MOST_STEPS: Final = 4096
_MIDDLE, _DURATION, _COUNTS = 0, 1, 2
_WIDTH: Final = _COUNTS + COUNTS
# Bound of the drift between the engine's clock and ours, in seconds per second; what a report is
# late beyond that is delay.
_CLOCK_GAIN: Final = 1e-4


@dataclass(slots=True, eq=False)
class StepHistory:
    """The last MOST_STEPS steps at least, twice as many at most, on the caller's clock.

    A step belongs to the time span that holds its middle, since the delay of a report or a token
    is less than half a step.
    """

    _rows: FloatArray = field(default_factory=lambda: np.zeros((_FIRST_ROWS, _WIDTH)))
    _count: int = 0
    _offset_s: float = np.inf  # from the engine's clock to ours: the least delay that was seen
    _heard_at_s: float = 0.0

    def __len__(self) -> int:
        return self._count

    def add(self, reports: Sequence[StepReport], now: float) -> None:
        """Adds reports that came together at `now`; skips those without a step."""
        if not reports:
            return
        aged_s = max(0.0, now - self._heard_at_s) * _CLOCK_GAIN if self._count else 0.0
        self._offset_s = min(self._offset_s + aged_s, now - reports[-1].ended_at_s)
        self._heard_at_s = now
        for report in reports:
            if report.duration_s > 0:
                self._append(report)

    def sums(
        self, engine: str, table: StepTable | None, start_s: float, end_s: float
    ) -> StepSums | None:
        """Sums over the steps within these times; None where there are none or no `table`."""
        middles = self._rows[: self._count, _MIDDLE]
        first, last = np.searchsorted(middles, (start_s, end_s), side="right")
        steps = self._rows[first:last]
        if not len(steps) or table is None:
            return None
        expected, sure, beyond, worst_s = _beside(steps, table.numbers)
        return StepSums(
            engine=engine,
            steps=len(steps),
            real_s=float(steps[:, _DURATION].sum()),
            expected_s=float(expected),
            sure_s=float(sure),
            beyond_sure=int(beyond),
            worst_excess_s=float(worst_s),
            prefill_tokens=int(steps[:, _COUNTS + PREFILL].sum()),
            decode_tokens=int(steps[:, _COUNTS + DECODES].sum()),
        )

    def _append(self, report: StepReport) -> None:
        if self._count == len(self._rows):
            self._make_room()
        row = self._rows[self._count]
        row[_MIDDLE] = report.ended_at_s + self._offset_s - report.duration_s / 2
        row[_DURATION] = report.duration_s
        if self._count:
            row[_MIDDLE] = max(row[_MIDDLE], self._rows[self._count - 1, _MIDDLE])
        _fill(row[_COUNTS:], report)
        self._count += 1

    def _make_room(self) -> None:
        """Doubles the rows up to 2 * MOST_STEPS, then drops the older half."""
        if len(self._rows) < 2 * MOST_STEPS:
            self._rows = np.vstack([self._rows, np.zeros_like(self._rows)])
            return
        self._rows[:MOST_STEPS] = self._rows[MOST_STEPS:]
        self._count = MOST_STEPS


def _fill(counts: FloatArray, report: StepReport) -> None:
    counts[DECODES] = report.decode_tokens
    counts[SPECULATED] = report.speculated_tokens
    counts[DECODE_CONTEXT] = report.decode_context_tokens
    counts[LONGEST_CONTEXT] = report.longest_context_tokens
    counts[CHUNKS] = report.chunks
    counts[PREFILL] = report.prefill_tokens
    counts[EARLIER] = report.earlier_tokens
    counts[PAIRS] = report.attention_pairs
    counts[LONGEST_PROMPT] = report.longest_prompt_tokens


@compiled
def _beside(steps: FloatArray, table: FloatArray) -> tuple[float, float, float, float]:
    """Sums of expected and sure seconds, how many steps exceeded sure, and the worst excess."""
    expected, sure, beyond, worst_s = 0.0, 0.0, 0.0, 0.0
    for i in range(len(steps)):
        counts = steps[i, _COUNTS:]
        expected += expected_s(table, counts)
        surely_s = sure_s(table, counts)
        sure += surely_s
        over_s = steps[i, _DURATION] - surely_s
        if over_s > 0:
            beyond += 1.0
            worst_s = max(worst_s, over_s)
    return expected, sure, beyond, worst_s
