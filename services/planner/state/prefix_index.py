"""Finds how much of a prompt each engine has in its prefix cache, by hashes of spans."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shared.engines import EngineDescription, PrefixNews
from shared.requests import PromptHashes


@dataclass(slots=True)
class _Cached:
    """The prefix cache of one engine."""

    span_tokens: int
    hashes: set[int] = field(default_factory=set)


@dataclass(slots=True)
class PrefixIndex:
    """The prefix caches as reported by engines, up to one report late. Takes about 110 bytes for
    each cached span (`slos-serve bench prefixes`).
    """

    _engines: dict[str, _Cached] = field(default_factory=dict)

    def hear(self, engine: EngineDescription, news: PrefixNews) -> None:
        """Applies the news of one engine, in order."""
        if not news or not engine.prefix_span_tokens:
            return
        cached = self._engines.setdefault(engine.name, _Cached(engine.prefix_span_tokens))
        news.bring_up_to_date(cached.hashes)

    def lost(self, engine: str) -> None:
        """Forgets the cache of an engine."""
        self._engines.pop(engine, None)

    def tokens(self, engine: str) -> int:
        """Tokens of all prompts that an engine has cached."""
        cached = self._engines.get(engine)
        return 0 if cached is None else cached.span_tokens * len(cached.hashes)

    def found(self, prompt: PromptHashes | None) -> Mapping[str, int]:
        """Tokens of the prompt's cached prefix by engine, where there are any."""
        if prompt is None or not prompt.hashes:
            return {}
        first = prompt.hashes[0]
        return {
            name: prompt.span_tokens * _spans(cached.hashes, prompt.hashes)
            for name, cached in self._engines.items()
            if first in cached.hashes and cached.span_tokens == prompt.span_tokens
        }


def _spans(cached: set[int], hashes: Sequence[int]) -> int:
    """How many of the prompt's first spans are cached, by bisection: an engine evicts a prompt's
    blocks from the end on, so that there are no gaps. A walk would miss the processor's caches once
    for each span on each engine.
    """
    return bisect_left(range(len(hashes)), True, key=lambda number: hashes[number] not in cached)
