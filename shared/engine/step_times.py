"""What the scheduler knows of its own step times: from a profile, and from every step it makes.
Time is an argument.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.batch_time import ADDITIVE, BatchTimeModel, Step, StepCurve, StepTable, from_plain
from shared.batch_time.table import FloatArray, expected_s

_LEARN_EVERY_S = 0.02  # learning takes some 50 us, far less than one in a hundred of that
_AT_LEISURE_S = 0.1
_TELL_EVERY_S = 1.0


@dataclass(slots=True)
class StepTimes:
    """`table` is None while nothing is known."""

    table: StepTable | None = None
    _model: BatchTimeModel = field(default_factory=BatchTimeModel)
    _learned_at_s: float = 0.0
    _told_at_s: float = 0.0
    _told: StepTable | None = None

    def __post_init__(self) -> None:
        # Compiled here rather than in the first step.
        StepTable.of(StepCurve(form=ADDITIVE, coefficients=(0.0,) * 4)).expected_s(Step())

    def start_from(self, profile: Mapping[str, Any]) -> None:
        """Forgets what it learned for a fit as plain data. Raises ValueError where it is none."""
        self._model = BatchTimeModel(from_plain(profile))
        self._told_at_s = 0.0
        self._set_table()

    def expected_s(self, counts: FloatArray) -> float:
        """By a step's counts; 0 while nothing is known."""
        return 0.0 if self.table is None else float(expected_s(self.table.numbers, counts))

    def learns_at(self, now_s: float, *, at_leisure: bool = False) -> bool:
        """Not from every step where steps are short; `at_leisure`: no promise rests on it now."""
        return now_s - self._learned_at_s >= (_AT_LEISURE_S if at_leisure else _LEARN_EVERY_S)

    def observe(self, step: Step, duration_s: float, now_s: float) -> None:
        """Learns from it where it is time to."""
        if self.learns_at(now_s):
            self._learned_at_s = now_s
            self._model.learn(step, duration_s)
            self._set_table()

    def news(self, now_s: float) -> bytes:
        """The table where it is time to tell of a new one, else nothing."""
        if self.table is self._told or self.table is None:
            return b""
        if self._told_at_s and now_s - self._told_at_s < _TELL_EVERY_S:
            return b""
        self._told_at_s, self._told = now_s, self.table
        return self.table.to_bytes()

    def _set_table(self) -> None:
        self.table = self._model.table
