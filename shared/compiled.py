"""Compilation of numeric functions, kept on disk between starts; nothing else knows numba."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numba

from shared.kept import cache_folder

_WHERE_COMPILED = ("shared/batch_time", "shared/scheduling", "services/planner")
_KEPT_VERSIONS = 4

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Machine code for arrays and numbers, compiled at the first call with each set of types.

    A function must be called once with its real types before it is in anybody's way.
    """
    result: F = numba.njit(cache=True, nogil=True)(function)
    return result


def _fingerprint() -> str:
    """New with every change of what is compiled: numba looks at a function's own file, not at those
    of what it calls.
    """
    root, digest = Path(__file__).parent.parent, hashlib.sha256()
    for folder in _WHERE_COMPILED:
        for source in sorted((root / folder).glob("*.py")):
            code = source.read_bytes()
            if b"@compiled" in code:
                digest.update(code)
    return digest.hexdigest()[:16]


def _own_folder() -> Path:
    """Makes room for it: a few of those of other versions stay."""
    kept = cache_folder() / "compiled"
    own = kept / _fingerprint()
    if kept.is_dir() and not own.is_dir():
        others = sorted(kept.iterdir(), key=lambda one: one.stat().st_mtime)
        for old in others[:-_KEPT_VERSIONS]:
            shutil.rmtree(old, ignore_errors=True)
    return own


numba.config.CACHE_DIR = str(_own_folder())
