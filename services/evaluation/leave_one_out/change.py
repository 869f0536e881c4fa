"""A tuned number at another value, in a process of its own.

Modules read their numbers when they are imported. A change must therefore come before them, and
this module imports none that reads a number.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from shared.tuning import TunedNumber, tuned_numbers

TABLES: Final = ("services.planner.tuning", "shared.scheduling.tuning", "shared.batch_time.tuning")
FACTORS: Final = (0.5, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The number `name` of the table `module` has this value."""

    module: str
    name: str
    value: float

    def __str__(self) -> str:
        return f"{self.name} = {self.value:.4g}"


def numbers() -> list[TunedNumber]:
    """All tuned numbers, table by table."""
    return [one for table in TABLES for one in tuned_numbers(import_module(table))]


def changes_of(number: TunedNumber) -> Iterator[Change]:
    """Half and twice the number, as far as its range allows. Whole numbers stay whole."""
    table = import_module(number.module)
    whole = isinstance(getattr(table, number.name), int)
    for factor in FACTORS:
        value = min(number.about.high, max(number.about.low, factor * number.value))
        value = round(value) if whole else value
        if value != number.value:
            yield Change(module=number.module, name=number.name, value=value)


def begin(changes: Sequence[Change], kernels: str) -> None:
    """Puts changes into their tables. Call it first in a new process.

    Compiled code holds numbers as constants, so this process keeps its own in the folder `kernels`.
    Raises RuntimeError where a module has read a number that changes.
    """
    os.environ["NUMBA_CACHE_DIR"] = kernels
    for change in changes:
        table = import_module(change.module)
        old = getattr(table, change.name)
        for name, module in list(sys.modules.items()):
            if module is not table and vars(module).get(change.name) is old:
                raise RuntimeError(f"{name} has read {change.name} before it changed")
        setattr(table, change.name, type(old)(change.value))
