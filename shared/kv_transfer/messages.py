"""The messages of an engine's KV port, as msgpack.

A reader sends `Fetch`, `Credit`, `Cancel`, `Confirm`, `Renew` and `Release`; the holder answers
with `Frame`, `Refused` and `Confirmed`. The epoch is the holder's engine id, which is new at every
start: a message for an earlier start at the same address is refused.
"""

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from shared.errors import SlosError


class BadMessage(SlosError):
    """The bytes are no message of this protocol."""


class _Message(msgspec.Struct, frozen=True, array_like=True, tag=True, kw_only=True):
    pass


class Fetch(_Message, frozen=True, array_like=True, tag="fetch"):
    """Asks for blocks. `layout` must equal the holder's signature; `credit` counts frames."""

    epoch: str
    request_id: str
    fetch_id: int
    layout: str
    blocks: list[list[int]]  # of each KV cache group
    credit: int


class Credit(_Message, frozen=True, array_like=True, tag="credit"):
    """Allows the holder to send `frames` more frames."""

    fetch_id: int
    frames: int


class Cancel(_Message, frozen=True, array_like=True, tag="cancel"):
    """Ends a fetch; the reader drops the rest."""

    fetch_id: int


class Confirm(_Message, frozen=True, array_like=True, tag="confirm"):
    """Asks whether the blocks were held until now; `readers` workers ask for the same request."""

    epoch: str
    request_id: str
    ask_id: int
    readers: int


class Renew(_Message, frozen=True, array_like=True, tag="renew"):
    """Extends the leases of requests that still wait at the reader."""

    epoch: str
    request_ids: list[str]


class Release(_Message, frozen=True, array_like=True, tag="release"):
    """Frees the blocks of requests that will not be fetched."""

    epoch: str
    request_ids: list[str]


class Frame(_Message, frozen=True, array_like=True, tag="frame"):
    """Whole blocks of the layers `first_layer` to `last_layer`, in the parts after this one.

    `number` counts the frames of the fetch from 0.
    """

    epoch: str
    request_id: str
    fetch_id: int
    number: int
    first_layer: int
    last_layer: int
    checksum: int


class Refused(_Message, frozen=True, array_like=True, tag="refused"):
    """Refuses a fetch, which ends with it."""

    fetch_id: int
    reason: str


class Confirmed(_Message, frozen=True, array_like=True, tag="confirmed"):
    """Answers Confirm: `held` if the blocks belonged to the request until this answer."""

    ask_id: int
    held: bool


ToHolder = Fetch | Credit | Cancel | Confirm | Renew | Release
ToReader = Frame | Refused | Confirmed

_Kind = TypeVar("_Kind")

_encode = msgspec.msgpack.Encoder().encode
_to_holder: "msgspec.msgpack.Decoder[ToHolder]" = msgspec.msgpack.Decoder(ToHolder)
_to_reader: "msgspec.msgpack.Decoder[ToReader]" = msgspec.msgpack.Decoder(ToReader)


def encode(message: ToHolder | ToReader) -> bytes:
    return _encode(message)


def decode_to_holder(parts: Sequence[bytes]) -> ToHolder:
    """Raises BadMessage."""
    message: ToHolder = _decode(_to_holder, parts)
    return message


def decode_to_reader(part: bytes) -> ToReader:
    """Raises BadMessage."""
    message: ToReader = _decode(_to_reader, [part])
    return message


def _decode(decoder: "msgspec.msgpack.Decoder[_Kind]", parts: Sequence[bytes]) -> _Kind:
    if len(parts) != 1:
        raise BadMessage(f"A message of the KV port has one part, this one {len(parts)}.")
    try:
        message: _Kind = decoder.decode(parts[0])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadMessage(f"Not a message of the KV port ({error}).") from error
    return message
