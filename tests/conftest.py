"""What holds for all tests."""

from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

# A busy machine is no failure of the code; pytest's own limit still ends a test that hangs.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

_PROCESSES = Path(__file__).parent / "integration"
_USE_COMPILED_CODE = (
    "planner",
    "evaluation",
    "integration",
    "simulation",
    "scheduling",
    "kv_transfer",
)


def pytest_itemcollected(item: pytest.Item) -> None:
    """With two workers, one runs the tests that start processes, the other those that do not.

    Nodes of several tests at once would starve each other. The tests of any other file stay
    together, since they share what the file's fixtures made.
    """
    group = "processes" if item.path.is_relative_to(_PROCESSES) else str(item.path)
    item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compiles what tests use, once and on disk, before a test's own limit runs.

    It takes a minute in a fresh clone and a moment later; processes that tests start find it there.
    """
    places = {part for item in session.items for part in item.path.parts}
    if session.config.option.collectonly or not places.intersection(_USE_COMPILED_CODE):
        return
    from services.planner.prepare import prepare
    from services.planner.scaling.warm_up import warm_up
    from shared.kv_transfer.layout import warm_up as warm_up_kv

    kept = session.config.rootpath / ".slos"
    kept.mkdir(exist_ok=True)
    with FileLock(kept / "compile.lock"):  # the other worker finds it compiled
        prepare()
        warm_up()
        warm_up_kv()
