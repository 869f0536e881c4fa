"""Every number that shapes a KV transfer over ZMQ, with its reason.

The measurements are those of `slos-serve bench kv` on loopback.
"""

from typing import Final

FRAME_BYTES: Final = 1 << 20
"""Bytes of KV in one frame, 256 KiB to 2 MiB: larger messages are several times slower, for the
receiver then waits for fresh memory; smaller ones pay the cost of a message more often."""

GATHER_BELOW_BYTES: Final = 128 << 10
"""Mean length of a frame's runs of bytes below which the frame is copied into one message part.
With runs of 48 KiB gathering takes four fifths of the processor time on both sides."""

CREDIT_FRAMES: Final = 8
"""Frames that a reader lets the holder send ahead: the bandwidth times the delay of 10 Gbit/s over
5 ms, about 6 MiB, and one half of it is granted anew at a time."""

MOST_CREDIT_FRAMES: Final = 32
"""What a holder allows at most, whatever a reader asks for: 32 MiB of views for each fetch."""

FETCHES_AT_ONCE: Final = 4
"""Fetches that one reader runs at the same time; the others wait in order. It bounds the reader's
memory to FETCHES_AT_ONCE * CREDIT_FRAMES * FRAME_BYTES, 32 MiB."""

MOST_FETCHES: Final = 256
"""Fetches that one holder serves at the same time, over all readers."""

STALL_LIMIT_S: Final = 10.0
"""A transfer without progress for so long has failed, and the prompt is computed again. Longer
than a starved machine stands still, shorter than a client waits."""

CONFIRM_LIMIT_S: Final = 10.0
"""The same for the holder's answer that the blocks were held."""

NIXL_AGAIN_S: Final = 60.0
"""How long a pair of engines stays on ZMQ after NIXL failed between them (`kv_transport: auto`)."""

LARGEST_KEPT_BYTES: Final = 4 << 20
"""Allocations up to this size come from memory that is kept when it is freed: some frames."""

KEPT_FREE_BYTES: Final = 128 << 20
"""How much freed memory the process keeps: what readers hold at most, a few times over."""

POLL_MS: Final = 200
"""How often an idle thread looks whether it is to end."""

LARGEST_MESSAGE_BYTES: Final = 16 << 20
"""A reader's message: block ids of the longest prompt take less than 1 MiB."""
