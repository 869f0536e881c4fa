"""Bounded stores of the most recent entries."""

from collections import OrderedDict
from typing import TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")


def remember(store: OrderedDict[_K, _V], key: _K, value: _V, limit: int) -> None:
    """Stores `value` as the newest of at most `limit` entries, and drops the oldest."""
    store[key] = value
    store.move_to_end(key)
    while len(store) > limit:
        store.popitem(last=False)
