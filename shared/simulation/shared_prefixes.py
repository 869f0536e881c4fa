"""Prefixes that requests of one engine have in common: found as soon as one has computed them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shared.scheduling.rows import COMPUTED, RESIDENT, TOTAL, Rows
from shared.simulation.prefix_cache import PrefixCache


@dataclass(slots=True, kw_only=True)
class SharedPrefixes:
    """The requests of one engine that begin with a prefix of others, by their index."""

    cache: PrefixCache
    _begins_with: dict[int, tuple[str, int]] = field(default_factory=dict)  # name and tokens
    _holding: set[int] = field(default_factory=set)  # those with the prefix in their KV
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
            if index in self._holding:
                self._holding.remove(index)
                self.cache.let_go(*self._begins_with[index])

    def ended(self, indexes: Iterable[int]) -> None:
        """Removes requests and what they held."""
        for index in indexes:
            self.evicted((index,))
            self._begins_with.pop(index, None)

    def find_again(self, rows: Rows, indexes: npt.NDArray[np.int64]) -> float:
        """Has waiting prompts find what is cached now, as they do in vLLM at the start of a step.

        `indexes` are the requests of the rows. Returns the tokens found, less those that had been
        found before.
        """
        if not self._begins_with or self._version == self.cache.version:
            return 0.0
        self._version = self.cache.version
        more, block, of_rows = 0.0, self.cache.block_tokens, indexes.tolist()
        for place in np.flatnonzero(rows[:, RESIDENT] == 0).tolist():
            name, tokens = self._begins_with.get(of_rows[place], ("", 0))
            if not tokens:
                continue
            found = min(tokens, int(rows[place, TOTAL]) - 1, self.cache.tokens(name))
            found -= found % block
            more += found - rows[place, COMPUTED]
            rows[place, COMPUTED] = found
        return more
