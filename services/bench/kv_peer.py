"""Runs the peer process that blocks are read from, over NIXL, ZMQ and TCP."""

import multiprocessing
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from services.bench.kv_layout import KvLayout
from services.bench.nixl_pair import NixlSide
from services.bench.tcp_pair import PeerGone, listen, serve_blocks
from services.bench.zmq_pair import start_holder
from shared.clock import MonotonicClock
from shared.errors import DeadlinePassed
from shared.kv_transfer.curve import CurveKeys

_END_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAddress:
    """The addresses and keys that the reading side needs."""

    metadata: bytes
    base_address: int
    tcp_port: int
    zmq_port: int
    curve_port: int


@contextmanager
def started_peer(
    layout: KvLayout, threads: int, limit_s: float, keys: CurveKeys
) -> Iterator[PeerAddress]:
    """Starts the peer and always ends it. Raises DeadlinePassed if it is not ready in time."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=(theirs, layout, threads, limit_s, keys), name="kv-peer", daemon=True
    )
    process.start()
    theirs.close()
    try:
        yield _first_words(ours, limit_s)
    finally:
        process.terminate()
        process.join(_END_LIMIT_S)
        process.kill()
        process.join(_END_LIMIT_S)
        ours.close()


def _first_words(pipe: Connection, limit_s: float) -> PeerAddress:
    if not pipe.poll(limit_s):
        raise DeadlinePassed(f"The other process was not ready within {limit_s:g} s.")
    try:
        address: PeerAddress = pipe.recv()
    except EOFError as error:
        raise PeerGone("The other process ended at its start; see its words above.") from error
    return address


def _serve(
    pipe: Connection, layout: KvLayout, threads: int, limit_s: float, keys: CurveKeys
) -> None:
    memory = layout.filled()
    side = NixlSide.make("bench-prefill", layout, memory, threads)
    now = MonotonicClock().now
    with ExitStack() as stack:
        listener = stack.enter_context(listen())
        plain, sealed = (start_holder(layout, memory, now, one) for one in (None, keys))
        stack.callback(plain.close)
        stack.callback(sealed.close)
        pipe.send(
            PeerAddress(
                metadata=side.metadata,
                base_address=side.base_address,
                tcp_port=listener.getsockname()[1],
                zmq_port=plain.port,
                curve_port=sealed.port,
            )
        )
        serve_blocks(listener, memory, limit_s)
