"""The engines and the link of a fleet, as a replay needs them."""

from dataclasses import dataclass, replace

from services.planner.scaling.fleet_rows import Floats
from shared.batch_time import StepTable
from shared.batch_time.table import FloatArray
from shared.scheduling.shares import LONGEST_S


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Site:
    """The engines that a fleet consists of, and the link between them. `limits` are by role."""

    limits: Floats
    prefill_table: FloatArray
    decode_table: FloatArray
    link_fixed_s: float
    link_token_s: float

    def slower(self, factor: float) -> "Site":
        """The same with steps that last `factor` times as long."""
        return replace(
            self,
            prefill_table=StepTable(self.prefill_table).slower(factor).numbers,
            decode_table=StepTable(self.decode_table).slower(factor).numbers,
        )

    def bounded(self, longest_s: float) -> "Site":
        """The same with `longest_s` as the limit of a step's time; 0: no limit."""
        limits = self.limits.copy()
        limits[:, LONGEST_S] = longest_s
        return replace(self, limits=limits)
