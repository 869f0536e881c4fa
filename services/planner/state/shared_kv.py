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
        tokens: By class, the most tokens that one of its requests shares with others.
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
    tokens: dict[str, int] = {}
    for name, is_resident, row_shared in zip(
        class_names, rows[:, RESIDENT].tolist(), rows[:, SHARED].tolist(), strict=True
    ):
        if name is not None and is_resident and row_shared:
            tokens[name] = max(tokens.get(name, 0), int(row_shared))
    return SharedKv(rows=rows, blocks=max(0, int(blocks)), tokens=tokens)
