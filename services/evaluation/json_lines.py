"""Files of one JSON object per line. Each line is written at once; a line cut by a kill leaves the
others intact.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from services.evaluation.files import json_of
from shared.errors import ConfigError

T = TypeVar("T")
_VERSION = "version"


def lines_of(path: Path) -> list[str]:
    """All lines, including empty and truncated ones; none without a file."""
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def append_line(path: Path, line: str) -> None:
    """Appends a line, also after a truncated one. Raises ConfigError where it cannot."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}") from error


def append_result(path: Path, name: str, result: object, version: str) -> None:
    """Appends a result, under this name, of this version of the code. Raises ConfigError where it
    cannot.
    """
    append_line(path, json_of({_VERSION: version, name: result}))


def results_of(path: Path, name: str, adapter: TypeAdapter[T], version: str | None) -> Iterator[T]:
    """The results under this name of this version (None: of all). Other lines are left out, also
    truncated ones.
    """
    for line in lines_of(path):
        try:
            plain = orjson.loads(line)
            if version is None or plain[_VERSION] == version:
                yield adapter.validate_python(plain[name])
        except (ValueError, KeyError, TypeError, ValidationError):
            continue
