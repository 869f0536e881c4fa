"""Renders the result of `bench kv` as a JSON object or a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from services.bench.kv_layout import KvLayout
from services.bench.kv_measure import Moves
from services.bench.spread import Spread

NIXL, ZMQ, CURVE, COPY, TCP = "nixl", "zmq", "zmq_curve", "memory_copy", "tcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class KvRow:
    """All transports for one prompt length. A ratio is one speed over another, at p50."""

    prompt_tokens: int
    blocks: int
    descriptors: int
    moved_bytes: int
    spreads: Mapping[str, Spread]

    def mb_per_s(self, way: str) -> float:
        return self.moved_bytes / 1e3 / self.spreads[way].p50_ms

    def over(self, way: str, other: str) -> float:
        """How many times as fast `way` is as `other`."""
        return self.spreads[other].p50_ms / self.spreads[way].p50_ms

    def as_json(self) -> dict[str, Any]:
        ways = {
            way: {**spread.as_json(), "mb_per_s": round(self.mb_per_s(way), 1)}
            for way, spread in self.spreads.items()
        }
        return {
            "prompt_tokens": self.prompt_tokens,
            "blocks": self.blocks,
            "descriptors": self.descriptors,
            "bytes": self.moved_bytes,
            **ways,
            "nixl_over_memory_copy": round(self.over(NIXL, COPY), 3),
            "nixl_over_tcp": round(self.over(NIXL, TCP), 3),
            "zmq_over_tcp": round(self.over(ZMQ, TCP), 3),
            "curve_over_zmq": round(self.over(CURVE, ZMQ), 3),
        }


def make_rows(layout: KvLayout, moves: Moves) -> list[KvRow]:
    return [
        KvRow(
            prompt_tokens=tokens,
            blocks=layout.blocks_of(tokens),
            descriptors=layout.layers * layout.blocks_of(tokens),
            moved_bytes=layout.bytes_of(tokens),
            spreads={way: Spread.of(times) for way, times in ways.items()},
        )
        for tokens, ways in moves.times_s.items()
    ]


def make_table(rows: Sequence[KvRow], title: str) -> Table:
    table = Table(title=title)
    for name in ("prompt tokens", "MB"):
        table.add_column(name, justify="right")
    for way in ("NIXL", "ZMQ", "CURVE", "copy", "TCP"):
        for unit in ("p50 ms", "p99 ms", "MB/s"):
            table.add_column(f"{way}\n{unit}", justify="right")
    for pair in ("NIXL\n/ TCP", "ZMQ\n/ TCP", "CURVE\n/ ZMQ"):
        table.add_column(pair, justify="right")
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: KvRow) -> list[str]:
    cells = [str(row.prompt_tokens), f"{row.moved_bytes / 1e6:.2f}"]
    for way in (NIXL, ZMQ, CURVE, COPY, TCP):
        spread = row.spreads[way]
        cells += [
            f"{spread.p50_ms:.2f}",
            f"{spread.p99_ms:.2f}",
            f"{row.mb_per_s(way):.0f}",
        ]
    pairs = ((NIXL, TCP), (ZMQ, TCP), (CURVE, ZMQ))
    return [*cells, *(f"{row.over(way, other):.2f}" for way, other in pairs)]
