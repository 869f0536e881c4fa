"""Calls that follow each other: prefixes that are found again, and calls that never come."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from shared.batch_time.table import FloatArray
from shared.scheduling.rows import COMPUTED, DEADLINE, GENERATED, TPOT
from shared.scheduling.shares import Tokens
from shared.simulation.engine import SimEngine
from shared.simulation.judge import Cause, causes
from shared.simulation.record import Conditions
from shared.simulation.request_metrics import (
    ADMISSION,
    ADMITTED,
    ARRIVES,
    CHANGED,
    EVICTED,
    FIRST,
    LAST,
    NEVER_CAME,
    REFUSED,
    TOKENS,
    UNDECIDED,
    RequestMetrics,
)
from shared.simulation.run import Run
from shared.simulation.system import Refusal, Route, SimRequest
from shared.workloads.calls import Call, Load, Program, StageLoad
from tests.unit.shared.simulation.fleet import AT_ONCE, InTurns, call, fleet, hardware, program


def run(load: Load, **changes: int) -> tuple[list[SimEngine], Run]:
    engines = fleet(hardware(**changes))
    return engines, Run(load, InTurns(), engines, AT_ONCE)


def chat(name: str, arrives_s: float, rounds: int = 3) -> Load:
    calls = [
        call(prompt=100 * (number + 1), output=10, prefix_tokens=100 * number, after_s=1.0)
        for number in range(rounds)
    ]
    return (program(name, arrives_s, *calls),)


def test_a_call_comes_so_long_after_the_one_before_it_has_ended() -> None:
    _, simulation = run(chat("a", 0.0))

    metrics = simulation.record().metrics

    assert (metrics[1:, ARRIVES] - metrics[:-1, LAST]).tolist() == [1.0, 1.0]


def test_a_call_finds_whole_blocks_of_what_its_program_left_and_nothing_of_others() -> None:
    engines, simulation = run(chat("a", 0.0) + chat("b", 0.2))

    simulation.record()

    blocks = [100 // 16, 200 // 16]  # of 100 and 200 tokens that each second and third call knows
    assert engines[0].found_tokens == 2 * sum(16 * count for count in blocks)


def test_nothing_is_found_before_a_request_has_left_something() -> None:
    engines, simulation = run((program("a", 0.0, call(prompt=100, prefix_tokens=90)),))

    simulation.record()

    assert engines[0].found_tokens == 0


def test_what_is_needed_is_not_kept() -> None:
    """Others took the room in the meantime: 20 blocks hold 320 tokens."""
    between = program("b", 0.5, call(prompt=290, output=20))
    engines, simulation = run((*chat("a", 0.0, rounds=2), between), kv_blocks=20)

    simulation.record()

    assert engines[0].found_tokens == 0


def test_programs_find_what_the_one_that_they_begin_like_has_left() -> None:
    first = program("a", 0.0, call(prompt=100))
    later = [
        program(f"b{n}", 1.0 + n, call(prompt=120, prefix_tokens=64, prefix_group="a"))
        for n in range(3)
    ]
    engines, simulation = run((first, *later))

    simulation.record()

    assert engines[0].found_tokens == 3 * 64


def alike(name: str, arrives_s: float, output: int = 10) -> Program:
    begins = {"prefix_tokens": 64, "prefix_group": "system"}
    return program(name, arrives_s, call(prompt=100, output=output, **begins))


def test_a_prefix_is_found_as_soon_as_it_is_computed_while_its_request_still_runs() -> None:
    engines, simulation = run((alike("a", 0.0, output=400), alike("b", 0.5)))

    metrics = simulation.record().metrics

    assert metrics[0, LAST] > metrics[1, LAST]
    assert engines[0].found_tokens == 64


def test_a_waiting_prompt_finds_what_was_computed_after_it_had_come() -> None:
    load = (alike("a", 0.0), alike("b", 0.0))
    engines, simulation = run(load, max_step_tokens=100)

    simulation.record()

    assert engines[0].found_tokens == 64


def test_a_prefix_is_not_found_once_its_request_is_evicted() -> None:
    """Two requests fill 16 blocks as they decode, so the later one is evicted."""
    engines = fleet(hardware(kv_blocks=16))
    found: list[tuple[bool, int]] = []

    def watch(_: object, metrics: RequestMetrics, __: float) -> bool:
        lost = bool(metrics[-1, EVICTED]) and engines[0].rows[-1, COMPUTED] == 0
        found.append((lost, engines[0].cache.tokens("system")))
        return lost

    load = (program("a", 0.0, call(prompt=100, output=150)), alike("b", 0.001, output=60))
    Run(load, InTurns(), engines, AT_ONCE, watch).record()

    assert (False, 64) in found
    assert found[-1] == (True, 0)


def test_stages_have_times_of_their_own() -> None:
    stages = tuple(StageLoad(name=name, output_tokens=4, tpot_s=0.1) for name in ("one", "two"))
    two = Call(class_name="x", prompt_tokens=10, stages=stages, max_output_tokens=8, ttft_s=1.0)
    _, simulation = run((program("a", 0.0, two),))

    (request,) = simulation.record().metrics

    assert request[TOKENS] == 8
    assert round(100 * (request[CHANGED] - request[FIRST])) == 3
    assert round(100 * (request[LAST] - request[CHANGED])) == 4


class Watched(InTurns):
    """Notes by how much each request is ahead of its pace as a step begins."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead: list[tuple[float, float, float]] = []

    def form(self, engine: SimEngine, tokens: Tokens, counts: FloatArray, now: float) -> float:
        for row in engine.rows:
            self.ahead.append((row[GENERATED], row[TPOT], row[DEADLINE] - now))
        return super().form(engine, tokens, counts, now)


