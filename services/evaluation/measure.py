"""Simulates one task."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from services.evaluation.attainment import Attainment, EarlyEnd
from services.evaluation.fleets import make_engines
from services.evaluation.observed import Observed
from services.evaluation.points import Bin, ClassTimes, Point, RetryCounts, Task
from services.evaluation.scenarios import counted_of, drain_s, hardware_of, load_on
from services.evaluation.tuning_cases import tuning_case_of
from services.evaluation.variants import build, setting_of, table_of
from services.evaluation.version import version_of
from shared.clock import cpu_time_s
from shared.simulation.judge import Rule, Share, judge, kept
from shared.simulation.record import Conditions, Record
from shared.simulation.request_metrics import (
    ADMISSION,
    ADMITTED,
    ARRIVES,
    BEST_EFFORT,
    NEVER_CAME,
    PLACED,
    REFUSED,
)
from shared.simulation.run import Run
from shared.workloads.calls import Load

_HELD_S = 0.02  # a slower decision counts as deferred


def measure_point(task: Task) -> Point:
    """Simulates a task. Raises ConfigError for unknown names."""
    started_s = cpu_time_s()
    hardware = hardware_of(task.hardware)
    load = load_on(
        task.scenario,
        hardware,
        rate=task.rate,
        programs=task.programs,
        seed=task.seed,
        pacing=task.pacing,
    )
    if task.calm_rate:
        load = calming(load, task.rate / task.calm_rate)
    case = tuning_case_of(task.scenario, task.hardware, task.replicas, task.seed)
    setting, table = setting_of(task.system, task.setting, case), table_of(task.system, hardware)
    engines = make_engines(setting.roles, hardware, table, seed=task.seed)
    system = Observed(build(task.system, setting, engines, load), cpu_time_s)
    counted = counted_of(lasting=task.lasting, programs=len(load))
    attainment = Attainment(load, counted, by_request=task.by_request, by_class=task.by_class)
    early = EarlyEnd(load, attainment, Rule(task.rule), task.bars)
    conditions = Conditions(drain_s=drain_s(load, hardware), retry_s=task.retry_s)
    record = Run(load, system, engines, conditions, early if task.bars else None).record()
    now = record.ended_s if early.ended_early else math.inf
    return Point(
        task=task,
        version=version_of(task.system),
        complete=not early.ended_early,
        attained=_attained(record, attainment, now),
        classes=tuple(_class(share) for share in judge(record)),
        batches=system.batches,
        decision_ms=system.decision_ms,
        ended_s=record.ended_s,
        cpu_s=cpu_time_s() - started_s,
        steps=sum(engine.steps for engine in engines),
        timeline=tuple(timeline(record, task.bin_s)) if task.bin_s else (),
        retries=None if task.retry_s is None else retry_counts(record, load[-1].arrives_s),
    )


def calming(load: Load, slower: float) -> Load:
    """The load with its later half of programs `slower` times as far apart."""
    turn_s = load[len(load) // 2].arrives_s
    return tuple(
        replace(one, arrives_s=turn_s + slower * (one.arrives_s - turn_s))
        if one.arrives_s > turn_s
        else one
        for one in load
    )


def _attained(record: Record, attainment: Attainment, now: float) -> dict[str, tuple[float, float]]:
    found = {
        rule.value: attainment.bounds(record.requests, record.metrics, rule, now) for rule in Rule
    }
    return {rule: (bounds.at_least, bounds.at_most) for rule, bounds in found.items()}


def _class(share: Share) -> ClassTimes:
    return ClassTimes(
        name=share.name,
        requests=share.requests,
        admitted=share.admitted,
        best_effort=share.best_effort,
        refused=share.refused,
        promises_kept=share.promises_kept,
        attained={rule.value: share.attained(rule) for rule in Rule},
        ttft_s=share.ttft_s,
        tpot_s=share.tpot_s,
        ttft_share=share.ttft_share,
        tpot_share=share.tpot_share,
        causes={cause.value: count for cause, count in share.causes.items()},
    )


def retry_counts(record: Record, last_s: float) -> RetryCounts:
    """Counts retries of a run in which the last program arrives at `last_s`. Later retries are not
    counted: they find an emptying fleet.
    """
    admission = record.metrics[:, ADMISSION]
    waits_s = [one.again_s - one.refused_s for one in record.retries]
    again = [one.index for one in record.retries if one.again_s <= last_s]
    second = {one.index for one in record.retries}
    unnamed = sum(int(index) not in second for index in np.flatnonzero(admission == REFUSED))
    p50, p90 = np.quantile(waits_s, (0.5, 0.9)).tolist() if waits_s else (math.nan, math.nan)
    return RetryCounts(
        first=int((admission != NEVER_CAME).sum()),
        refused=len(second) + unnamed,
        named=len(second),
        named_s=(p50, p90),
        again=len(again),
        admitted=int((admission[again] == ADMITTED).sum()),
    )


def timeline(record: Record, bin_s: float) -> Sequence[Bin]:
    """Counts requests by admission and by kept targets, for each part of the run."""
    metrics = record.metrics
    numbers = (metrics[:, ARRIVES] // bin_s).astype(np.int64)
    admission, good = metrics[:, ADMISSION], kept(metrics, Rule.ASKED)
    admitted = admission == ADMITTED
    waited = admitted & (metrics[:, PLACED] - metrics[:, ARRIVES] > _HELD_S)
    groups = (admitted & ~waited, waited, admission == BEST_EFFORT, admission == REFUSED, good)
    last = int(numbers.max()) + 1 if len(numbers) else 0
    counts = [np.bincount(numbers[group], minlength=last).tolist() for group in groups]
    return [
        Bin(from_s=n * bin_s, admitted=a, held=h, best_effort=b, refused=r, kept=k)
        for n, (a, h, b, r, k) in enumerate(zip(*counts, strict=True))
    ]
