from services.bench.capacity.classes import mix
from services.bench.capacity.judge import Ended, Judged, Seen
from services.bench.capacity.points import Point
from services.bench.capacity.result import CapacityResult
from services.bench.capacity.trial import Trial
from services.bench.capacity.workload import Load, Offered, poisson
from services.bench.machine import Machine

LOAD = poisson("mixed", mix("mixed"), 1, 10)
TRUE_RPS = {"a-64": 1.0, "a-512": 2.0, "b": 3.0}
MACHINE = Machine(cores=2, cpu="any", loads=(0.0, 0.0, 0.0))


class Bench:
    """Systems that attain everything up to their true capacity and nothing above it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.result = CapacityResult(machine=MACHINE, needed=0.9)
        self.trial = Trial(take=self.take, result=self.result, first_rps=lambda *_: 1.4)

    async def take(self, system: str, load: Load, rate_rps: float) -> Point:
        self.asked.append(system)
        offered = Offered(at_s=0.0, class_name="chat", prompt_tokens=1, output_tokens=1)
        ended = Ended.DONE if rate_rps <= TRUE_RPS[system] else Ended.FAILED
        seen = Seen(offered=offered, ended=ended, token_times_s=(0.1,))
        judged = Judged(seen=seen, ttft_target_s=1.0, tpot_target_s=1.0)
        return Point(load=load.name, system=system, rate_rps=rate_rps, seconds=1.0, judged=[judged])


async def test_systems_take_turns_and_the_order_turns_around() -> None:
    bench = Bench()
    await bench.trial.search(LOAD, {"a": ("a-512",), "b": ("b",)}, 3)

    assert bench.asked == ["a-512", "b", "b", "a-512", "a-512", "b"]


async def test_each_system_comes_to_its_own_capacity_by_its_best_variant() -> None:
    bench = Bench()
    found = await bench.trial.search(LOAD, {"a": ("a-64", "a-512"), "b": ("b",)}, 6)

    assert found["a"].variants == ("a-512",)
    assert bench.asked.count("a-64") == 1
    shown = [bench.result.capacity_json(one) for one in bench.result.searched]
    assert [one["system"] for one in shown] == ["a", "b"]
    for one, true_rps in zip(shown, (2.0, 3.0), strict=True):
        assert one["capacity_rps"] <= true_rps < one["next_rate_tried_rps"]
        assert one["next_rate_tried_rps"] / one["capacity_rps"] < 1.11
