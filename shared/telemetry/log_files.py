"""Log files: readable by their owner alone, and bounded in size."""

import os
import shutil
from pathlib import Path
from typing import BinaryIO


def append_to(path: Path) -> BinaryIO:
    """Opens a file for appending; only its owner can read a new one, as it may contain ids."""
    return open(path, "ab", opener=_private)


def cut_back(path: Path, limit_bytes: int) -> None:
    """Copies a file of at least that size to PATH.1, replacing the one before, and empties it.

    Processes may go on appending to it; what they write meanwhile may be lost.
    """
    if path.is_file() and path.stat().st_size >= limit_bytes:
        aside = path.with_name(path.name + ".1")
        with append_to(aside) as copy, path.open("rb") as own:
            copy.truncate(0)
            shutil.copyfileobj(own, copy)
        os.truncate(path, 0)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
