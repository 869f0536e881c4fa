"""The part beyond capacity: what is asked for, and how it is told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.evaluation.figures import figures
from services.evaluation.markdown import NOT_RUN
from services.evaluation.measure import calming, retry_counts
from services.evaluation.overload import MULTIPLES, RETRIED, SCENARIOS, overload, retries
from services.evaluation.overload_report import overload_tables, retries_table
from services.evaluation.parts import Evaluation
from services.evaluation.points import Point, RetryCounts, Task, from_line, to_line
from services.evaluation.points_in_memory import PointsInMemory
from services.evaluation.results import Overload, Results, Retried
from services.evaluation.scenarios import QUICK, load_of
from services.evaluation.study import Capacity, Cell
from shared.simulation.record import Record, Retry
from shared.simulation.request_metrics import (
    ADMISSION,
    ADMITTED,
    NEVER_CAME,
    REFUSED,
    new_request_metrics,
)
from shared.simulation.system import SimRequest
from tests.unit.evaluation.builders import make_point, make_task
from tests.unit.shared.simulation.fleet import call

COUNTS = RetryCounts(first=100, refused=40, named=40, named_s=(2.0, 9.0), again=30, admitted=21)


class Stub:
    """Keeps half of everything in time; half of the retries are promised."""

    jobs = 1

    def __init__(self) -> None:
        self.asked: list[Task] = []
        self._ready: list[Point] = []

    def start(self, task: Task) -> None:
        self.asked.append(task)
        retries = None if task.retry_s is None else COUNTS
        self._ready.append(replace(make_point(task, 0.5), retries=retries))

    def next(self) -> Point:
        return self._ready.pop(0)


def make_evaluation(pool: Stub) -> Evaluation:
    cell = Cell(scenario="Mixed", system="slos-serve", replicas=1, bar=0.9)
    found = Capacity(cell=cell, rate=4.0, failed=5.0, setting="drafts of 4", points=1)
    return Evaluation(
        effort=QUICK,
        seed=1,
        pool=pool,
        points=PointsInMemory(),
        results=Results(effort="quick", seed=1, machine="", capacities=[found]),
        folder=Path(),
        hear=lambda _part: lambda _ended, _all, _task: None,
        show=lambda _part: lambda _ended, _all, _what: None,
    )


def test_an_overload_lasts_as_long_as_the_load_at_capacity() -> None:
    pool = Stub()

    overload(make_evaluation(pool), ("slos-serve",), 0.9)

    mixed = [task for task in pool.asked if task.scenario == "Mixed"]
    assert [task.rate for task in mixed] == [4.0 * one for one in MULTIPLES]
    lasted_s = [task.programs / task.rate for task in mixed if task.rate >= 4.0]
    assert max(lasted_s) == pytest.approx(min(lasted_s), rel=0.02)
    assert all(task.setting == "drafts of 4" and not task.bars for task in mixed)


def test_clients_that_come_again_take_no_best_effort() -> None:
    pool = Stub()
    evaluation = make_evaluation(pool)

    retries(evaluation, 0.9)

    assert {task.system for task in pool.asked} == {"slos-serve: no best effort"}
    assert {task.retry_s for task in pool.asked} == {0.0, 1.0}
    calm = {task.calm_rate for task in pool.asked if task.scenario == "Mixed"}
    assert calm == {0.0, 3.2}
    assert len(evaluation.results.retries) == 2 * len(SCENARIOS) * len(RETRIED)


def overloaded(system: str, multiple: float, kept: float) -> Overload:
    point = make_point(make_task(system=system), kept)
    all_requests = point.classes[0]
    return Overload(
        scenario="Mixed",
        system=system,
        setting="s",
        multiple=multiple,
        rate=4.0 * multiple,
        programs=50,
        kept=kept,
        classes=(all_requests, replace(all_requests, name="chat", requests=25)),
    )


def test_goodput_is_what_is_in_time_of_what_is_offered() -> None:
    results = Results(
        effort="full",
        seed=1,
        machine="",
        overloads=[overloaded("slos-serve", 1.0, 0.9), overloaded("slos-serve", 5.0, 0.09)],
        retries=[Retried(scenario="Mixed", multiple=1.2, ends=False, named=COUNTS, fixed=COUNTS)],
    )

    told = overload_tables(results)

    assert "| slos-serve | 3.6 | 1.8 | 50% | s |" in told
    assert "| chat | slos-serve | 1.8 (90%) | 0.9 (9%) |" in told
    assert "| Mixed | 1 x | 90.0% | 97.8% | 0.40 | 0.90 | 40.0 | 0.80 |" in told
    assert "| Mixed | 1.2 x | 60% | 40 | 2.0 / 9.0 | 70% of 30 | 70% of 30 |" in retries_table(
        results
    )
    assert set(figures(results)) == {"overload"}


def test_what_was_not_run_is_told() -> None:
    assert overload_tables(Results(effort="full", seed=1, machine="")) == NOT_RUN


def test_retries_are_read_as_they_were_written() -> None:
    point = replace(make_point(make_task(), 0.9), retries=COUNTS)

    assert from_line(to_line(point)) == point


def test_retries_beyond_the_last_arrival_are_not_counted() -> None:
    metrics = new_request_metrics(5)
    metrics[:, ADMISSION] = [ADMITTED, REFUSED, ADMITTED, NEVER_CAME, REFUSED]
    requests = tuple(
        SimRequest(
            index=n, call=call(), program_id=str(n), call_number=0, arrives_s=0.0, ttft_s=1.0
        )
        for n in range(5)
    )
    record = Record(
        requests=requests,
        metrics=metrics,
        routes={},
        engines=(),
        ended_s=9.0,
        retries=(
            Retry(index=0, refused_s=1.0, again_s=2.0),
            Retry(index=1, refused_s=1.0, again_s=3.0),
            Retry(index=2, refused_s=3.0, again_s=8.0),
        ),
    )

    counts = retry_counts(record, last_s=5.0)

    assert (counts.first, counts.refused, counts.named) == (4, 4, 3)
    assert (counts.again, counts.admitted) == (2, 1)
    assert counts.named_s[0] == 2.0


def test_only_the_later_half_of_a_calming_load_is_further_apart() -> None:
    load = load_of("ChatBot", rate=4.0, programs=40, seed=1)

    before = np.diff([program.arrives_s for program in load])
    after = np.diff([program.arrives_s for program in calming(load, 3.0)])

    assert after[:20] == pytest.approx(before[:20])
    assert after[20:] == pytest.approx(3.0 * before[20:])
