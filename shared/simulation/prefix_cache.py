"""Prefixes that an engine still has in KV blocks which nobody uses. Free blocks are theirs until
somebody needs them; the one longest unused goes first.
"""

from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass(slots=True)
class PrefixCache:
    """By the name of a prefix, how many tokens of it are there."""

    block_tokens: int
    _tokens: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _blocks: int = 0
    _changed: set[str] = field(default_factory=set)

    @property
    def blocks(self) -> int:
        return self._blocks

    def keep(self, name: str, tokens: int) -> None:
        """Whole blocks are kept; the longest of a name counts, and is the newest."""
        blocks = max(tokens, self.take(name)) // self.block_tokens
        if blocks:
            self._tokens[name] = blocks * self.block_tokens
            self._blocks += blocks
            self._changed.add(name)

    def tokens(self, name: str) -> int:
        """Of this prefix that are there; to look does not make it newer."""
        return self._tokens.get(name, 0)

    def use(self, name: str) -> int:
        """Tokens of it that are there, and stay."""
        if name not in self._tokens:
            return 0
        self._tokens.move_to_end(name)
        return self._tokens[name]

    def take(self, name: str) -> int:
        """The prefix is somebody's from now on."""
        tokens = self._tokens.pop(name, 0)
        self._blocks -= tokens // self.block_tokens
        if tokens:
            self._changed.add(name)
        return tokens

    def shrink(self, blocks: float) -> None:
        """Lets go until it has no more than so many blocks."""
        while self._blocks > blocks:
            name, tokens = self._tokens.popitem(last=False)
            self._blocks -= tokens // self.block_tokens
            self._changed.add(name)

    def changes(self) -> dict[str, int]:
        """Prefixes that may have changed since this was last asked, with their tokens now."""
        changed, self._changed = self._changed, set()
        return {name: self.tokens(name) for name in changed}
