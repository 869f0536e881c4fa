"""What holds for all tests."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A busy machine is no failure of the code; pytest's own limit still ends a test that hangs.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

_USE_COMPILED_CODE = (
    "planner",
    "evaluation",
    "integration",
    "simulation",
    "scheduling",
    "kv_transfer",
)


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

    prepare()
    warm_up()
    warm_up_kv()


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
