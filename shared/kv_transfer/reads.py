"""The state of a transfer at its reader: request, progress and result."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.kv_transfer.layout import Bytes, FrameOfBlocks
from shared.kv_transfer.messages import Frame


class ReadOutcome(StrEnum):
    """How a transfer ended. The blocks may be used only after OK."""

    OK = "ok"
    LOST = "lost"  # not held until the end, refused by the holder, or the connection broke
    STALLED = "stalled"
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True, kw_only=True)
class KvPeer:
    """A holder: the KV port of one worker, and its engine id (`epoch`), new at every start."""

    epoch: str
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """Blocks of one request: `remote_blocks` at the holder, `local_blocks` here, by KV cache group.

    `readers` is the number of workers that read from this holder's worker.
    """

    request_id: str
    remote_request_id: str
    peer: KvPeer
    remote_blocks: Sequence[Sequence[int]] = ()
    local_blocks: Sequence[Sequence[int]] = ()
    readers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadResult:
    """One ended transfer, or the answer to a confirmation (`moved_bytes` 0)."""

    request_id: str
    outcome: ReadOutcome
    moved_bytes: int
    seconds: float
    reason: str = ""


@dataclass(slots=True, kw_only=True)
class Reading:
    """A fetch in progress. `frames` are the places of its frames here, in order."""

    request: ReadRequest
    began_s: float
    last_heard_s: float
    frames: list[FrameOfBlocks]
    number: int = 0
    moved_bytes: int = 0
    consumed: int = 0  # frames since the last credit


@dataclass(slots=True, kw_only=True)
class Asking:
    """A pending confirmation."""

    request: ReadRequest
    began_s: float
    asked_s: float
    moved_bytes: int


def fault_in_frame(reading: Reading, frame: Frame, parts: Sequence[Bytes]) -> str:
    """What is wrong with a frame, apart from its checksum; empty if it is the next one."""
    request = reading.request
    if (frame.epoch, frame.request_id) != (request.peer.epoch, request.remote_request_id):
        return "A frame of another request or of an earlier life of the holder came."
    if frame.number != reading.number:
        return f"Frame {frame.number} came where {reading.number} was due."
    own = reading.frames[reading.number]
    if (frame.first_layer, frame.last_layer) != (own.first_layer, own.last_layer):
        return "A frame of other layers came."
    if sum(len(one) for one in parts) != own.size_bytes or any(len(one) % 8 for one in parts):
        return "A frame of another size came."
    return ""