def test_a_stage_begins_anew_however_far_ahead_the_one_before_was() -> None:
    stages = tuple(
        StageLoad(name=name, output_tokens=20, tpot_s=pace_s)
        for name, pace_s in (("one", 0.5), ("two", 0.25))
    )
    two = Call(class_name="x", prompt_tokens=10, stages=stages, max_output_tokens=40, ttft_s=1.0)
    system = Watched()

    Run((program("a", 0.0, two),), system, fleet(hardware())).record()

    by_tokens = {tokens: (pace_s, ahead_s) for tokens, pace_s, ahead_s in system.ahead}
    (before_s, far_ahead_s), (after_s, ahead_s) = by_tokens[19], by_tokens[20]
    assert (before_s, after_s) == (0.5, 0.25)
    assert far_ahead_s == pytest.approx(19 * 0.5, rel=0.05)
    assert ahead_s == pytest.approx(0.25, rel=0.05)


class RefusesSecondCalls(InTurns):
    def place(self, waiting: Sequence[SimRequest], now: float) -> list[Route | Refusal | None]:
        routes = super().place(waiting, now)
        return [
            Refusal() if request.call_number == 1 else route
            for request, route in zip(waiting, routes, strict=True)
        ]


def test_what_would_have_followed_a_refused_call_is_missed_like_it() -> None:
    record = Run(chat("a", 0.0, rounds=4), RefusesSecondCalls(), fleet(hardware())).record()

    assert record.metrics[1:, ADMISSION].tolist() == [REFUSED, NEVER_CAME, NEVER_CAME]
    assert causes(record.metrics) == {Cause.REFUSED: 1, Cause.NEVER_CAME: 2}


class RefusesUntil(InTurns):
    """Names a wait of 2 s, or none."""

    def __init__(self, until_s: float, named_s: float | None = 2.0) -> None:
        super().__init__()
        self.until_s, self.named_s = until_s, named_s

    def place(self, waiting: Sequence[SimRequest], now: float) -> list[Route | Refusal | None]:
        if now < self.until_s:
            return [Refusal(retry_after_s=self.named_s) for _ in waiting]
        return list(super().place(waiting, now))


@pytest.mark.parametrize(("retry_s", "again_s"), [(0.0, 2.0), (0.5, 0.5)])
def test_a_refused_request_comes_again_after_the_time_named_or_a_fixed_one(
    retry_s: float, again_s: float
) -> None:
    conditions = replace(AT_ONCE, retry_s=retry_s)

    record = Run(chat("a", 0.0), RefusesUntil(0.1), fleet(hardware()), conditions).record()

    (retry,) = record.retries
    assert (retry.index, retry.refused_s, retry.again_s) == (0, 0.0, again_s)
    assert record.metrics[0, ARRIVES] == again_s
    assert record.metrics[:, ADMISSION].tolist() == [ADMITTED] * 3


def test_a_request_that_is_refused_again_does_not_come_a_third_time() -> None:
    conditions = replace(AT_ONCE, retry_s=0.0)

    record = Run(chat("a", 0.0), RefusesUntil(99.0), fleet(hardware()), conditions).record()

    assert record.metrics[:, ADMISSION].tolist() == [REFUSED, NEVER_CAME, NEVER_CAME]
    assert len(record.retries) == 1


@pytest.mark.parametrize(("retry_s", "named_s"), [(None, 2.0), (0.0, None)])
def test_without_a_time_to_wait_or_clients_that_do_none_comes_again(
    retry_s: float | None, named_s: float | None
) -> None:
    conditions = replace(AT_ONCE, retry_s=retry_s)

    record = Run(chat("a", 0.0), RefusesUntil(0.1, named_s), fleet(hardware()), conditions).record()

    assert record.retries == ()
    assert record.metrics[0, ADMISSION] == REFUSED


class HoldsAll(InTurns):
    def _route(self, _: list[str]) -> None:
        return None


def test_a_request_that_waits_at_the_end_and_those_after_it_are_missed() -> None:
    conditions = Conditions(drain_s=1.0)

    record = Run(chat("a", 0.0, rounds=2), HoldsAll(), fleet(hardware()), conditions).record()

    assert record.metrics[:, ADMISSION].tolist() == [UNDECIDED, NEVER_CAME]
    assert causes(record.metrics) == {Cause.HELD: 1, Cause.NEVER_CAME: 1}
    assert record.ended_s <= 1.0


def test_a_request_may_end_exactly_at_its_most_tokens() -> None:
    engines, simulation = run((program("a", 0.0, call(output=7, max_output_tokens=7)),))

    record = simulation.record()

    assert record.metrics[0, TOKENS] == 7
    assert engines[0].free_blocks == engines[0].hardware.kv_blocks
