"""Writes texts to disk, and plain data as JSON."""

from pathlib import Path

import orjson

from shared.errors import ConfigError


def json_of(plain: object) -> str:
    """JSON text; nan becomes null, because JSON has no nan."""
    return orjson.dumps(plain, option=orjson.OPT_NON_STR_KEYS).decode()


def write(path: Path, text: str) -> Path:
    """Writes a text, makes the folder if needed, and returns the path. Raises ConfigError where it
    cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}; name another folder") from error
    return path
