"""Prompts of which no two begin alike, so that no prefix cache has an effect."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_WORDS: Final = (
    *("river", "stone", "light", "market", "letter", "window", "garden", "engine", "paper"),
    *("winter", "music", "harbour", "bread", "signal", "mountain", "number", "table", "forest"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt as text and as tokens."""

    text: str
    token_ids: tuple[int, ...]


def texts(words: int, seed: int = 0) -> Iterator[str]:
    """Endless prompts; each begins with a different number."""
    draw = random.Random(seed)  # noqa: S311 - no secret is made of it
    number = draw.randrange(10**8)
    while True:
        number += 1
        yield f"{number} {' '.join(draw.choice(_WORDS) for _ in range(words))}"
