import gc
from collections.abc import Iterator

import pytest

from shared.entry import exit_status
from shared.garbage import frozen_heap


@pytest.fixture(autouse=True)
def _python_s_own_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_a_process_collects_seldom_from_before_its_main() -> None:
    assert exit_status(lambda _: gc.get_threshold()[0], [], program="test") == 20_000


def test_what_exists_before_is_in_no_collection_and_is_found_again_at_the_end() -> None:
    mine = [object()]
    with frozen_heap():
        assert not any(one is mine for one in gc.get_objects())
        later = [object()]
        assert any(one is later for one in gc.get_objects())
    assert any(one is mine for one in gc.get_objects())
