"""Reports of the prefix caches of simulated engines, by hashes of spans as real engines do."""

from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from shared.engines import PrefixNews
from shared.requests import PromptHashes
from shared.simulation.engine import SimEngine
from shared.simulation.system import SimRequest

SPAN_TOKENS: Final = 64


def prompt_hashes(request: SimRequest) -> PromptHashes | None:
    """Hashes of the part of a prompt that may be cached; None where there is none."""
    call = request.call
    if not call.prefix_tokens:
        return None
    name = call.prefix_group or request.program_id
    return PromptHashes(span_tokens=SPAN_TOKENS, hashes=tuple(_hashes(name, 0, call.prefix_tokens)))


@dataclass(slots=True)
class ReportedPrefixes:
    """The prefix cache of one engine as the planner knows it: tokens by the name of a prefix."""

    _tokens: dict[str, int] = field(default_factory=dict)

    def news(self, engine: SimEngine) -> PrefixNews:
        """The changes since the last call."""
        stored: list[int] = []
        removed: list[int] = []
        for name, tokens in engine.cache.changes().items():
            before = self._tokens.pop(name, 0)
            stored += _hashes(name, before, tokens)
            removed += _hashes(name, tokens, before)
            if tokens:
                self._tokens[name] = tokens
        return PrefixNews(stored=tuple(stored), removed=tuple(removed))


def _hashes(name: str, from_tokens: int, to_tokens: int) -> range:
    """The hashes of the whole spans of a prefix between two of its tokens."""
    first = _first(name)
    return range(first + from_tokens // SPAN_TOKENS, first + to_tokens // SPAN_TOKENS)


@lru_cache(maxsize=4096)
def _first(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=7).digest())
