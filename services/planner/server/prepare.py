"""Compiles the code of decisions before the first request, by deciding for a made-up engine."""

import numpy as np

from services.planner.admission.dynamic_program import Problem, best_set, holds
from services.planner.admission.pending import PendingRequest
from services.planner.admission.rounds import decide_round
from services.planner.longest_step import longest_step_s
from services.planner.planner_config import PlannerConfig
from services.planner.state import class_mix
from services.planner.state.cluster import ClusterState
from services.planner.state.step_history import StepHistory
from shared.batch_time import RICH, Step, StepCurve, StepTable
from shared.compiled import is_kept
from shared.engines import EngineDescription, Role, StepReport
from shared.requests import PlacementQuery, SloTargets
from shared.scheduling import speculation
from shared.scheduling.rows import new_row, to_wire
from shared.scheduling.simulate import run

_MODEL = "made-up"


def is_prepared() -> bool:
    """Whether the compiled code of the simulation, the longest to compile, is on disk."""
    return is_kept(run)


def prepare() -> None:
    """Compiles, or loads the compiled code from disk, which is much quicker."""
    table = StepTable.of(StepCurve(form=RICH, coefficients=(1e-3,) * len(RICH.columns)))
    for seconds in (table.expected_s, table.sure_s):
        seconds(Step())
    state = ClusterState(PlannerConfig(), epoch="prepare", now=0.0)
    engine, refusal = state.register(_description(table))
    assert engine is not None, refusal
    state.observe(engine, [_report(table)], 0.0)
    decide_round([_asked(0.0), _asked(1e6)], state, 0.0)
    history = StepHistory()
    history.add([_report(table)], 1.0)
    history.sums(engine.name, table, 0.0, 2.0)
    longest_step_s(table, np.ones((1, 4)))
    _solve(table)
    speculation.prepare(table)
    class_mix.prepare()


def _solve(table: StepTable) -> None:
    """Runs the admission DP, which rounds run only for contested engines."""
    items = np.array([[0.0, 0.0, 0.0, 0.0, 1.0, 1.0], [1.0, 10.0, 0.0, 1.0, 1.0, 0.0]])
    problem = Problem(
        items=items,
        paces_s=np.ones(1),
        contexts=np.ones(1),
        free_blocks=10.0,
        busy_s=0.0,
        max_tokens=16.0,
        longest_s=0.0,
        table=table,
    )
    assert best_set(problem)[0]
    holds(problem, np.ones(2, dtype=np.bool_))


def _description(table: StepTable) -> EngineDescription:
    return EngineDescription(
        name="made-up",
        engine_id="made-up-1",
        role=Role.DECODE,
        address="made-up:1",
        model=_MODEL,
        vllm_version="made-up",
        block_size_tokens=16,
        kv_blocks=1024,
        kv_bytes_per_token=1,
        max_model_len_tokens=4096,
        max_running_requests=64,
        max_step_tokens=512,
        max_speculation_tokens=0,
        step_time=table.to_bytes(),
    )


def _report(table: StepTable) -> StepReport:
    """A report with a running request, so that there is a promise to keep."""
    row = new_row(tokens=10, computed=9, produced=1, left=10, due_s=1e3, tpot_s=1e3)
    return StepReport(
        step=1,
        ended_at_s=0.0,
        duration_s=1e-3,
        prefill_tokens=0,
        decode_tokens=1,
        decode_context_tokens=10,
        speculated_tokens=0,
        accepted_tokens=0,
        running=1,
        waiting=0,
        queued_prefill_tokens=0,
        free_kv_blocks=1000,
        requests=to_wire(row[np.newaxis], 0.0),
        step_time=table.to_bytes(),
    )


def _asked(ttft_s: float) -> PendingRequest:
    query = PlacementQuery(
        request_id=f"made-up-{ttft_s:g}",
        group_id=f"made-up-{ttft_s:g}",
        model=_MODEL,
        targets=SloTargets(ttft_s=ttft_s, tpot_s=1e3),
        prompt_tokens=32,
        max_output_tokens=8,
    )
    return PendingRequest(query=query, arrived_at_s=0.0, first_asked_at_s=0.0)
