"""Moves the same blocks over several transports in turn, round after round."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from services.bench.kv_layout import Bytes, KvLayout, Numbers, is_right
from shared.errors import SlosError

# Reads the remote blocks into the local ones and returns seconds.
Read = Callable[[Numbers, Numbers], float]
_WARM_UP_ROUNDS = 2


class WrongBytes(SlosError):
    """The bytes that arrived are not those that were sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """Seconds by prompt tokens and by transport; `first_s` has the first transfer of each."""

    times_s: Mapping[int, Mapping[str, Sequence[float]]]
    first_s: Mapping[str, float]


@dataclass(slots=True)
class MemoryCopy:
    """Copies the same blocks from memory to memory within this process."""

    source: Bytes
    target: Bytes
    now: Callable[[], float]

    def read(self, local: Numbers, remote: Numbers) -> float:
        started_at_s = self.now()
        for to, from_ in zip(local, remote, strict=True):
            self.target[to] = self.source[from_]
        return self.now() - started_at_s


@dataclass(slots=True)
class Mover:
    """Reads into `memory` over each of `ways` (transports).

    Each read has newly drawn blocks that lie apart, as in a used cache.
    """

    layout: KvLayout
    memory: Bytes
    ways: Mapping[str, Read]
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def run(self, prompt_tokens: Sequence[int], rounds: int) -> Moves:
        """Raises WrongBytes, and the errors of the transports."""
        first_s = {way: self._move_checked(way, prompt_tokens[0]) for way in self.ways}
        times_s: dict[int, dict[str, list[float]]] = {
            tokens: {way: [] for way in self.ways} for tokens in prompt_tokens
        }
        for number in range(_WARM_UP_ROUNDS + rounds):
            for tokens in prompt_tokens:
                for way in self.ways:
                    if number < _WARM_UP_ROUNDS:
                        self._move_checked(way, tokens)
                    else:
                        times_s[tokens][way].append(self._move(way, tokens)[0])
        return Moves(times_s=times_s, first_s=first_s)

    def _move(self, way: str, tokens: int) -> tuple[float, Numbers, Numbers]:
        local, remote = self._draw(tokens), self._draw(tokens)
        return self.ways[way](local, remote), local, remote

    def _move_checked(self, way: str, tokens: int) -> float:
        self.memory[:] = 0
        seconds, local, remote = self._move(way, tokens)
        if not is_right(self.memory, local, remote):
            raise WrongBytes(f"{way} brought wrong bytes for {tokens} tokens: do not use it here.")
        return seconds

    def _draw(self, tokens: int) -> Numbers:
        blocks = self._random.permutation(self.layout.blocks)[: self.layout.blocks_of(tokens)]
        return self.layout.numbers_of(blocks.astype(np.int32))
