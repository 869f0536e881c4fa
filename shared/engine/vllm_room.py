"""For which of vLLM's requests there are free KV blocks. Sets none aside."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vllm.v1.request import Request, RequestStatus

from shared.engine.request_rows import RequestRows
from shared.scheduling.rows import COMPUTED, DRAFT, TOTAL


@dataclass(slots=True, kw_only=True)
class Room:
    """KV blocks that are free, less those that were taken in thought."""

    free_blocks: int
    block_tokens: int

    def take(self, tokens: float, before: float = 0.0) -> bool:
        """Blocks for `tokens`, of which `before` have theirs; False where they are too few."""
        need = math.ceil(tokens / self.block_tokens) - math.ceil(before / self.block_tokens)
        if need > self.free_blocks:
            return False
        self.free_blocks -= need
        return True


def with_room(
    chosen: Sequence[Request], caps: Mapping[str, int], rows: RequestRows[Request], room: Room
) -> list[Request]:
    """Those that have room at once: what was evicted may be free only when the step that
    runs has ended, and vLLM would evict a chosen one in its stead.
    """
    found = []
    for request in chosen:
        row = rows.row(request.request_id)
        until = row[COMPUTED] + caps.get(request.request_id, row[TOTAL] - row[COMPUTED])
        if request.status != RequestStatus.RUNNING:
            until = row[TOTAL]
        if room.take(until + row[DRAFT], row[COMPUTED]):
            found.append(request)
    return found


def promised_first(
    blocked: Mapping[str, Request], rows: RequestRows[Request], room: Room
) -> Iterator[Request]:
    """Promised ones with KV to fetch, in order, as far as there is room for them."""
    for request_id, request in blocked.items():
        if rows.is_promised(request_id):
            if not room.take(request.num_tokens + 1):
                return
            yield request


def blocks_to_come(
    blocked: Mapping[str, Request], rows: RequestRows[Request], block_tokens: int
) -> int:
    """What promised ones will take that have not asked for their KV yet: others make room."""
    return sum(
        math.ceil((request.num_tokens + 1) / block_tokens)
        for request_id, request in blocked.items()
        if request.status == RequestStatus.WAITING and rows.is_promised(request_id)
    )
