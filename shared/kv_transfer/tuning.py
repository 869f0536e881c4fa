"""The tuned numbers of KV transfers, with their reasons.

Measurements are from `slos-serve bench kv` on loopback.
"""

from typing import Final

FRAME_BYTES: Final = 1 << 20
"""Bytes of KV in one frame, sensible from 256 KiB to 2 MiB. Larger messages are several times
slower, since the receiver waits for fresh memory; smaller ones cost more messages."""

GATHER_BELOW_BYTES: Final = 128 << 10
"""Mean length of a frame's contiguous runs below which it is copied into one message part. With
runs of 48 KiB, gathering takes four fifths of the CPU time of separate parts, on both sides."""

CREDIT_FRAMES: Final = 8
"""Frames that a holder may send ahead of the reader: the bandwidth-delay product of 10 Gbit/s and
5 ms, about 6 MiB. The reader grants half of it at a time."""

MOST_CREDIT_FRAMES: Final = 32
"""The holder's limit on credit, whatever a reader grants: 32 MiB of views for each fetch."""

FETCHES_AT_ONCE: Final = 4
"""Fetches that one reader runs at the same time; others wait in order. It limits the reader's
memory to FETCHES_AT_ONCE * CREDIT_FRAMES * FRAME_BYTES, 32 MiB."""

MOST_FETCHES: Final = 256
"""Fetches that one holder serves at the same time, for all readers."""

STALL_LIMIT_S: Final = 10.0
"""Time without progress after which a transfer has failed and the prompt is computed again. It is
longer than the pauses of a starved machine and shorter than a client waits."""

CONFIRM_LIMIT_S: Final = 10.0
"""Time limit of the holder's confirmation that the blocks were held."""

NIXL_AGAIN_S: Final = 60.0
"""How long two engines use ZMQ after NIXL failed between them (`kv_transport: auto`)."""

LARGEST_KEPT_BYTES: Final = 4 << 20
"""Allocations up to this size, a few frames, come from memory that is kept when freed."""

KEPT_FREE_BYTES: Final = 128 << 20
"""Freed memory that the process keeps: a few times the most that readers hold."""

POLL_MS: Final = 200
"""The longest wait of an idle thread before it checks whether to end."""

LARGEST_MESSAGE_BYTES: Final = 16 << 20
"""Limit of a reader's message; block ids of the longest prompt take less than 1 MiB."""
