"""Lets the parts of a node check their options before the first one starts."""

import os
import subprocess
from collections.abc import Sequence
from typing import Final

from services.node.plan import Part
from shared.entry import error_in
from shared.errors import ConfigError
from shared.options import CHECK_FLAG

_MODULE: Final = 2  # index in `python -m MODULE ...`


def check_part_options(parts: Sequence[Part]) -> None:
    """Runs one part of each kind with `--check`, all at once, which takes a second.

    A kind is a module: its parts read the same section of the configuration. Only the parts
    themselves know their options. Raises ConfigError with the first fault, in the order of parts.
    """
    kinds: dict[str, Part] = {}
    for part in parts:
        kinds.setdefault(part.command[_MODULE], part)
    checks = [_start(part) for part in kinds.values()]
    faults = [_fault(check) for check in checks]
    for fault in faults:
        if fault:
            raise ConfigError(fault)


def _start(part: Part) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*part.command, CHECK_FLAG],
        env={**os.environ, **part.environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _fault(check: subprocess.Popen[str]) -> str:
    """The error of a finished check; empty where the options are valid."""
    _, said = check.communicate()
    return error_in(said) if check.returncode else ""
