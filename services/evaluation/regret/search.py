"""The search for loads on which others keep more: a random sample of the space, then loads near the
worst ones found (an evolutionary search by mutation of one parent).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from services.evaluation.regret.loads import RegretLoad, draw, near
from services.evaluation.regret.play import Regret

_PARENTS: Final = 12  # loads with the greatest regret, which are mutated
Clock = Callable[[], float]


@dataclass(slots=True, kw_only=True)
class Search:
    """Yields loads to play: `loads` of a seed, then others near the worst until `until_s` on the
    clock. `known` holds the results so far.
    """

    seed: int
    loads: int
    until_s: float
    clock: Clock
    known: dict[str, Regret] = field(default_factory=dict)
    _named: int = 0

    def __iter__(self) -> Iterator[RegretLoad]:
        while True:
            if self._named < self.loads:
                one = draw(self._named, self.seed)
            elif self.known and self.clock() < self.until_s:
                random = np.random.default_rng((self.seed, self._named))
                parents = worst(list(self.known.values()), _PARENTS)
                one = near(parents[int(random.integers(len(parents)))].load, random)
            else:
                return
            self._named += 1
            yield one

    def add(self, regret: Regret) -> None:
        self.known[regret.load.key] = regret


def worst(regrets: Sequence[Regret], count: int) -> list[Regret]:
    """The results with the greatest regret as asked, the worst first."""
    return sorted(regrets, key=lambda one: one.points(), reverse=True)[:count]
