"""Compilation of numeric functions, kept on disk between starts; nothing else knows numba."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite.binding import ffi
from numba.core import cgutils, types
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., object])

# vLLM on CPU looks into the attributes of whatever any module holds, and llvmlite answers the
# question for this one with a foreign function: then no engine core starts beside numba.
if not isinstance(vars(ffi.lib), dict):
    ffi.lib._fntab["__dict__"] = {}


def compiled(function: F) -> F:
    """Machine code for arrays and numbers, compiled at the first call with each set of types.

    A function must be called once with its real types before it is in anybody's way.
    """
    dispatcher: Any = numba.njit(cache=True, nogil=True)(function)
    if cache := getattr(dispatcher, "_cache", None):
        # What numba kept it would take for current as long as the function's own file is the same,
        # even when those that it calls have changed.
        stamps: dict[str, object] = {}
        _add_stamps(stamps, function)
        cache._cache_file._source_stamp = tuple(stamps.items())
    result: F = dispatcher
    return result


def is_kept(function: Callable[..., object]) -> bool:
    """Whether the machine code of a compiled function lies on disk and is not out of date."""
    file = getattr(getattr(function, "_cache", None), "_cache_file", None)
    return file is not None and bool(file._load_index())


def _add_stamps(stamps: dict[str, object], function: Callable[..., object]) -> None:
    """Of the function's file, of all whose compiled functions are known in there, and so on; with
    the numbers that are imported from elsewhere.
    """
    path = Path(function.__code__.co_filename)
    if str(path) in stamps:
        return
    status = path.stat()
    stamps[str(path)] = status.st_mtime_ns, status.st_size
    for name, value in function.__globals__.items():
        if isinstance(value, (int, float)):
            stamps[f"{path} {name}"] = value
        elif hasattr(value, "py_func"):
            _add_stamps(stamps, value.py_func)


@intrinsic  # type: ignore[untyped-decorator] # numba has no types
def _pointer(typing_context: Any, address: Any) -> Any:
    """A number as a pointer. numba calls this while it compiles."""
    del typing_context, address

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator] # the same
def words_at(address: int, count: int) -> Any:
    """64-bit words in memory, for compiled code; the caller knows that they are there."""
    return numba.carray(_pointer(address), (count,), dtype=np.uint64)
