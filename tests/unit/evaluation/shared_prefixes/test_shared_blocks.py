"""Requests with a common prefix share its KV blocks, in the simulator as in vLLM."""

from services.evaluation.planned import Planned, Settings
from shared.scheduling.rows import RESIDENT
from shared.simulation.engine import SimEngine
from shared.simulation.record import Conditions
from shared.simulation.request_metrics import ADMISSION, ADMITTED
from shared.simulation.run import Run
from shared.workloads.calls import Load
from tests.unit.shared.simulation.fleet import call, fleet, hardware, program

PREFIX_TOKENS = 1600


def alike(count: int, *, common: bool) -> Load:
    """Requests of 1,632 tokens. Two come first, the others together while these run."""
    return tuple(
        program(
            f"p{number}",
            0.5 * min(number, 2),
            call(
                PREFIX_TOKENS + 32,
                40 if number > 1 else 400,
                ttft_s=2.0,
                prefix_tokens=PREFIX_TOKENS if common else 0,
                prefix_group="system" if common else "",
            ),
        )
        for number in range(count)
    )


def most_running(engines: list[SimEngine], load: Load) -> tuple[int, int]:
    """The most requests that ran at once, and how many were promised."""
    most = 0

    def watch(*_: object) -> bool:
        nonlocal most
        most = max(most, *(int(engine.rows[:, RESIDENT].sum()) for engine in engines))
        return False

    record = Run(load, Planned(Settings(), engines), engines, Conditions(), watch).record()
    return most, int((record.metrics[:, ADMISSION] == ADMITTED).sum())


def test_an_engine_with_room_for_one_prefix_promises_all_that_begin_with_it_at_once() -> None:
    """A hundred blocks of prefix, and at most 27 for what each request has alone."""
    most, promised = most_running(fleet(hardware(kv_blocks=300), 1), alike(16, common=True))
    alone, _ = most_running(fleet(hardware(kv_blocks=300), 1), alike(16, common=False))

    assert (most, promised) == (16, 16)
    assert alone == 2
