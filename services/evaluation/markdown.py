"""Tables of a report as Markdown."""

from collections.abc import Sequence
from typing import Final

NOT_RUN: Final = "Not run yet."


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Markdown; a bar inside a cell is kept."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)
