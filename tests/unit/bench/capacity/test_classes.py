import pytest

from services.bench.capacity.classes import SHAPES, Multiples, Targets, ZeroLoad
from services.bench.capacity.options import CapacityOptions
from services.bench.capacity.pace import first_rate, point_seconds
from services.bench.capacity.workload import Arrival, Load
from services.gateway.config import ClassTargets

ZERO_LOAD = ZeroLoad(ttft_s=((10, 0.1), (110, 0.3), (210, 0.5)), tpot_s=0.08)
TARGETS = Targets(
    zero_load=ZERO_LOAD,
    multiples=Multiples(tight_ttft=3.0, loose_ttft=10.0, tight_tpot=2.0, loose_tpot=5.0),
)


@pytest.mark.parametrize(
    ("prompt_tokens", "ttft_s"), [(10, 0.1), (60, 0.2), (110, 0.3), (310, 0.7), (1, 0.082)]
)
def test_ttft_alone_lies_on_lines_between_what_was_measured(
    prompt_tokens: int, ttft_s: float
) -> None:
    assert ZERO_LOAD.ttft_of(prompt_tokens) == pytest.approx(ttft_s)


def test_targets_are_multiples_of_the_idle_machine_by_class() -> None:
    assert TARGETS.ttft_s("summary", 110) == pytest.approx(0.9)
    assert TARGETS.ttft_s("code", 110) == pytest.approx(3.0)
    assert TARGETS.tpot_s("summary") == pytest.approx(0.4)
    assert TARGETS.tpot_s("code") == pytest.approx(0.16)


def test_the_gateway_reads_the_classes_as_they_are_written() -> None:
    for name, told in TARGETS.configuration().items():
        read = ClassTargets(**told).named(name)  # type: ignore[arg-type]  # as YAML would have it

        assert read.tpot_s == pytest.approx(TARGETS.tpot_s(name))
        assert read.on_refuse == "refuse"
    assert set(TARGETS.configuration()) == set(SHAPES)


def test_more_to_measure_in_the_same_budget_makes_every_point_shorter() -> None:
    one, two = (point_seconds(CapacityOptions(), loads) for loads in (1, 2))

    assert two < one
    assert point_seconds(CapacityOptions(point_s=7.0), 2) == 7.0


def test_the_first_rate_asks_for_less_than_all_of_an_engines_time() -> None:
    arrival = Arrival(at=0.0, class_name="chat", prompt_tokens=110, output_tokens=10)

    assert first_rate(Load(name="x", arrivals=[arrival]), ZERO_LOAD) == pytest.approx(1.5)
