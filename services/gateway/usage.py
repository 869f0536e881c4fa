"""Counts what tenants have used of their limits, in memory that the workers of a gateway share."""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, TypeAlias

# One tenant's float64 numbers: a token bucket of one minute's size for requests and one for tokens
# (PER_MINUTE 0: never limited), then the requests that each worker serves.
Row: TypeAlias = "memoryview[float]"
REQUESTS, TOKENS, IN_FLIGHT = 0, 3, 6  # where each begins
PER_MINUTE, LEFT, AT_S = range(3)  # of a bucket
_NAME_BYTES, _NUMBER_BYTES = 64, 8
_FREE: Final = bytes(_NAME_BYTES)


class UsageBook:
    """The use of all tenants of one gateway. A row belongs to a tenant until `keep_only`."""

    def __init__(
        self,
        memory: memoryview,
        workers: int,
        locked: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`memory` has the bytes of `size_bytes`; `locked` keeps other workers out of it."""
        self._width, self._worker, self._locked = IN_FLIGHT + workers, 0, locked
        self._rows = len(memory) // size_bytes(1, workers)
        names = self._rows * _NAME_BYTES
        self._names, self._numbers = memory[:names], memory[names:].cast("d")
        self._places: dict[str, int] = {}

    @classmethod
    def of_one_process(cls, tenants: int = 1) -> "UsageBook":
        """A book with room for so many tenants."""
        return cls(memoryview(bytearray(size_bytes(tenants, 1))), 1)

    def begin(self, worker: int) -> None:
        """Counts as this worker from now on. What its predecessor served has ended with it."""
        self._worker = worker
        with self._locked():
            for place in range(self._rows):
                self._numbers[place * self._width + IN_FLIGHT + worker] = 0.0

    @contextmanager
    def row(self, name: str) -> Iterator[Row]:
        """A tenant's row, kept from other workers. Raises RuntimeError where no row is free."""
        with self._locked():
            yield self._row(self._place(name))

    def count_in_flight(self, row: Row, change: int) -> None:
        row[IN_FLIGHT + self._worker] += change

    def keep_only(self, names: Collection[str]) -> None:
        """Frees the rows of other tenants that have no request in flight."""
        kept = {_FREE, *map(_padded, names)}
        with self._locked():
            for place in range(self._rows):
                row = self._row(place)
                if self._name(place) not in kept and not in_flight(row):
                    self._set_name(place, _FREE)
                    for column in range(self._width):
                        row[column] = 0.0

    def _row(self, place: int) -> Row:
        return self._numbers[place * self._width : (place + 1) * self._width]

    def _name(self, place: int) -> bytes:
        return bytes(self._names[place * _NAME_BYTES : (place + 1) * _NAME_BYTES])

    def _set_name(self, place: int, name: bytes) -> None:
        self._names[place * _NAME_BYTES : (place + 1) * _NAME_BYTES] = name

    def _place(self, name: str) -> int:
        """The index of the tenant's row, which another worker may have freed and given away."""
        place, padded = self._places.get(name), _padded(name)
        if place is not None and self._name(place) == padded:
            return place
        place = self._find(padded)
        if place is None:
            place = self._find(_FREE)
        if place is None:
            raise RuntimeError(f"no room for the usage of more than {self._rows} tenants")
        self._places[name] = place
        self._set_name(place, padded)
        return place

    def _find(self, padded: bytes) -> int | None:
        names = bytes(self._names)
        at = names.find(padded)
        while at % _NAME_BYTES and at >= 0:
            at = names.find(padded, at + _NAME_BYTES - at % _NAME_BYTES)
        return None if at < 0 else at // _NAME_BYTES


def in_flight(row: Row) -> int:
    """The requests that all workers serve."""
    return round(sum(row[IN_FLIGHT:]))


def _padded(name: str) -> bytes:
    return name.encode().ljust(_NAME_BYTES, b"\0")


def size_bytes(tenants: int, workers: int) -> int:
    """Of a book with room for so many tenants."""
    return tenants * (_NAME_BYTES + (IN_FLIGHT + workers) * _NUMBER_BYTES)
