"""Prefixes that requests of one engine have in common: found as soon as one has computed them, in
blocks that all that found them share.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shared.scheduling.rows import COMPUTED, RESIDENT, SHARED, TOTAL, Rows
from shared.simulation.prefix_cache import PrefixCache

Indexes = npt.NDArray[np.int64]


@dataclass(slots=True, kw_only=True)
class SharedPrefixes:
    """The requests of one engine that begin with a prefix of others, by their index.

    Attributes:
        blocks: KV blocks that requests share.
    """

    cache: PrefixCache
    blocks: int = 0
    _begins_with: dict[int, tuple[str, int]] = field(default_factory=dict)  # name and tokens
    _holding: set[int] = field(default_factory=set)  # those with the prefix in their KV
    _sharers: dict[str, set[int]] = field(default_factory=dict)  # by name
    _found: dict[int, int] = field(default_factory=dict)  # tokens that a request found, perhaps 0
    _version: int = 0  # of the cache when prompts last looked

    def add(self, index: int, name: str, tokens: int) -> None:
        """Adds a request with a prompt that begins with a prefix of `tokens`."""
        self._begins_with[index] = name, tokens

    def computed(self, indexes: Iterable[int]) -> None:
        """Caches the prefixes of requests with a computed prompt."""
        for index in indexes:
            if index in self._begins_with:
                self.cache.hold(*self._begins_with[index])
                self._holding.add(index)

    def evicted(self, indexes: Iterable[int]) -> None:
        """Takes out of the cache what these requests held, but for what others hold as well."""
        for index in indexes:
            self._found.pop(index, None)
            self._leaves(index)
            if index in self._holding:
                self._holding.remove(index)
                self.cache.let_go(*self._begins_with[index])

    def begun(self, indexes: Iterable[int]) -> None:
        """Notes that waiting prompts with SHARED tokens run now."""
        for index in indexes:
            self._sharers[self._begins_with[index][0]].add(index)

    def dropped(self, indexes: Iterable[int]) -> None:
        """Notes that waiting prompts lost what they had found."""
        for index in indexes:
            self._found.pop(index, None)

    def ended(self, indexes: Iterable[int]) -> None:
        """Removes requests and what they held."""
        for index in indexes:
            self.evicted((index,))
            self._begins_with.pop(index, None)

    def look_up(self, rows: Rows, indexes: Indexes) -> float:
        """Has waiting prompts find what is cached now, as they do in vLLM at the start of a step,
        and sets the SHARED tokens of all rows.

        `indexes` are the requests of the rows. Returns the tokens found, less those that had been
        found before.
        """
        if not self._begins_with:
            return 0.0
        more = 0.0
        if self._version != self.cache.version:
            self._version = self.cache.version
            more = self._find_again(rows, indexes)
        self._share(rows, indexes)
        return more

    def _find_again(self, rows: Rows, indexes: Indexes) -> float:
        more, of_rows = 0.0, indexes.tolist()
        for place in np.flatnonzero(rows[:, RESIDENT] == 0).tolist():
            name, tokens = self._begins_with.get(of_rows[place], ("", 0))
            if not tokens:
                continue
            found = min(tokens, int(rows[place, TOTAL]) - 1, self.cache.tokens(name))
            found = self.cache.whole_blocks(found)
            more += found - rows[place, COMPUTED]
            rows[place, COMPUTED] = found
        return more

    def _share(self, rows: Rows, indexes: Indexes) -> None:
        """A prefix is shared by all that found it, waiting ones too, and by one that computed it
        itself. Copies that others computed at the same time are their own.
        """
        waiting: dict[str, list[int]] = {}
        found_by: dict[str, list[int]] = {}
        computed_by: dict[str, int] = {}
        is_resident, computed = rows[:, RESIDENT].tolist(), rows[:, COMPUTED].tolist()
        for place, index in enumerate(indexes.tolist()):
            name, tokens = self._begins_with.get(index, ("", 0))
            if not tokens:
                continue
            whole = self.cache.whole_blocks(tokens)
            if not is_resident[place]:
                self._found[index] = int(computed[place])
                if computed[place] >= whole > 0:
                    waiting.setdefault(name, []).append(place)
            elif self._found.get(index, 0) >= whole > 0:
                found_by.setdefault(name, []).append(place)
            elif index in self._holding:
                computed_by.setdefault(name, place)
        rows[:, SHARED], self.blocks = 0.0, 0
        self._sharers.clear()
        of_rows = indexes.tolist()
        for name in {*found_by, *computed_by}:
            holders = found_by.get(name, [])
            if name in computed_by:
                holders.append(computed_by[name])
            sharing = holders + waiting.get(name, [])
            if len(sharing) > 1:
                whole = self.cache.whole_blocks(self._begins_with[of_rows[holders[0]]][1])
                rows[sharing, SHARED] = whole
                self._sharers[name] = {of_rows[place] for place in holders}
                self.blocks += whole // self.cache.block_tokens

    def _leaves(self, index: int) -> None:
        name, tokens = self._begins_with.get(index, ("", 0))
        sharers = self._sharers.get(name)
        if sharers and index in sharers:
            sharers.remove(index)
            if not sharers:
                del self._sharers[name]
                self.blocks -= tokens // self.cache.block_tokens
