from dataclasses import replace

from services.evaluation.points import ClassTimes, Point, Task
from services.evaluation.version import version_of
from shared.simulation.judge import Rule


def make_task(
    *, setting: str = "a", rate: float = 1.0, system: str = "vllm", engines: int = 1
) -> Task:
    return Task(
        scenario="ChatBot",
        hardware="opt-7b-a100-40gb",
        system=system,
        setting=setting,
        replicas=1,
        engines=engines,
        rate=rate,
        programs=100,
        seed=1,
    )


def make_point(task: Task, share: float, *, ended_s: float = 10.0) -> Point:
    """A point that was not ended early, with the same share by every rule."""
    all_requests = ClassTimes(
        name="all",
        requests=100,
        admitted=90,
        best_effort=4,
        refused=6,
        promises_kept=88,
        attained={rule.value: share for rule in Rule},
        ttft_s=(0.1, 0.4),
        tpot_s=(0.02, 0.04),
        ttft_share=0.9,
        tpot_share=0.8,
        causes={"queue": 3},
    )
    return Point(
        task=task,
        version=version_of(task.system),
        complete=True,
        attained={rule.value: (share, share) for rule in Rule},
        classes=(all_requests,),
        batches=(0,) * 15,
        decision_ms=(1.0, 2.0, 0.5),
        ended_s=ended_s,
        cpu_s=0.1,
        steps=100,
    )


class Meter:
    """Measures at once: a setting keeps everything up to its capacity, and half beyond."""

    jobs = 2

    def __init__(self, capacities: dict[str, float]) -> None:
        self.asked: list[Task] = []
        self._capacities = capacities
        self._ready: list[Point] = []

    def start(self, task: Task) -> None:
        self.asked.append(task)
        holds = task.rate <= self._capacities[task.setting]
        held_out_s = 100 * self._capacities[task.setting] / task.rate
        self._ready.append(make_point(task, 1.0 if holds else 0.5, ended_s=held_out_s))

    def next(self) -> Point:
        return self._ready.pop(0)


def stopped(point: Point, *, at_least: float, at_most: float) -> Point:
    """The same, ended early."""
    return replace(
        point, complete=False, attained=dict.fromkeys(point.attained, (at_least, at_most))
    )
