"""Files that log lines are appended to: readable by their owner alone, and bounded in size."""

import os
import shutil
from pathlib import Path
from typing import BinaryIO


def append_to(path: Path) -> BinaryIO:
    """Opens a file for appending; a new one can be read by its owner alone: ids may be in it."""
    return open(path, "ab", opener=_private)


def cut_back(path: Path, limit_bytes: int) -> None:
    """Sets a file of that size aside as PATH.1, in place of the one before, and empties it.

    Processes that append to it go on doing so; what they write meanwhile may be lost.
    """
    if path.is_file() and path.stat().st_size >= limit_bytes:
        aside = path.with_name(path.name + ".1")
        with append_to(aside) as copy, path.open("rb") as own:
            copy.truncate(0)
            shutil.copyfileobj(own, copy)
        os.truncate(path, 0)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
