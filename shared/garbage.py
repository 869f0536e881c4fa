"""Has Python's cyclic garbage collector look seldom, and not at what stays."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# New container objects between two collections of the youngest generation; Python's own is 700.
# The import of vLLM makes 700,000 that stay; a streamed request makes thousands, nearly all of
# which end without the collector.
_YOUNG_OBJECTS: Final = 20_000


def collect_seldom() -> None:
    """Collects garbage less often, in this process and in its later forks."""
    gc.set_threshold(_YOUNG_OBJECTS)


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Leaves all objects that exist now out of collections, in this process and in its forks.

    Forks go on sharing their memory, which a collection would write to.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()  # so that extension modules find their objects at the end
