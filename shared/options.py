"""Options of a process: every one a flag, an environment variable and a YAML key, strict everywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, TypeVar

T = TypeVar("T")


def option(default: Any, *, help: str) -> Any:  # noqa: A002 - the word that argparse uses
    """A dataclass field that is an option. `default` may be a list or a dict; each load gets its own copy."""
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


def load(
    options: type[T], *, section: str, argv: Sequence[str], environ: Mapping[str, str], prog: str
) -> T:
    """Reads `options` (a frozen dataclass): flag over environment variable over YAML over default."""
    raise NotImplementedError
