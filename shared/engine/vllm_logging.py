"""Has vLLM's processes write their errors to a file as well, so that the host can say why they end.

vLLM hands its logging configuration on to all of its processes, forked or spawned.
"""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from vllm.logger import DEFAULT_LOGGING_CONFIG

from shared.engine.vllm_start_errors import RECORD

_HANDLER: Final = "slos_start_errors"
_LONGEST_BYTES: Final = 1 << 20


def keep_errors(config: Any, path: Path) -> None:
    """Adds a file of errors to the logging of the engine that `config`, a VllmConfig, describes.

    The operator's own logging configuration (VLLM_LOGGING_CONFIG_PATH) is kept; without any
    logging (VLLM_CONFIGURE_LOGGING=0) there is no such file.
    """
    logging = config.logging_config
    if not logging.configure_logging:
        return
    own = logging.pylogging_config_file
    wanted = with_file(
        json.loads(Path(own).read_text()) if own else deepcopy(DEFAULT_LOGGING_CONFIG), path
    )
    description = path.with_suffix(".json")
    description.write_text(json.dumps(wanted))
    logging.pylogging_config_file = str(description)


def with_file(wanted: dict[str, Any], path: Path) -> dict[str, Any]:
    """A `dictConfig`: its logger `vllm` writes errors to `path` as well, bounded in size."""
    wanted.setdefault("formatters", {})[_HANDLER] = {"format": f"{RECORD}%(message)s"}
    wanted.setdefault("handlers", {})[_HANDLER] = {
        "class": "logging.handlers.RotatingFileHandler",
        "filename": str(path),
        "maxBytes": _LONGEST_BYTES,
        "backupCount": 1,
        "level": "ERROR",
        "formatter": _HANDLER,
        "delay": True,
    }
    logger = wanted.setdefault("loggers", {}).setdefault("vllm", {"level": "INFO"})
    logger["handlers"] = [*logger.get("handlers", ()), _HANDLER]
    return wanted
