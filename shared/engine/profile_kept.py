"""Profiles on disk: one file for each model on each hardware. Measures nothing."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from shared.batch_time import Fit, from_plain, to_plain
from shared.errors import ConfigError

_LOG = logging.getLogger(__name__)
_FORMAT = 1  # a new way to measure or to keep gets a new number
_FOLDER = "profiles"
_DIGEST_LETTERS = 24


def identity(model_path: str, hardware: Mapping[str, Any]) -> dict[str, Any]:
    """All that makes two profiles comparable, as plain data."""
    return {"format": _FORMAT, "model": model_identity(model_path), **hardware}


def model_identity(model_path: str) -> str:
    """A hub name as it is; a folder by its configuration and the sizes of its weights."""
    folder = Path(model_path)
    if not folder.is_dir():
        return model_path
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.name == "config.json":
            digest.update(file.read_bytes())
        elif file.suffix in (".safetensors", ".bin", ".gguf", ".pt"):
            digest.update(f"{file.name} {file.stat().st_size}".encode())
    return digest.hexdigest()[:_DIGEST_LETTERS]


def kept_fit(cache: Path, wanted: Mapping[str, Any]) -> Fit | None:
    """The fit that was kept for this identity; None where there is none that can be read."""
    path = _path(cache, wanted)
    try:
        plain = json.loads(path.read_text())
        return from_plain(plain["fit"]) if plain["of"] == wanted else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _LOG.warning("The profile in %s cannot be read (%s) and is measured anew.", path, error)
        return None


def fit_in(path: Path) -> Fit:
    """The fit in a file of `slos-serve profile --json`. Raises ConfigError where there is none."""
    try:
        return from_plain(json.loads(path.read_text(encoding="utf-8"))["fit"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no profile of `slos-serve profile --json`: {error}"
        ) from error


def keep_fit(cache: Path, wanted: Mapping[str, Any], fit: Fit) -> None:
    """Writes the file whole or not at all; a full disk costs only the next start its time."""
    path = _path(cache, wanted)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"of": dict(wanted), "fit": to_plain(fit)}, indent=1))
        partial.replace(path)
    except OSError as error:
        _LOG.warning("The profile cannot be kept in %s: %s.", path, error)
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _path(cache: Path, wanted: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(dict(wanted), sort_keys=True).encode()).hexdigest()
    return cache / _FOLDER / f"{digest[:_DIGEST_LETTERS]}.json"
