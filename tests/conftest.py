"""What holds for all tests."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from shared.garbage import collect_seldom
from tests.compiled import compile_all

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

# A busy machine is no failure of the code; pytest's own limit still ends a test that hangs.
settings.register_profile("patient", deadline=None, max_examples=50)
settings.register_profile("all cases", deadline=None, max_examples=500)
settings.load_profile("all cases" if os.environ.get("SLOS_TEST_ALL_CASES") else "patient")

collect_seldom()  # before test modules import vLLM

_INTEGRATION = Path("tests/integration")
_USE_COMPILED_CODE = (
    "planner",
    "evaluation",
    "integration",
    "simulation",
    "scheduling",
    "kv_transfer",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, so that at the end all workers have something to do."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    places = item.path.parts
    if "integration" in places:
        return 1 - len(list(item.iter_markers("engines")))
    return 2 if "evaluation" in places else 3


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compiles before a test's own limit runs."""
    places = {part for item in session.items for part in item.path.parts}
    if not session.config.option.collectonly and places.intersection(_USE_COMPILED_CODE):
        compile_all()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "LoadScopeScheduling":
    """A worker runs all tests of a file, or of a folder of `tests/integration` that share a node.

    They are given away in the order of the collection.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            file = PurePath(nodeid.partition("::")[0])
            return str(file.parent if file.parent.parent == _INTEGRATION else file)

    config.option.loadscopereorder = False
    return ByFile(config, log)


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Lets `caplog` see what our packages log, whatever ran in this process before.

    `set_up_logging` keeps their log from the root, and a package that vLLM imports sets the level
    of the root to ERROR.
    """
    loggers = [logging.getLogger(name) for name in ("services", "shared")]
    before = [(one.handlers[:], one.level, one.propagate) for one in loggers]
    for one in loggers:
        one.setLevel(logging.INFO)
        one.propagate = True
    yield
    for one, (handlers, level, propagate) in zip(loggers, before, strict=True):
        one.setLevel(level)
        one.handlers[:], one.propagate = handlers, propagate
