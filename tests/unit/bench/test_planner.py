import json

import numpy as np
import pytest

from services.bench.machine import Machine
from services.bench.planner_measure import (
    First,
    Intake,
    Memory,
    Taken,
    Times,
    decisions,
    formed_steps,
    intake,
    memory,
    time_of,
)
from services.bench.planner_report import Measured, Row, as_json, make_tables, sentences
from services.bench.planner_world import NOW_S, PACES, World, step_table
from shared.scheduling.former import engine_limits
from shared.scheduling.rows import COMPUTED, DEADLINE, GENERATED, TOTAL, TPOT, from_wire
from shared.scheduling.simulate import simulate

WORLD = World(running=24)
TAKEN = Taken.of(Times([0.001, 0.003, 0.002], [0.001, 0.002, 0.001]), 6)


def test_a_world_runs_what_it_says_in_three_tiers() -> None:
    rows = WORLD.rows()

    assert len(rows) == WORLD.running
    assert len(np.unique(rows[:, TPOT])) == len(PACES)
    assert (rows[:, TOTAL] > rows[:, COMPUTED]).all()
    assert (rows[:, DEADLINE] > NOW_S).all()
    assert (rows[:, GENERATED] == 0).any()


def test_a_worlds_requests_can_be_held() -> None:
    engine = WORLD.description(0)
    limits = engine_limits(
        max_tokens=engine.max_step_tokens,
        block_tokens=engine.block_size_tokens,
        max_resident=engine.max_running_requests,
        free_blocks=WORLD.report(0).free_kv_blocks,
    )
    rows = WORLD.rows()

    assert not simulate(rows, step_table(), limits, NOW_S).late(rows).any()


def test_what_an_engine_reports_are_its_rows() -> None:
    rows = WORLD.rows(3)

    assert from_wire(WORLD.report(3).requests, NOW_S) == pytest.approx(rows, rel=1e-5)


def test_a_world_is_the_same_again_and_each_engine_and_round_another() -> None:
    again = World(running=24)

    assert (again.rows(1) == WORLD.rows(1)).all()
    assert (WORLD.rows(0) != WORLD.rows(1)).any()
    assert again.asked(4, 7) == WORLD.asked(4, 7)
    assert WORLD.asked(4, 7) != WORLD.asked(4, 8)


def test_a_call_is_timed_as_often_as_was_said_or_until_the_limit() -> None:
    called: list[int] = []
    times = time_of(called.append, 5, limit_s=10.0)

    assert len(times.wall_s) == len(times.cpu_s) == 5
    assert called[-5:] == [0, 1, 2, 3, 4]
    assert len(time_of(called.append, 1_000_000, limit_s=1e-9).wall_s) == 1


def test_decisions_are_made_on_fleets_of_any_size() -> None:
    assert decisions(WORLD, 1, 4, 5, 10.0).count == 5
    assert decisions(WORLD, 5, 4, 5, 10.0).count == 5


def test_a_step_is_formed_of_all_requests() -> None:
    assert formed_steps(WORLD, 20, 10.0).count == 20


def test_reports_are_taken_in_from_their_bytes() -> None:
    taken = intake(WORLD, 2, 10, 10.0)

    assert taken.report_bytes > WORLD.running * 13 * 4
    assert taken.share_of_a_core == pytest.approx(20 * taken.per_report_s)


def test_memory_is_sampled_over_all_decisions() -> None:
    watched = memory(WORLD, 50)

    assert len(watched.after_mib) == 10
    assert 0 < watched.before_mib <= 1.5 * watched.after_mib[-1]


def test_times_are_told_as_percentiles() -> None:
    assert (TAKEN.p50_ms, TAKEN.p99_ms, TAKEN.max_ms) == (2.0, 3.0, 3.0)
    assert TAKEN.cpu_p99_ms == 2.0
    assert TAKEN.admitted == 2.0


def test_what_was_measured_is_shown_to_programs_and_people() -> None:
    row = Row(engines=2, running=8, candidates=4, taken=TAKEN)
    measured = Measured(
        machine=Machine(cores=2, cpu="a chip", loads=(0.0, 0.0, 0.0)),
        decisions=[row],
        fleets=[row],
        steps=[row],
        intake=Intake(engines=64, reports_per_s=100, report_bytes=7000, per_report_s=5e-5),
        memory=Memory(decisions=100, before_mib=50.0, after_mib=(51.0, 52.0)),
        first={"cold": First(load_s=1.0, prepare_s=5.0, first_s=2.0, second_s=0.001)},
        scheduling=[
            {"scheduler": "slos", "running": 8, "with_slo": True, "schedule_us": 9, "update_us": 4}
        ],
    )
    told = json.loads(json.dumps(as_json(measured)))

    assert told["decisions"][0]["p99_ms"] == 3.0
    assert told["reports"]["share_of_a_core"] == pytest.approx(0.32)
    assert told["first_decision"]["cold"]["first_s"] == 2.0
    assert [table.row_count for table in make_tables(measured)] == [2, 1, 1]
    assert any("32 % of a core" in sentence for sentence in sentences(measured))
