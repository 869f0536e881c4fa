"""A folder that is made once and atomically, also by several processes at the same time."""

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from shared.errors import ConfigError

_MANIFEST: Final = "made-by-slos-serve.json"  # sizes in bytes by file name
_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class KeptFolder:
    """One such folder. It is complete only if every file has the size it was made with."""

    path: Path
    needed_bytes: int
    wait_limit_s: float = 900.0

    @property
    def complete(self) -> bool:
        try:
            sizes = json.loads((self.path / _MANIFEST).read_text())
            return all((self.path / name).stat().st_size == size for name, size in sizes.items())
        except (OSError, ValueError):
            return False

    def get(self, make: Callable[[Path], object], say: Callable[[str], None]) -> Path:
        """The folder; `make` fills an empty one if there is none yet. Raises ConfigError."""
        if self.complete:
            return self.path
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock(say):
                if not self.complete:  # another process may have made it while we waited
                    self._make(make)
        except OSError as error:
            raise ConfigError(f"{_what_failed(error, self.path)} {_CURE}") from error
        return self.path

    def _make(self, make: Callable[[Path], object]) -> None:
        partial = self.path.with_name(self.path.name + ".partial")
        for leftover in (partial, self.path):
            shutil.rmtree(leftover, ignore_errors=True)
        self._check_space()
        partial.mkdir()
        try:
            make(partial)
            _write_manifest(partial)
            partial.rename(self.path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _check_space(self) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if free < self.needed_bytes:
            raise ConfigError(
                f"{self.path.parent} has {free >> 20} MiB free and the model needs "
                f"{self.needed_bytes >> 20}. {_CURE}"
            )

    @contextmanager
    def _lock(self, say: Callable[[str], None]) -> Iterator[None]:
        """A file lock, which the kernel releases when its process ends."""
        with self.path.with_name(self.path.name + ".lock").open("w") as file:
            if not _locked(file):
                say(f"Another process is making {self.path}; waiting for it.")
                self._wait_for(file)
            yield

    def _wait_for(self, file: TextIO) -> None:
        for _ in range(max(1, round(self.wait_limit_s / _POLL_S))):
            time.sleep(_POLL_S)
            if _locked(file):
                return
        raise ConfigError(
            f"Another process has been making {self.path} for {self.wait_limit_s:g} s; "
            "end it and start again."
        )


_CURE: Final = "Free some space, or name another folder in SLOS_CACHE."


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_manifest(folder: Path) -> None:
    sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
    (folder / _MANIFEST).write_text(json.dumps(sizes, indent=1))


def _what_failed(error: OSError, path: Path) -> str:
    return f"Cannot write {error.filename or path}: {error.strerror or error}."
