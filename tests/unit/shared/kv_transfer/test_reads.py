from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from shared.kv_transfer.layout import BlockLayout, Bytes, Region
from shared.kv_transfer.messages import Frame
from shared.kv_transfer.reads import KvPeer, Reading, ReadRequest, fault_in_frame

BLOCK_BYTES = 64


def reading(number: int = 0) -> Reading:
    """A transfer of three frames, one for each layer, of which `number` have come."""
    layout = BlockLayout(
        regions=tuple(
            Region(
                layer=layer,
                group=0,
                memory=layer,
                offset_bytes=0,
                stride_bytes=BLOCK_BYTES,
                block_bytes=BLOCK_BYTES,
            )
            for layer in range(3)
        ),
        blocks=1,
    )
    request = ReadRequest(
        request_id="here",
        remote_request_id="there",
        peer=KvPeer(epoch="life-2", host="", port=1),
    )
    frames = list(layout.frames([[0]], BLOCK_BYTES))
    return Reading(request=request, began_s=0.0, last_heard_s=0.0, frames=frames, number=number)


FRAME = Frame(
    epoch="life-2",
    request_id="there",
    fetch_id=0,
    number=0,
    first_layer=0,
    last_layer=0,
    checksum=0,
)


def parts(*sizes: int) -> list[Bytes]:
    return [np.zeros(one, dtype=np.uint8) for one in sizes]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_next_frame_whole_has_no_fault(number: int) -> None:
    frame = msgspec.structs.replace(FRAME, number=number, first_layer=number, last_layer=number)

    assert fault_in_frame(reading(number), frame, parts(BLOCK_BYTES)) == ""


@pytest.mark.parametrize(
    ("changes", "sizes", "named"),
    [
        ({"number": 1}, [BLOCK_BYTES], "Frame 1 came where 0 was due"),
        ({"number": -1}, [BLOCK_BYTES], "where 0 was due"),
        ({"epoch": "life-1"}, [BLOCK_BYTES], "earlier life"),
        ({"request_id": "another"}, [BLOCK_BYTES], "another request"),
        ({"last_layer": 1}, [BLOCK_BYTES], "other layers"),
        ({}, [BLOCK_BYTES - 8], "another size"),
        ({}, [BLOCK_BYTES, 8], "another size"),
        ({}, [], "another size"),
        ({}, [4, BLOCK_BYTES - 4], "another size"),
    ],
)
def test_a_frame_that_is_not_the_next_one_whole_has_a_fault(
    changes: dict[str, Any], sizes: Sequence[int], named: str
) -> None:
    frame = msgspec.structs.replace(FRAME, **changes)

    assert named in fault_in_frame(reading(), frame, parts(*sizes))
