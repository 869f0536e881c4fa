"""A prefix cache: in free KV blocks, with LRU eviction when they are needed, and in the blocks of
running requests.
"""

from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass(slots=True)
class PrefixCache:
    """Cached tokens by the name of a prefix.

    Attributes:
        version: Changes whenever the cached tokens of a prefix may have changed.
    """

    block_tokens: int
    version: int = 0
    _tokens: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _held: dict[str, list[int]] = field(default_factory=dict)  # tokens of each running request
    _blocks: int = 0
    _changed: set[str] = field(default_factory=set)

    @property
    def blocks(self) -> int:
        """Free blocks that hold prefixes."""
        return self._blocks

    def whole_blocks(self, tokens: int) -> int:
        """The tokens that fill whole blocks."""
        return tokens - tokens % self.block_tokens

    def keep(self, name: str, tokens: int) -> None:
        """Caches the whole blocks of a prefix, the longest known of its name, as the newest."""
        blocks = max(tokens, self.take(name)) // self.block_tokens
        if blocks:
            self._tokens[name] = blocks * self.block_tokens
            self._blocks += blocks
            self._change(name)

    def tokens(self, name: str) -> int:
        """Cached tokens of this prefix; this does not count as a use."""
        return max(self._tokens.get(name, 0), max(self._held.get(name, ()), default=0))

    def use(self, name: str) -> int:
        """Cached tokens of this prefix, which becomes the newest."""
        if name in self._tokens:
            self._tokens.move_to_end(name)
        return self.tokens(name)

    def take(self, name: str) -> int:
        """Removes a prefix from the free blocks; returns its tokens there."""
        tokens = self._tokens.pop(name, 0)
        self._blocks -= tokens // self.block_tokens
        if tokens:
            self._change(name)
        return tokens

    def hold(self, name: str, tokens: int) -> None:
        """Caches the whole blocks of a prefix that a running request has computed."""
        self._held.setdefault(name, []).append(self.whole_blocks(tokens))
        self._change(name)

    def let_go(self, name: str, tokens: int) -> None:
        """Ends a `hold` with the same arguments."""
        held = self._held[name]
        held.remove(self.whole_blocks(tokens))
        if not held:
            del self._held[name]
        self._change(name)

    def shrink(self, blocks: float) -> None:
        """Evicts the least recently used prefixes down to at most `blocks` blocks."""
        while self._blocks > blocks:
            name, tokens = self._tokens.popitem(last=False)
            self._blocks -= tokens // self.block_tokens
            self._change(name)

    def changes(self) -> dict[str, int]:
        """Prefixes that may have changed since the last call, with their cached tokens."""
        changed, self._changed = self._changed, set()
        return {name: self.tokens(name) for name in changed}

    def _change(self, name: str) -> None:
        self._changed.add(name)
        self.version += 1
