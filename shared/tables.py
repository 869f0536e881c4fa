"""Where commands print their tables."""

from typing import Final

from rich.console import Console

_WIDTH: Final = 200  # columns, more than any table of ours takes


def for_tables(console: Console) -> Console:
    """The console itself; one on stdout that cuts no table where it is no terminal."""
    return console if console.is_terminal else Console(width=_WIDTH)
