"""Seeded requests with arrival times, the same for every system and, rescaled, every rate."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from services.bench.capacity.classes import SHAPES, Lengths

_SEED_WORDS: Final = 4  # tokens at the start of a prompt that no other prompt begins with


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A request before the rate is chosen: `at` is its arrival in arbitrary units."""

    at: float
    class_name: str
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """One request of a point, `at_s` after its start."""

    at_s: float
    class_name: str
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A named sequence of requests, always the same."""

    name: str
    arrivals: Sequence[Arrival]

    def offered(self, rate_rps: float, seconds: float) -> list[Offered]:
        """The first `rate_rps * seconds` requests, with times scaled to exactly that rate."""
        count = max(1, round(rate_rps * seconds))
        if count >= len(self.arrivals):
            raise ValueError(f"{self.name} has {len(self.arrivals)} requests, not {count + 1}")
        first, end = self.arrivals[0].at, self.arrivals[count].at
        stretch = seconds / (end - first)
        return [
            Offered(
                at_s=(one.at - first) * stretch,
                class_name=one.class_name,
                prompt_tokens=one.prompt_tokens,
                output_tokens=one.output_tokens,
            )
            for one in self.arrivals[:count]
        ]


def poisson(name: str, classes: Sequence[str], seed: int, count: int) -> Load:
    """Independent arrivals; each request draws its class and then its lengths."""
    return Load(name=name, arrivals=list(islice(_poisson(classes, seed), count)))


def _poisson(classes: Sequence[str], seed: int) -> Iterator[Arrival]:
    draw = random.Random(seed)  # noqa: S311 - no secret is made of it
    at = 0.0
    while True:
        name = draw.choice(classes)
        yield Arrival(
            at=at,
            class_name=name,
            prompt_tokens=_length(draw, SHAPES[name].prompt),
            output_tokens=_length(draw, SHAPES[name].output),
        )
        at += draw.expovariate(1.0)


def _length(draw: random.Random, lengths: Lengths) -> int:
    drawn = draw.lognormvariate(math.log(lengths.median), lengths.sigma)
    return min(max(round(drawn), lengths.least), lengths.most)


class Prompts:
    """Prompts of real text of which no two begin alike, so that no prefix cache has an effect."""

    def __init__(self, text_ids: Sequence[int], seed: int | str) -> None:
        self._text_ids = text_ids
        self._draw = random.Random(seed)  # noqa: S311 - no secret is made of it

    def next(self, tokens: int) -> list[int]:
        """The next prompt, as `tokens` token ids."""
        text = self._text_ids
        start = self._draw.randrange(len(text))
        own = [self._draw.choice(text) for _ in range(min(tokens, _SEED_WORDS))]
        return own + [text[(start + number) % len(text)] for number in range(tokens - len(own))]
