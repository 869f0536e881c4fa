"""A hot prefix on a full engine is pulled by others, in the simulator as in production."""

import pytest

from services.evaluation.planned import Planned, Settings
from shared.simulation.engine import SimEngine
from shared.simulation.judge import Rule, kept
from shared.simulation.record import Conditions, Outage, Record
from shared.simulation.request_metrics import LAST, OUTPUT, TOKENS
from shared.simulation.run import Run
from shared.workloads.calls import Load
from tests.unit.shared.simulation.fleet import call, fleet, hardware, program

PREFIX_TOKENS = 3072  # seven steps of an engine; a request that finds them takes a part of one
TTFT_S = 0.12  # less than computing them takes
PULLED = Settings(pulls_prefixes=True)
COMPUTED = Settings(pulls_prefixes=False)
FEW_BLOCKS = 420  # room for the prefix and thirty answers


def hot(rate: float, seconds: float) -> Load:
    """One request warms an engine; from 1 s on so many per second ask for its prefix."""
    at_s = [0.0, *(1.0 + number / rate for number in range(round(rate * seconds)))]
    return tuple(
        program(
            f"p{number}",
            arrives_s,
            call(
                PREFIX_TOKENS + 64,
                40,
                ttft_s=TTFT_S if number else 2.0,
                prefix_tokens=PREFIX_TOKENS,
                prefix_group="system",
            ),
        )
        for number, arrives_s in enumerate(at_s)
    )


def played(
    load: Load,
    settings: Settings,
    *outages: Outage,
    link_bytes_per_s: float = 1e9,
    kv_blocks: int = 10_000,
) -> tuple[Record, list[SimEngine]]:
    machine = hardware(link_bytes_per_s=link_bytes_per_s, kv_blocks=kv_blocks)
    engines = fleet(machine, 3)
    conditions = Conditions(outages=outages)
    return Run(load, Planned(settings, engines), engines, conditions).record(), engines


def computed_tokens(engines: list[SimEngine]) -> float:
    return sum(engine.computed_tokens for engine in engines)


def test_where_its_engine_is_full_a_hot_prefix_is_pulled_and_more_requests_are_in_time() -> None:
    load = hot(rate=200.0, seconds=2.0)

    pulled, there = played(load, PULLED, kv_blocks=FEW_BLOCKS)
    computed, here = played(load, COMPUTED, kv_blocks=FEW_BLOCKS)

    assert any(route.source for route in pulled.routes.values())
    assert kept(pulled.metrics, Rule.ASKED).mean() > kept(computed.metrics, Rule.ASKED).mean()
    assert computed_tokens(there) < computed_tokens(here)


def test_a_slow_link_moves_no_prefix() -> None:
    load = hot(rate=300.0, seconds=0.5)

    slow, _ = played(load, PULLED, link_bytes_per_s=1e5)
    never, _ = played(load, COMPUTED, link_bytes_per_s=1e5)

    assert not any(route.source for route in slow.routes.values())
    assert (slow.metrics[:, LAST] == never.metrics[:, LAST]).all()


@pytest.mark.parametrize("lost", ["d0", "d1", "d2"])
@pytest.mark.parametrize("from_s", [1.15, 1.25, 1.4])
def test_every_request_has_all_its_tokens_whichever_engine_dies(lost: str, from_s: float) -> None:
    load = hot(rate=300.0, seconds=0.5)

    record, engines = played(load, PULLED, Outage(engine=lost, from_s=from_s))

    assert (record.metrics[:, TOKENS] == record.metrics[:, OUTPUT]).all()
    assert [engine.leased_blocks for engine in engines] == [0, 0, 0]
