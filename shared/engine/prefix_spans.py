"""What is in an engine's prefix cache, told in spans of prompts: fewer hashes than it has blocks.
Knows vLLM's hashes of blocks, not vLLM.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from shared.engines import PrefixNews, prefix_span_tokens


@dataclass(slots=True)
class _Block:
    """A hash in the cache: at which place of its prompt its block is, and how many hold it."""

    place: int
    copies: int = 1


@dataclass(slots=True)
class PrefixSpans:
    """The last block of a span has the hash that stands for the span and all before it, since each
    block's hash covers those before it.
    """

    block_tokens: int
    _blocks: dict[int, _Block] = field(default_factory=dict)
    _stored: set[int] = field(default_factory=set)  # since the last news
    _removed: set[int] = field(default_factory=set)
    _anew: bool = False

    def stored(self, parent: int | None, hashes: Iterable[int]) -> None:
        """Blocks of one prompt that follow each other; `parent` is the hash of the block before
        them, None at the beginning. What follows an unknown block stays unknown.
        """
        if parent is None:
            place = 0
        elif before := self._blocks.get(parent):
            place = before.place + 1
        else:
            return
        for number, one in enumerate(hashes, start=place):
            known = self._blocks.get(one)
            if known is not None:
                known.copies += 1
                continue
            self._blocks[one] = _Block(number)
            if self._ends_span(number):
                self._stored.add(one)
                self._removed.discard(one)

    def removed(self, hashes: Iterable[int]) -> None:
        """One copy of each is gone; unknown ones are no matter."""
        for one in hashes:
            known = self._blocks.get(one)
            if known is None:
                continue
            known.copies -= 1
            if known.copies:
                continue
            del self._blocks[one]
            if self._ends_span(known.place):
                self._removed.add(one)
                self._stored.discard(one)

    def cleared(self) -> None:
        """Nothing is cached any more."""
        self._blocks.clear()
        self.restate()

    def restate(self) -> None:
        """The next news tell all that is there: some before them were lost."""
        self._anew = True

    def take(self) -> PrefixNews:
        """What has changed since the last call."""
        if self._anew:
            spans = (one for one, block in self._blocks.items() if self._ends_span(block.place))
            news = PrefixNews(stored=tuple(spans), anew=True)
        elif self._stored or self._removed:
            news = PrefixNews(stored=tuple(self._stored), removed=tuple(self._removed))
        else:
            return _NOTHING
        self._anew = False
        self._stored.clear()
        self._removed.clear()
        return news

    def _ends_span(self, place: int) -> bool:
        return (place + 1) * self.block_tokens % prefix_span_tokens(self.block_tokens) == 0


_NOTHING = PrefixNews()
