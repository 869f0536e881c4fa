"""Nothing is lost and nothing comes twice, whatever the load, the fleet and the room."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.scheduling.rows import AVAILABLE, COMPUTED, DRAFT, REMAINING, SHARED, TOTAL
from shared.simulation.engine import SimEngine
from shared.simulation.record import Conditions, Outage, Record
from shared.simulation.request_metrics import ADMISSION, ADMITTED, OUTPUT, TOKENS
from shared.simulation.run import Run
from shared.workloads.calls import requests
from tests.unit.shared.simulation.fleet import (
    NOISE,
    InTurns,
    drafting,
    fleet,
    hardware,
    random_load,
)

seeds = st.integers(0, 10**6)
rooms = st.sampled_from([60, 90, 150, 1000])  # blocks; the longest request needs 50
fleets = st.sampled_from([(1, 0), (2, 0), (1, 1), (2, 1), (2, 2)])
_OUTAGES = (
    Outage(engine="d0", from_s=0.2, until_s=0.4),
    Outage(engine="p0", from_s=0.3, until_s=0.5),
    Outage(engine="d1", from_s=0.6, until_s=0.7),
)


def run(
    seed: int, blocks: int, size: tuple[int, int], *, drafts: int = 0, lost: bool = False
) -> tuple[Record, InTurns, list[str]]:
    """A short load under pressure; the faults are what a watch saw at any time."""
    machine = hardware(noise=NOISE, kv_blocks=blocks, max_running_requests=8)
    engines = fleet(drafting(machine) if drafts else machine, *size, seed=seed)
    outages = tuple(one for one in _OUTAGES if one.engine in {e.name for e in engines})
    conditions = Conditions(outages=outages if lost else ())
    system, faults = InTurns(drafts=drafts), list[str]()

    def watch(_: object, __: object, now: float) -> bool:
        faults.extend(_faults(engines, now))
        return False

    load = random_load(seed, 25, sharing=0.4)
    record = Run(load, system, engines, conditions, watch).record()
    assert len(record.requests) == requests(load)
    return record, system, faults


def _faults(engines: Sequence[SimEngine], now: float) -> list[str]:
    found = []
    for engine in engines:
        rows, block = engine.rows, engine.hardware.block_size_tokens
        held = np.ceil(rows[:, COMPUTED] / block)
        own = held - np.minimum(rows[:, SHARED], rows[:, COMPUTED]) // block
        used = own.sum() + engine.shared_prefixes.blocks + engine.leased_blocks
        if engine.is_idle and used + engine.free_blocks != engine.hardware.kv_blocks:
            found.append(f"{engine.name} has blocks of no request at {now}")
        if not 0 <= engine.cache.blocks <= engine.free_blocks:
            found.append(f"{engine.name} caches where nothing is free at {now}")
        most = max(rows[:, COMPUTED].max(initial=0), block * engine.cache.blocks)
        cached = max(engine.cache.tokens(name) for name in ("short", "long"))
        if not engine.leased_blocks and cached > most:
            found.append(f"{engine.name} finds a prefix that nobody has at {now}")
        more = np.ceil((rows[:, TOTAL] + rows[:, DRAFT]) / block) - held
        runnable = (rows[:, REMAINING] > 0) & (rows[:, AVAILABLE] <= now)
        if engine.is_idle and engine.alive and (more[runnable] <= engine.free_blocks).any():
            found.append(f"{engine.name} stands still at {now}")
    return found


@settings(max_examples=40, deadline=None)
@given(seeds, rooms, fleets, st.sampled_from([0, 3]))
def test_all_get_their_tokens_once_and_blocks_and_work_are_conserved(
    seed: int, blocks: int, size: tuple[int, int], drafts: int
) -> None:
    record, system, faults = run(seed, blocks, size, drafts=drafts)

    metrics = record.metrics
    assert faults == []
    assert (metrics[:, TOKENS] == metrics[:, OUTPUT]).all()
    assert (metrics[:, ADMISSION] == ADMITTED).all()
    ended = [end.request.index for end in system.ends]
    assert sorted(ended) == list(range(len(metrics)))
    assert all(engine.leased_blocks == 0 and not len(engine.rows) for engine in record.engines)


@settings(max_examples=30, deadline=None)
@given(seeds, rooms, fleets)
def test_what_is_computed_is_prompts_and_outputs_and_what_was_dropped_less_what_was_found(
    seed: int, blocks: int, size: tuple[int, int]
) -> None:
    record, _, _ = run(seed, blocks, size)

    needed = sum(
        request.call.prompt_tokens + request.call.output_tokens - 1 for request in record.requests
    )
    computed, dropped, found = (
        sum(getattr(engine, name) for engine in record.engines)
        for name in ("computed_tokens", "dropped_tokens", "found_tokens")
    )
    assert computed == needed + dropped - found


@settings(max_examples=30, deadline=None)
@given(seeds, rooms, fleets)
def test_engines_that_die_lose_no_request_and_give_no_token_twice(
    seed: int, blocks: int, size: tuple[int, int]
) -> None:
    record, system, faults = run(seed, blocks, size, lost=True)

    metrics = record.metrics
    assert faults == []
    assert (metrics[:, TOKENS] == metrics[:, OUTPUT]).all()
    ended = [end.request.index for end in system.ends]
    assert sorted(ended) == list(range(len(metrics)))
    assert [end.tokens for end in system.ends] == [
        end.request.call.output_tokens for end in system.ends
    ]
    assert all(engine.leased_blocks == 0 for engine in record.engines)


@given(seeds, fleets)
@settings(max_examples=8, deadline=None)
def test_the_same_seed_gives_the_same_record_bit_for_bit(seed: int, size: tuple[int, int]) -> None:
    first, again = (run(seed, 90, size, drafts=3, lost=True)[0] for _ in range(2))

    assert first.metrics.tobytes() == again.metrics.tobytes()
    assert first.ended_s == again.ended_s
    assert first.routes == again.routes


def test_another_seed_of_the_engines_gives_other_times() -> None:
    load = random_load(1, 10)
    records = [
        Run(load, InTurns(), fleet(hardware(noise=NOISE), seed=seed)).record() for seed in (1, 2)
    ]

    assert records[0].metrics.tobytes() != records[1].metrics.tobytes()


def test_a_table_of_step_times_is_not_what_steps_last() -> None:
    record = Run(random_load(1, 10), InTurns(), fleet(hardware(step_s=0.02))).record()

    (engine,) = record.engines
    assert engine.busy_s == pytest.approx(0.02 * engine.steps)
