"""`slos-serve bench kv`: how fast KV moves over NIXL and ZMQ, beside a memory copy
and loopback TCP.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console

from services.bench.kv_layout import KvLayout
from services.bench.kv_measure import MemoryCopy, Mover, Moves
from services.bench.kv_options import KvOptions
from services.bench.kv_peer import PeerAddress, started_peer
from services.bench.kv_report import COPY, CURVE, NIXL, TCP, ZMQ, make_rows, make_table
from services.bench.machine import Machine
from services.bench.nixl_pair import NixlReader, NixlSide, set_ucx_environment
from services.bench.tcp_pair import TcpReader
from services.bench.zmq_pair import ZmqReader
from shared.clock import MonotonicClock
from shared.kv_transfer.curve import CurveKeys, new_keys
from shared.options import load
from shared.tables import for_tables


@dataclass(frozen=True, slots=True, kw_only=True)
class KvResult:
    """One run. `ucx` holds UCX's environment variables."""

    layout: KvLayout
    moves: Moves
    handshake_s: float
    ucx: dict[str, str]
    machine: Machine


def main(argv: Sequence[str]) -> int:
    """Measures and prints. Raises ConfigError, DeadlinePassed and errors of transfers."""
    options = load(
        KvOptions, section="bench_kv", argv=argv, environ=os.environ, prog="slos-serve bench kv"
    )
    result = measure(options)
    if options.json:
        print(json.dumps(as_json(result, options)))
    else:
        _print(result, options)
    return 0


def measure(options: KvOptions) -> KvResult:
    """Starts the peer process, moves blocks, and ends it."""
    machine, layout = Machine.read(), options.layout
    ucx = set_ucx_environment(options.ucx_tls)
    side = NixlSide.make("bench-decode", layout, layout.empty(), options.nixl_threads)
    keys = new_keys()
    with started_peer(layout, options.nixl_threads, options.limit_s, keys) as peer:
        moves, handshake_s = _move(options, side, peer, keys)
    return KvResult(layout=layout, moves=moves, handshake_s=handshake_s, ucx=ucx, machine=machine)


def _move(
    options: KvOptions, side: NixlSide, peer: PeerAddress, keys: CurveKeys
) -> tuple[Moves, float]:
    now, layout, memory = MonotonicClock().now, side.layout, side.memory
    nixl = NixlReader.connect(side, peer.metadata, peer.base_address, now, options.limit_s)
    tcp = TcpReader.connect(peer.tcp_port, memory, now, options.limit_s)
    copy = MemoryCopy(layout.filled(), memory, now)
    limit_s = options.limit_s
    plain = ZmqReader.connect(peer.zmq_port, layout, memory, now, limit_s)
    sealed = ZmqReader.connect(peer.curve_port, layout, memory, now, limit_s, keys)
    try:
        ways = {
            NIXL: nixl.read,
            ZMQ: plain.read,
            CURVE: sealed.read,
            COPY: copy.read,
            TCP: tcp.read,
        }
        mover = Mover(layout, memory, ways)
        return mover.run(options.prompt_tokens, options.rounds), nixl.handshake_s
    finally:
        tcp.close()
        plain.close()
        sealed.close()


def as_json(result: KvResult, options: KvOptions) -> dict[str, object]:
    return {
        "bench": "kv",
        "machine": result.machine.as_json(),
        "layout": {**asdict(result.layout), "dtype": options.dtype.value},
        "ucx": result.ucx,
        "nixl_threads": options.nixl_threads,
        "rounds": options.rounds,
        "handshake_ms": round(1000 * result.handshake_s, 3),
        "first_transfer_ms": round(1000 * result.moves.first_s[NIXL], 3),
        "rows": [row.as_json() for row in make_rows(result.layout, result.moves)],
    }


def _print(result: KvResult, options: KvOptions) -> None:
    console = Console()
    wide = for_tables(console)
    layout = result.layout
    title = (
        f"KV of {layout.layers} layers x {layout.kv_heads} heads x {layout.head_size}, "
        f"{options.dtype.value}, blocks of {layout.block_tokens} tokens"
    )
    wide.print(make_table(make_rows(layout, result.moves), title))
    console.print(
        f"NIXL: handshake {1000 * result.handshake_s:.1f} ms, first transfer "
        f"{1000 * result.moves.first_s[NIXL]:.1f} ms. {options.rounds} rounds. "
        f"{' '.join(f'{name}={value}' for name, value in result.ucx.items())}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(result.machine.line(), highlight=False, soft_wrap=True)
