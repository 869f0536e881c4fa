"""Compiles numeric functions with numba, cached on disk between starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite.binding import ffi
from numba.core import cgutils, types
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., object])

# vLLM on CPU reads `__dict__` of all objects in all modules, and llvmlite answers for this one with
# a foreign function: without this fix no engine core starts beside numba.
if not isinstance(vars(ffi.lib), dict):
    ffi.lib._fntab["__dict__"] = {}


def compiled(function: F) -> F:
    """Compiles a function of arrays and numbers at its first call with each set of types.

    Call it once with its real types at start-up, so that no request waits for the compiler.
    """
    return _compiled(function, inline=False)


def inlined(function: F) -> F:
    """`compiled`, with its machine code put in the place of each call from compiled code.

    For short functions in inner loops: a call counts the references to each array that it passes,
    which takes longer than a few sums.
    """
    return _compiled(function, inline=True)


def _compiled(function: F, *, inline: bool) -> F:
    dispatcher: Any = numba.njit(cache=True, nogil=True, forceinline=inline)(function)
    if cache := getattr(dispatcher, "_cache", None):
        # numba checks only the function's own file; its cache must also become stale when a
        # function that it calls has changed.
        stamps: dict[str, object] = {}
        _add_stamps(stamps, function)
        cache._cache_file._source_stamp = tuple(stamps.items())
    result: F = dispatcher
    return result


def is_kept(function: Callable[..., object]) -> bool:
    """Whether the machine code of a compiled function is cached on disk and current."""
    file = getattr(getattr(function, "_cache", None), "_cache_file", None)
    return file is not None and bool(file._load_index())


def _add_stamps(stamps: dict[str, object], function: Callable[..., object]) -> None:
    """Adds time and size of the function's file, and of all files with compiled functions it uses.

    It also adds the values of numeric globals, which the compiler takes as constants.
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
    """Turns a number into a pointer. numba calls this while it compiles."""
    del typing_context, address

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator] # the same
def words_at(address: int, count: int) -> Any:
    """An array over `count` 64-bit words at `address`, for compiled code, without any check."""
    return numba.carray(_pointer(address), (count,), dtype=np.uint64)
