"""A prefix cache in free KV blocks, with LRU eviction when the blocks are needed."""

from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass(slots=True)
class PrefixCache:
    """Cached tokens by the name of a prefix."""

    block_tokens: int
    _tokens: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _blocks: int = 0
    _changed: set[str] = field(default_factory=set)

    @property
    def blocks(self) -> int:
        return self._blocks

    def keep(self, name: str, tokens: int) -> None:
        """Caches the whole blocks of a prefix, the longest known of its name, as the newest."""
        blocks = max(tokens, self.take(name)) // self.block_tokens
        if blocks:
            self._tokens[name] = blocks * self.block_tokens
            self._blocks += blocks
            self._changed.add(name)

    def tokens(self, name: str) -> int:
        """Cached tokens of this prefix; this does not count as a use."""
        return self._tokens.get(name, 0)

    def use(self, name: str) -> int:
        """Cached tokens of this prefix, which becomes the newest."""
        if name not in self._tokens:
            return 0
        self._tokens.move_to_end(name)
        return self._tokens[name]

    def take(self, name: str) -> int:
        """Removes a prefix; returns its cached tokens."""
        tokens = self._tokens.pop(name, 0)
        self._blocks -= tokens // self.block_tokens
        if tokens:
            self._changed.add(name)
        return tokens

    def shrink(self, blocks: float) -> None:
        """Evicts the least recently used prefixes down to at most `blocks` blocks."""
        while self._blocks > blocks:
            name, tokens = self._tokens.popitem(last=False)
            self._blocks -= tokens // self.block_tokens
            self._changed.add(name)

    def changes(self) -> dict[str, int]:
        """Prefixes that may have changed since the last call, with their cached tokens."""
        changed, self._changed = self._changed, set()
        return {name: self.tokens(name) for name in changed}
