"""Describes tuned numbers.

Each package that decides has a `tuning` module with all of its numbers, as
`NAME: Annotated[float, Tuned(...)] = value`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, get_args, get_origin, get_type_hints


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """The description of a tuned number.

    Attributes:
        unit: What the number counts, or what it is a share of.
        low: The least value at which its rule still works.
        high: The greatest such value.
        why: The reason for the value, in a sentence or two.
        page: The page below docs/ with the evidence, if there is one.
    """

    unit: str
    low: float
    high: float
    why: str
    page: str = ""


@dataclass(frozen=True, slots=True)
class TunedNumber:
    """One number of one module."""

    module: str
    name: str
    value: float
    about: Tuned


def tuned_numbers(module: ModuleType) -> Iterator[TunedNumber]:
    """All numbers of the module that carry a `Tuned`, in the order of the file."""
    for name, hint in get_type_hints(module, include_extras=True).items():
        if get_origin(hint) is not Annotated:
            continue
        for about in get_args(hint)[1:]:
            if isinstance(about, Tuned):
                yield TunedNumber(module.__name__, name, float(getattr(module, name)), about)
