"""KV blocks that several requests of an engine share, because their prompts begin alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from shared.scheduling.rows import COMPUTED, RESIDENT, SHARED, Rows, empty


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedKv:
    """What the requests of these rows share.

    Attributes:
        blocks: Blocks that at least two requests hold, each counted once.
        tokens: By class, what half of its running requests share with others, or more.
    """

    rows: Rows = field(default_factory=lambda: empty(0))
    blocks: int = 0
    tokens: Mapping[str, int] = field(default_factory=dict)


def shared_in(
    rows: Rows, class_names: Sequence[str | None], used_blocks: int, block_tokens: int
) -> SharedKv:
    """What the requests share of the `used_blocks` of their engine. Those that no request holds
    alone are shared; each of these is held at least twice.
    """
    if not class_names:
        return SharedKv(rows=rows)
    holding = rows[rows[:, RESIDENT] > 0]
    shared = np.minimum(holding[:, SHARED], holding[:, COMPUTED]) // block_tokens
    own = np.ceil(holding[:, COMPUTED] / block_tokens) - shared
    blocks = min(used_blocks - own.sum(), shared.sum() // 2)
    by_class: dict[str, list[int]] = {}
    for name, row in zip(class_names, rows, strict=True):
        if name is not None and row[RESIDENT]:
            by_class.setdefault(name, []).append(int(row[SHARED]))
    # The middle one: two requests with one long prompt say nothing of the others.
    tokens = {name: sorted(of_class)[len(of_class) // 2] for name, of_class in by_class.items()}
    return SharedKv(rows=rows, blocks=max(0, int(blocks)), tokens=tokens)
