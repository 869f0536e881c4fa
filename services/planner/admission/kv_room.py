"""Whether an engine has KV for requests: now, and at the length that their answers may reach."""

import math
from dataclasses import dataclass

from services.planner.estimators.kv_forecast import Classes, ClassIndices, blocks_needed
from services.planner.state.engine_state import EngineState
from services.planner.state.turnover import usual_step_s
from services.planner.tuning import STEPS_TO_RECOMPUTE
from shared.batch_time import StepTable
from shared.batch_time.table import FloatArray
from shared.engines import Role
from shared.scheduling.rows import SHARED, TOTAL, Rows
from shared.scheduling.shares import step_pace_s


@dataclass(frozen=True, slots=True, eq=False)
class KvRoom:
    """The KV of one engine in a round. Rows come with their class, see `Classes`."""

    engine: EngineState
    classes: Classes

    def blocks_of(self, tokens: float) -> float:
        """The whole blocks of so many tokens."""
        return math.ceil(tokens / self.engine.description.block_size_tokens)

    def needed_blocks(self, rows: Rows, class_indices: ClassIndices) -> float:
        """The most that these requests will need at once, on average."""
        block_tokens = self.engine.description.block_size_tokens
        own = blocks_needed(rows, class_indices, self.classes.survivals, block_tokens)
        return self.engine.shared_kv.blocks + own

    def free_blocks(self, rows: Rows, class_indices: ClassIndices) -> float:
        """What these requests leave free; negative where they do not fit."""
        engine = self.engine.description
        if len(rows) > engine.max_running_requests:
            return -1.0
        return engine.kv_blocks - self.needed_blocks(rows, class_indices)

    def left_blocks(self, rows: Rows, class_indices: ClassIndices, newcomers: int) -> float:
        """What the last rows leave to requests that cost less KV."""
        engine = self.engine.description
        if engine.role is Role.PREFILL:  # its requests hold KV for a moment
            return 0.0
        kv_blocks, block_tokens = engine.kv_blocks, engine.block_size_tokens
        return self.classes.left_blocks(rows, class_indices, newcomers, kv_blocks, block_tokens)

    def has_at_once(self, row: FloatArray) -> bool:
        """Whether the KV of this prompt has room now beside what is kept for sessions."""
        free = self.engine.free_kv_blocks - self.engine.policy.kept_blocks
        return bool(self.blocks_of(row[TOTAL] - row[SHARED]) <= free)

    def may_run_out(self, row: FloatArray, class_name: str, table: StepTable) -> bool:
        """Whether KV is short by what answers of the class are known to take, and the TPOT of the
        request leaves no time to recompute its KV after a preemption.
        """
        if not self.classes.knows(class_name):
            return False
        usual_s = usual_step_s(self.engine.rows, table)
        return bool(step_pace_s(row[None], 0) < STEPS_TO_RECOMPUTE * usual_s)
