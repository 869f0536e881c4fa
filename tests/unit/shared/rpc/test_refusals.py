"""Which connections count as refused, and how the kernel and gRPC name a peer."""

import pytest

from shared.rpc.refusals import Arrivals, parse, peer_of

A, B = ("10.0.0.7", 5001), ("10.0.0.8", 5002)
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1FA4 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   1: 0700000A:1FA4 0800000A:138A 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0
   2: 0700000A:1FA4 0900000A:138B 06 00000000:00000000 00:00000000 00000000     0        0 3 1 0
   3: 0700000A:1FA5 0800000A:138C 01 00000000:00000000 00:00000000 00000000     0        0 4 1 0
   4: 0000000000000000FFFF00000700000A:1FA4 0000000000000000FFFF00000700000A:1389 01 0:0 00:0 0 0 0
   5: 00000000000000000000000001000000:1FA4 00000000000000000000000001000000:1389 01 0:0 00:0 0 0 0
"""


def test_a_connection_that_left_without_a_call_was_refused_and_is_told_of_once() -> None:
    arrivals = Arrivals()
    arrivals.arrive({A}, now=0.0)
    assert arrivals.refused(set(), now=2.0) == ["10.0.0.7"]
    arrivals.arrive({A, B}, now=3.0)
    assert arrivals.refused(set(), now=5.0) == ["10.0.0.8"]
    assert not arrivals.waits


def test_a_connection_with_a_call_or_that_stays_was_not_refused() -> None:
    arrivals = Arrivals()
    arrivals.arrive({A, B}, now=0.0)
    arrivals.accept(A)
    assert arrivals.refused({B}, now=2.0) == []
    assert arrivals.refused(set(), now=4.0) == []
    assert not arrivals.waits


def test_a_handshake_that_takes_its_time_is_looked_at_again() -> None:
    arrivals = Arrivals()
    arrivals.arrive({A}, now=1.9)
    assert arrivals.refused({A}, now=2.0) == []
    assert arrivals.waits
    assert arrivals.refused(set(), now=4.0) == ["10.0.0.7"]


def test_however_many_strangers_come_memory_and_log_are_bounded() -> None:
    arrivals, told = Arrivals(), 0
    for turn in range(10):
        arrivals.arrive({(f"10.{turn}.{n >> 8}.{n & 255}", 1) for n in range(1000)}, now=0.0)
        told += len(arrivals.refused(set(), now=2.0))
    assert told == 256


def test_the_kernels_table_names_the_peers_of_a_port() -> None:
    assert parse(TABLE, 0x1FA4) == {("10.0.0.8", 5002), ("10.0.0.7", 5001), ("::1", 5001)}
    assert parse(TABLE, 80) == frozenset()


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("ipv4:10.0.0.7:5001", ("10.0.0.7", 5001)),
        ("ipv6:%5B::1%5D:5001", ("::1", 5001)),
        ("unix:", ("", 0)),
    ],
)
def test_grpc_names_the_same_peers(text: str, peer: tuple[str, int]) -> None:
    assert peer_of(text) == peer
