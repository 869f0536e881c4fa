"""Random numbers of one engine, seeded and drawn in bulk."""

import numpy as np

from shared.batch_time.table import FloatArray

_BULK = 4096


class Chance:
    """Normal numbers for the noise of steps, uniform ones for random events."""

    def __init__(self, name: str, seed: int) -> None:
        self._random = np.random.default_rng([seed, *name.encode()])
        self._normals: list[float] = []
        self._events: list[float] = []
        self._uniforms: FloatArray = np.zeros(0)
        self._used = 0

    def normal(self) -> float:
        if not self._normals:
            self._normals = self._random.standard_normal(_BULK).tolist()
        return self._normals.pop()

    def uniform(self) -> float:
        if not self._events:
            self._events = self._random.random(_BULK).tolist()
        return self._events.pop()

    def uniforms(self, count: int) -> FloatArray:
        """`count` uniform numbers in [0, 1), each used once."""
        if self._used + count > len(self._uniforms):
            self._uniforms, self._used = self._random.random(max(_BULK, count)), 0
        start, self._used = self._used, self._used + count
        return self._uniforms[start : self._used]
