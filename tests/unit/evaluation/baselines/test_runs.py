import pytest

from services.evaluation.settings import Setting, TuningCase
from services.evaluation.systems import OURS, SYSTEMS
from shared.engines import Role
from shared.simulation.engine import SimEngine
from shared.simulation.judge import finished
from shared.simulation.record import Conditions, Outage, Record
from shared.simulation.request_metrics import EVICTED, OUTPUT, TOKENS
from shared.simulation.run import Run
from tests.unit.shared.simulation.fleet import TABLE, drafting, hardware, random_load

BASELINES = [name for name in SYSTEMS if name != OURS]
LOAD = random_load(seed=3, programs=60)
# Hardly more KV than the longest request takes, and three times the requests that it bears
LONGEST_TOKENS = max(one.prompt_tokens + one.output_tokens for p in LOAD for one in p.calls)
TIGHT = drafting(hardware(step_s=0.03, kv_blocks=LONGEST_TOKENS // 16 + 3, max_running_requests=16))


def first_and_last(name: str) -> list[Setting]:
    settings = list(SYSTEMS[name].settings(TuningCase(hardware=TIGHT, replicas=2, load=LOAD)))
    return [settings[0], settings[-1]]


def run(
    name: str, setting: Setting, conditions: Conditions | None = None
) -> tuple[Record, list[SimEngine]]:
    engines = [
        SimEngine(f"{role.value}{n}", role, TIGHT, TABLE, seed=1)
        for n, role in enumerate(setting.roles)
    ]
    system = SYSTEMS[name].build(setting, engines, LOAD)
    return Run(LOAD, system, engines, conditions).record(), engines


@pytest.mark.parametrize("name", BASELINES)
def test_each_request_gets_an_answer_from_engines_with_little_kv(name: str) -> None:
    for setting in first_and_last(name):
        record, engines = run(name, setting)

        assert len(record.requests) == sum(len(program.calls) for program in LOAD)
        assert finished(record.metrics).all(), setting.label
        assert record.metrics[:, EVICTED].sum() > 0
        assert (record.metrics[:, TOKENS] == record.metrics[:, OUTPUT]).all()
        assert all(engine.free_blocks == TIGHT.kv_blocks for engine in engines)


@pytest.mark.parametrize("name", BASELINES)
def test_each_request_gets_an_answer_though_an_engine_dies(name: str) -> None:
    setting = first_and_last(name)[-1]
    outages = (Outage(engine=f"{setting.roles[-1].value}1", from_s=1.0, until_s=4.0),)

    record, _ = run(name, setting, Conditions(outages=outages))

    assert finished(record.metrics).all()


@pytest.mark.parametrize("name", BASELINES)
def test_the_same_run_has_the_same_record(name: str) -> None:
    setting = first_and_last(name)[-1]

    once, again = run(name, setting)[0], run(name, setting)[0]

    assert once.ended_s == again.ended_s
    assert (once.metrics[:, TOKENS] == again.metrics[:, TOKENS]).all()


def test_distserve_sends_every_prompt_to_a_prefill_engine() -> None:
    record, engines = run("distserve", Setting(prefill=1, decode=1, budget_tokens=512))

    assert all(route.prefill == "prefill1" for route in record.routes.values())
    assert [engine.role for engine in engines] == [Role.DECODE, Role.PREFILL]


def test_dynamo_sends_long_prompts_away_and_keeps_short_ones() -> None:
    setting = Setting(prefill=1, decode=1, budget_tokens=512, threshold_tokens=128)

    record, _ = run("dynamo", setting)

    ways = {route.prefill for route in record.routes.values()}
    assert ways == {None, "prefill1"}
