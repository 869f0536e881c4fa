"""The planner keeps a prefix where it is cached, and spreads it where that is not enough."""

import pytest

from services.evaluation.planned import Planned, Settings
from shared.simulation.engine import SimEngine
from shared.simulation.judge import Rule, kept
from shared.simulation.record import Record
from shared.simulation.run import Run
from shared.workloads.calls import Load
from tests.unit.shared.simulation.fleet import call, fleet, hardware, program

PREFIX_TOKENS = 1536  # three steps of an engine; a request that finds them takes a part of one
ENGINES = 4
TTFT_S = 0.4
KV_BLOCKS = 450  # of an engine: for four prefixes, or two and the requests of a moment


def asked(rate: float, seconds: float, prefixes: int = 1) -> Load:
    """One request of each prefix at first, and from 1 s on so many per second of all in turn."""
    at_s = [0.0] * prefixes + [1.0 + number / rate for number in range(round(rate * seconds))]
    return tuple(
        program(
            f"p{number}",
            arrives_s,
            call(
                PREFIX_TOKENS + 64,
                20,
                ttft_s=TTFT_S,
                prefix_tokens=PREFIX_TOKENS,
                prefix_group=f"system-{number % prefixes}",
            ),
        )
        for number, arrives_s in enumerate(at_s)
    )


def played(load: Load, kv_blocks: int = 10_000) -> tuple[Record, list[SimEngine]]:
    engines = fleet(hardware(max_running_requests=8, kv_blocks=kv_blocks), ENGINES)
    return Run(load, Planned(Settings(), engines), engines).record(), engines


def holders(engines: list[SimEngine], prefix: str = "system-0") -> int:
    return sum(engine.cache.tokens(prefix) > 0 for engine in engines)


def misses(load: Load, engines: list[SimEngine]) -> int:
    """How often a prefix was computed."""
    return len(load) - round(sum(engine.found_tokens for engine in engines) / PREFIX_TOKENS)


@pytest.mark.parametrize("prefixes", [1, 3])
def test_a_prefix_that_one_engine_can_serve_is_computed_once(prefixes: int) -> None:
    load = asked(rate=12.0, seconds=2.0, prefixes=prefixes)

    record, engines = played(load)

    assert kept(record.metrics, Rule.ASKED).all()
    assert misses(load, engines) == prefixes


def test_where_one_engine_is_not_enough_the_prefix_spreads_and_all_are_in_time() -> None:
    load = asked(rate=60.0, seconds=1.5)

    record, engines = played(load)

    assert holders(engines) > 1
    assert kept(record.metrics, Rule.ASKED).all()


def test_prefixes_that_only_all_caches_together_can_hold_do_not_evict_each_other() -> None:
    load = asked(rate=12.0, seconds=2.0, prefixes=6)

    record, engines = played(load, kv_blocks=KV_BLOCKS)

    assert kept(record.metrics[6:], Rule.ASKED).all()
    assert misses(load, engines) == 6
