"""Compilation of numeric functions, kept on disk between starts; nothing else knows numba."""

from collections.abc import Callable
from typing import TypeVar

import numba
from llvmlite.binding import ffi

F = TypeVar("F", bound=Callable[..., object])

# vLLM on CPU looks into the attributes of whatever any module holds, and llvmlite answers the
# question for this one with a foreign function: then no engine core starts beside numba.
if not isinstance(vars(ffi.lib), dict):
    ffi.lib._fntab["__dict__"] = {}


def compiled(function: F) -> F:
    """Machine code for arrays and numbers, compiled at the first call with each set of types.

    A function must be called once with its real types before it is in anybody's way.
    """
    result: F = numba.njit(cache=True, nogil=True)(function)
    return result
