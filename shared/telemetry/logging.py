"""Sets up a process's log: one line per event, as text or as JSON."""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

from shared.errors import ConfigError

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_FORMATS = ("text", "json")
_ROOTS = ("services", "shared")


def set_up_logging(
    process: str, environ: Mapping[str, str], stream: TextIO = sys.stderr
) -> logging.Handler:
    """Sends the logs of `services` and `shared` to `stream`; other loggers keep their set-up.

    `SLOS_LOG_LEVEL` is DEBUG, INFO (the default), WARNING or ERROR; `SLOS_LOG_FORMAT` is text (the
    default) or json. A second call replaces the first. Raises ConfigError.
    """
    level = _one_of(environ, "SLOS_LOG_LEVEL", _LEVELS, default="INFO")
    style = _one_of(environ, "SLOS_LOG_FORMAT", _FORMATS, default="text")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines(process) if style == "json" else TextLines(process))
    for name in _ROOTS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False
    return handler


class TextLines(logging.Formatter):
    """`12:00:01.250 INFO    planner  attached prefill-0`; a traceback follows on extra lines."""

    def __init__(self, process: str) -> None:
        super().__init__(
            f"%(asctime)s.%(msecs)03d %(levelname)-7s {process.replace('%', '%%')}  %(message)s",
            "%H:%M:%S",
        )


class JsonLines(logging.Formatter):
    """One JSON object per line: at, level, process, logger, message, and error (a traceback)."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _one_of(
    environ: Mapping[str, str], name: str, allowed: tuple[str, ...], *, default: str
) -> str:
    read = environ.get(name) or default
    for value in allowed:
        if read.lower() == value.lower():
            return value
    raise ConfigError(f"{name}: read {read!r}, allowed is one of {', '.join(allowed)}")
