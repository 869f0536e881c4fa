from dataclasses import replace

import pytest

from services.evaluation.attainment import Bounds
from services.evaluation.measure import measure_point
from services.evaluation.points import Task
from shared.simulation.judge import Rule

TASK = Task(
    scenario="Coder",
    hardware="opt-7b-a100-40gb",
    system="vllm-paper",
    setting="",
    replicas=1,
    engines=1,
    rate=1.0,
    programs=80,
    seed=5,
)


@pytest.mark.parametrize("rate", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("bars", [(0.9,), (0.9, 0.98)])
def test_a_run_that_ends_early_comes_out_on_the_same_side_of_every_bar(
    rate: float, rule: Rule, bars: tuple[float, ...], setting: str
) -> None:
    task = replace(TASK, rate=rate, rule=rule.value, bars=bars, setting=setting)
    whole = measure_point(replace(task, bars=()))
    assert whole.complete

    early = measure_point(task)

    for bar in bars:
        assert early.passes(rule, bar) is whole.passes(rule, bar)
    for each in Rule:
        low, high = early.attained[each]
        assert low <= whole.attained[each][0] <= high


@pytest.mark.parametrize("rate", [0.5, 1.5])
def test_judged_by_class_a_load_keeps_what_its_worst_class_keeps(rate: float, setting: str) -> None:
    task = replace(TASK, scenario="Mixed", rate=rate, rule="mean", setting=setting, bars=())

    whole = measure_point(replace(task, by_class=True))

    each = [one.attained["mean"] for one in whole.classes[1:]]
    assert len(each) > 1
    assert whole.attained["mean"][0] == whole.attained["mean"][1] == pytest.approx(min(each))
    together = measure_point(task).attained["mean"][0]
    assert min(each) < together
    early = measure_point(replace(task, by_class=True, bars=(0.9,)))
    assert early.passes("mean", 0.9) is whole.passes("mean", 0.9)


def test_the_same_task_gives_the_same_point(setting: str) -> None:
    task = replace(TASK, setting=setting)

    one, other = measure_point(task), measure_point(task)

    quiet = (0.0, 0.0, 0.0)
    assert repr(replace(one, cpu_s=0.0, decision_ms=quiet)) == repr(
        replace(other, cpu_s=0.0, decision_ms=quiet)
    )


def test_what_is_not_certain_is_not_said() -> None:
    bounds = Bounds(at_least=0.5, at_most=0.95)

    assert bounds.passes(0.4) is True
    assert bounds.passes(0.9) is None
    assert bounds.passes(0.96) is False
