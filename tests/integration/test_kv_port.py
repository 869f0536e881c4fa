"""Holder and reader over real sockets, without an engine."""

import itertools
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import zmq

from shared.cluster_secret import new_secret, write_secret
from shared.errors import ConfigError
from shared.kv_transfer.curve import CurveKeys, keys_from
from shared.kv_transfer.holder import KvHolder
from shared.kv_transfer.layout import BlockLayout, Region
from shared.kv_transfer.leases import LeaseTable
from shared.kv_transfer.memory import HostMemory
from shared.kv_transfer.messages import Confirm, Fetch, Frame, decode_to_reader, encode
from shared.kv_transfer.reader import KvReader
from shared.kv_transfer.reads import KvPeer, ReadOutcome, ReadRequest, ReadResult
from shared.kv_transfer.release import LeaseReleaser
from shared.kv_transfer.tuning import (
    CREDIT_FRAMES,
    FETCHES_AT_ONCE,
    FRAME_BYTES,
    MOST_CREDIT_FRAMES,
    STALL_LIMIT_S,
)
from shared.ports import LOOPBACK, FreePorts
from tests.limits import ANSWER_LIMIT_S

LAYERS, BLOCKS, BLOCK_BYTES = 6, 64, 64 << 10


class Clock:
    """Real time, until a test moves it on."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s  # noqa: TID251 - real threads live in real time


def memory(seed: int) -> HostMemory:
    layout = BlockLayout(
        regions=tuple(
            Region(
                layer=layer,
                group=0,
                memory=0,
                offset_bytes=layer * BLOCKS * BLOCK_BYTES,
                stride_bytes=BLOCK_BYTES,
                block_bytes=BLOCK_BYTES,
            )
            for layer in range(LAYERS)
        ),
        blocks=BLOCKS,
    )
    size = LAYERS * BLOCKS * BLOCK_BYTES
    data = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    return HostMemory(layout, [data])


def blocks_of(of: HostMemory, blocks: list[int]) -> bytes:
    frames = of.layout.frames([blocks], FRAME_BYTES)
    return b"".join(part.tobytes() for frame in frames for part in of.read(frame)[0])


@dataclass
class Rig:
    """A holder of epoch `life-1` with the leases of `r0`, `r1` and so on, and a reader."""

    holder: KvHolder
    reader: KvReader
    source: HostMemory
    target: HostMemory
    clock: Clock

    @property
    def peer(self) -> KvPeer:
        return KvPeer(epoch=self.holder.epoch, host=LOOPBACK, port=self.holder.port)

    def hold(self, *request_ids: str, for_s: float = 60.0) -> None:
        self.holder.leases.expect(request_ids)
        for request_id in request_ids:
            self.holder.leases.grant(request_id, expires_at_s=self.clock() + for_s)

    def request(self, request_id: str, count: int = 20, **changes: object) -> ReadRequest:
        asked = ReadRequest(
            request_id=f"local-{request_id}",
            remote_request_id=request_id,
            peer=self.peer,
            remote_blocks=[list(range(count))],
            local_blocks=[list(range(BLOCKS - count, BLOCKS))],
        )
        return replace(asked, **changes)  # type: ignore[arg-type] # fields by name

    def results(self, count: int) -> list[ReadResult]:
        found: list[ReadResult] = []

        def are_there() -> bool:
            found.extend(self.reader.take_results())
            return len(found) >= count

        wait_until(are_there)
        return found

    def read(self, request: ReadRequest) -> ReadResult:
        self.reader.fetch(request)
        (result,) = self.results(1)
        return result


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(int(ANSWER_LIMIT_S / 0.01)):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError(f"still not after {ANSWER_LIMIT_S} s")


@contextmanager
def running(keys: CurveKeys | None = None, reader_keys: CurveKeys | None = None) -> Iterator[Rig]:
    clock = Clock()
    with FreePorts() as ports:
        port = ports.pick()
    holder = KvHolder(LOOPBACK, port, "life-1", LeaseTable(extension_s=20.0), clock, keys)
    reader = KvReader(clock, reader_keys if reader_keys is not None else keys)
    rig = Rig(holder, reader, memory(1), memory(2), clock)
    with ExitStack() as stack:
        stack.callback(holder.close)
        holder.start(rig.source)
        stack.callback(reader.close)
        reader.start(rig.target)
        yield rig


@pytest.fixture
def rig() -> Iterator[Rig]:
    with running() as made:
        yield made


def test_blocks_arrive_as_they_were_and_end_their_lease(rig: Rig) -> None:
    rig.hold("r0")

    result = rig.read(rig.request("r0"))

    assert result.outcome is ReadOutcome.OK
    assert result.moved_bytes == 20 * LAYERS * BLOCK_BYTES
    expected = blocks_of(rig.source, list(range(20)))
    assert blocks_of(rig.target, list(range(BLOCKS - 20, BLOCKS))) == expected
    assert [one for one, _ in rig.holder.leases.take_ended(rig.clock())] == ["r0"]


def test_many_transfers_at_once_all_end_rightly(rig: Rig) -> None:
    count = 3 * FETCHES_AT_ONCE
    rig.hold(*(f"r{n}" for n in range(count)))
    for n in range(count):
        local = list(range(4 * n, 4 * n + 4))
        rig.reader.fetch(rig.request(f"r{n}", 4, local_blocks=[local]))

    results = rig.results(count)

    assert {one.outcome for one in results} == {ReadOutcome.OK}
    for n in range(count):
        assert blocks_of(rig.target, list(range(4 * n, 4 * n + 4))) == blocks_of(
            rig.source, [0, 1, 2, 3]
        )


def test_an_expired_lease_is_lost_even_when_every_block_has_arrived(rig: Rig) -> None:
    rig.hold("r0", for_s=5.0)
    rig.clock.ahead_s += 6.0
    rig.holder.leases.take_ended(rig.clock())

    assert rig.read(rig.request("r0")).outcome is ReadOutcome.LOST


def test_blocks_that_are_freed_while_they_move_are_not_used(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.hold("r0", for_s=5.0)
    read = rig.source.read

    def freeing(frame: object) -> object:
        rig.clock.ahead_s = 6.0
        rig.holder.leases.take_ended(rig.clock())
        return read(frame)  # type: ignore[arg-type] # whatever the holder asks for

    monkeypatch.setattr(rig.source, "read", freeing)
    result = rig.read(rig.request("r0"))

    assert result.outcome is ReadOutcome.LOST
    assert result.moved_bytes == 20 * LAYERS * BLOCK_BYTES


def test_another_life_of_the_holder_neither_sends_nor_confirms(rig: Rig) -> None:
    rig.hold("r0")
    earlier = replace(rig.peer, epoch="life-0")

    assert rig.read(rig.request("r0", peer=earlier)).outcome is ReadOutcome.LOST
    rig.reader.confirm(rig.request("r0", peer=earlier), 0, rig.clock())
    assert rig.results(1)[0].outcome is ReadOutcome.LOST
    assert rig.holder.leases.is_held("r0")


def test_a_changed_byte_is_found_and_the_blocks_are_not_used(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.hold("r0")
    read = rig.source.read
    monkeypatch.setattr(rig.source, "read", lambda frame: (read(frame)[0], 0))

    result = rig.read(rig.request("r0"))

    assert result.outcome is ReadOutcome.CORRUPT
    assert "checksum" in result.reason


def test_a_holder_that_falls_silent_ends_the_transfer_at_the_limit(rig: Rig) -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        nobody = replace(rig.peer, port=silent.getsockname()[1])
        rig.reader.fetch(rig.request("r0", peer=nobody))
        time.sleep(0.1)
        rig.clock.ahead_s += STALL_LIMIT_S + 1.0

        assert rig.results(1)[0].outcome is ReadOutcome.STALLED


def test_a_holder_that_is_not_there_is_lost_before_the_limit(rig: Rig) -> None:
    with FreePorts() as ports:
        nowhere = replace(rig.peer, port=ports.pick())

    assert rig.read(rig.request("r0", peer=nowhere)).outcome is ReadOutcome.LOST
    rig.reader.confirm(rig.request("r0", peer=nowhere), 0, rig.clock())
    assert rig.results(1)[0].outcome is ReadOutcome.LOST


@contextmanager
def cutting(port: int, after_bytes: int) -> Iterator[int]:
    """A port before `port`. The first connection is cut once it has brought `after_bytes`."""
    ends: list[socket.socket] = []

    def serve() -> None:
        for limit_bytes in (after_bytes, math.inf):
            with server.accept()[0] as near, socket.create_connection((LOOPBACK, port)) as far:
                ends[:] = near, far
                there = threads.submit(forward, near, far, math.inf)
                forward(far, near, limit_bytes)
                there.result()

    def forward(source: socket.socket, to: socket.socket, limit_bytes: float) -> None:
        sent_bytes = 0
        with suppress(ConnectionError):
            while sent_bytes < limit_bytes and (part := source.recv(1 << 16)):
                to.sendall(part)
                sent_bytes += len(part)
        shut_down()

    def shut_down() -> None:
        for one in ends:
            with suppress(OSError):  # it is shut down already
                one.shutdown(socket.SHUT_RDWR)

    with socket.create_server((LOOPBACK, 0)) as server, ThreadPoolExecutor() as threads:
        served = threads.submit(serve)
        yield server.getsockname()[1]
        shut_down()
        served.result()


def test_a_connection_that_is_cut_in_mid_transfer_loses_that_transfer_alone(rig: Rig) -> None:
    rig.hold("r0", "r1")
    with cutting(rig.holder.port, after_bytes=3 * FRAME_BYTES) as port:
        through = replace(rig.peer, port=port)

        cut = rig.read(rig.request("r0", peer=through))
        whole = rig.read(rig.request("r1", peer=through))

    assert cut.outcome is ReadOutcome.LOST
    assert 0 < cut.moved_bytes < whole.moved_bytes
    assert whole.outcome is ReadOutcome.OK
    assert rig.holder.leases.is_held("r0")


def test_blocks_of_another_shape_are_refused(rig: Rig) -> None:
    rig.hold("r0")
    beyond = rig.request("r0", remote_blocks=[[BLOCKS]], local_blocks=[[0]])

    assert rig.read(beyond).outcome is ReadOutcome.LOST
    assert rig.read(rig.request("r0")).outcome is ReadOutcome.OK


def test_a_release_frees_at_once_and_a_renewal_keeps(rig: Rig) -> None:
    rig.hold("r0", "r1", for_s=5.0)
    releaser = LeaseReleaser(LOOPBACK, rig.holder.port, 1, "life-1")
    try:
        releaser.release(["r0"])
        wait_until(lambda: not rig.holder.leases.is_held("r0"))
    finally:
        releaser.close()
    rig.reader.renew(rig.peer, ["r1"])
    time.sleep(0.2)
    rig.clock.ahead_s += 10.0

    assert [one for one, _ in rig.holder.leases.take_ended(rig.clock())] == ["r0"]


@contextmanager
def raw_peer(rig: Rig) -> Iterator["zmq.Socket[bytes]"]:
    context = zmq.Context()
    try:
        caller = context.socket(zmq.DEALER)
        caller.setsockopt(zmq.RCVTIMEO, int(1000 * ANSWER_LIMIT_S))
        caller.connect(f"tcp://{LOOPBACK}:{rig.holder.port}")
        yield caller
    finally:
        context.destroy(linger=0)


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"\xff" * 40],
        [b"a", b"b"],
        [encode(Confirm(epoch="life-1", request_id="r0", ask_id=0, readers=1))[:-1]],
    ],
)
def test_what_is_no_message_is_dropped_and_the_port_goes_on(rig: Rig, parts: list[bytes]) -> None:
    rig.hold("r0")
    with raw_peer(rig) as caller:
        caller.send_multipart(parts)

        assert rig.read(rig.request("r0")).outcome is ReadOutcome.OK


def test_a_reader_that_consumes_nothing_gets_no_more_than_its_credit(rig: Rig) -> None:
    rig.hold("r0")
    fetch = Fetch(
        epoch="life-1",
        request_id="r0",
        fetch_id=1,
        layout=rig.source.layout.signature,
        blocks=[[n % BLOCKS for n in range(50 * 16)]],
        credit=1_000_000,
    )
    with raw_peer(rig) as caller:
        caller.send(encode(fetch))
        got = 0
        caller.setsockopt(zmq.RCVTIMEO, 1500)
        for _ in itertools.count():
            try:
                head, *_parts = caller.recv_multipart()
            except zmq.Again:
                break
            assert isinstance(decode_to_reader(head), Frame)
            got += 1

    assert got == MOST_CREDIT_FRAMES


def test_the_reader_grants_credit_for_what_it_consumed(rig: Rig) -> None:
    rig.hold("r0")
    many = [n % BLOCKS for n in range(8 * BLOCKS)]

    result = rig.read(rig.request("r0", remote_blocks=[many], local_blocks=[many]))

    assert result.outcome is ReadOutcome.OK
    assert result.moved_bytes > CREDIT_FRAMES * FRAME_BYTES


def test_a_shared_secret_lets_engines_through_and_nothing_else(tmp_path: Path) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    for one in (ours, other):
        write_secret(one, new_secret())
    keys, stranger = keys_from(str(ours)), keys_from(str(other))
    assert keys is not None
    assert keys == keys_from(str(ours))
    with running(keys) as rig:
        rig.hold("r0")
        with raw_peer(rig) as plain:
            plain.send(encode(Confirm(epoch="life-1", request_id="r0", ask_id=0, readers=1)))
            assert rig.read(rig.request("r0")).outcome is ReadOutcome.OK
    with running(keys, stranger) as rig:
        rig.hold("r0")
        assert rig.read(rig.request("r0")).outcome is ReadOutcome.LOST
        assert rig.holder.leases.is_held("r0")


def test_a_taken_port_is_named_with_its_option(rig: Rig) -> None:
    second = KvHolder(LOOPBACK, rig.holder.port, "life-2", LeaseTable(extension_s=1.0), rig.clock)
    try:
        with pytest.raises(ConfigError, match="--kv-port"):
            second.start(rig.source)
    finally:
        second.close()


def test_both_ends_leave_no_thread_behind() -> None:
    with running():
        pass

    assert not [one for one in threading.enumerate() if one.name.startswith("kv-")]
