import logging
import sys
from collections.abc import Iterator

import pytest

from services.bench.planner_world import NOW_S, World
from services.planner import app
from services.planner.admission.rounds import decide_round
from services.planner.server.prepare import is_prepared, prepare
from shared.clock import MonotonicClock

DECIDES = ("services.planner", "shared.scheduling", "shared.batch_time")


def compiled() -> Iterator[tuple[str, int]]:
    """Every compiled function that decisions could call, with the number of its versions."""
    for module in list(sys.modules.values()):
        if module.__name__.startswith(DECIDES):
            for name, value in vars(module).items():
                if hasattr(value, "py_func"):
                    yield f"{module.__name__}.{name}", len(value.signatures)


def test_no_decision_compiles_anything_once_all_is_prepared() -> None:
    prepare()
    before = dict(compiled())
    world = World(running=16)
    for engines in (1, 3):
        state = world.state(engines)
        for round_number in range(3):
            decide_round(world.asked(12, round_number), state, NOW_S)

    assert dict(compiled()) == before
    assert sum(before.values()) > 0


@pytest.mark.parametrize("warm", [True, False])
def test_a_start_that_compiles_says_so_before_and_after(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, warm: bool
) -> None:
    monkeypatch.setattr(app, "is_prepared", lambda: warm)
    with (
        caplog.at_level(logging.INFO, logger=app.__name__),
        app._compiling_logged(MonotonicClock()),
    ):
        during = len(caplog.messages)

    assert (during, len(caplog.messages)) == ((0, 0) if warm else (1, 2))
    assert warm or "once per version" in caplog.messages[0]


def test_what_was_prepared_is_found_prepared() -> None:
    prepare()
    assert is_prepared()
