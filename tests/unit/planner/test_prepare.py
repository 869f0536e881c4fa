import sys
from collections.abc import Iterator

from services.bench.planner_world import NOW_S, World
from services.planner.admission.rounds import decide_round
from services.planner.server.prepare import prepare

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
