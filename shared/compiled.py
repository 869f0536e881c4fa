"""Compilation of numeric functions, kept on disk between starts; nothing else knows numba."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

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
    dispatcher: Any = numba.njit(cache=True, nogil=True)(function)
    if cache := getattr(dispatcher, "_cache", None):
        # What numba kept it would take for current as long as the function's own file is the same,
        # even when those that it calls have changed.
        stamps: dict[str, object] = {}
        _add_stamps(stamps, function)
        cache._cache_file._source_stamp = tuple(stamps.items())
    result: F = dispatcher
    return result


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
