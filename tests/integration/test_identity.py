"""Parts with a cluster secret on real sockets: peers without it reach nothing."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.bench.stub_engine import StubEngine
from services.node.drain import DrainOptions, ask
from shared.clock import MonotonicClock
from shared.cluster_secret import new_secret, write_secret
from shared.errors import EngineUnreachable, PlannerUnavailable
from shared.ports import FreePorts
from shared.requests import Admission
from shared.rpc import slos_pb2 as pb
from shared.rpc.channels import PlannerClient, listen, open_channel
from shared.rpc.health import main as health
from shared.rpc.identity import Identity, identity_from
from shared.rpc.slos_pb2_grpc import PlannerStub, add_EngineServicer_to_server
from tests.integration.test_planner_service import attached, planner, until
from tests.limits import ANSWER_LIMIT_S
from tests.unit.planner.builders import make_engine, make_query

CALL_LIMIT_S = 2.0


@dataclass(frozen=True)
class WithoutCertificate(Identity):
    """A stranger that trusts the cluster and shows nothing of its own."""

    def for_channel(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.certificates.authority)


def secret_file(folder: Path, name: str) -> str:
    path = folder / name
    if not path.exists():
        write_secret(path, new_secret())
    return str(path)


def ours(folder: Path) -> Identity:
    made = identity_from(secret_file(folder, "ours"))
    assert made is not None
    return made


def no_secret(folder: Path) -> Identity | None:
    del folder
    return None


def another_secret(folder: Path) -> Identity | None:
    return identity_from(secret_file(folder, "theirs"))


def no_certificate(folder: Path) -> Identity | None:
    return WithoutCertificate(ours(folder).certificates)


Stranger = Callable[[Path], Identity | None]
strangers = pytest.mark.parametrize("stranger", [no_secret, another_secret, no_certificate])


@asynccontextmanager
async def client_of(
    port: int, identity: Identity | None, limit_s: float = ANSWER_LIMIT_S
) -> AsyncIterator[PlannerClient]:
    client = PlannerClient(f"127.0.0.1:{port}", identity, limit_s=limit_s)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def engine(identity: Identity | None) -> AsyncIterator[str]:
    server, port = listen("127.0.0.1", 0, identity)
    add_EngineServicer_to_server(StubEngine(make_engine("d0"), MonotonicClock()), server)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_parts_with_the_same_secret_work_together(tmp_path: Path) -> None:
    shared = secret_file(tmp_path, "ours")
    async with (
        planner(cluster_secret_file=shared) as port,
        client_of(port, identity_from(shared)) as one,
        client_of(port, identity_from(shared)) as gateway,
        attached(one, make_engine()),
    ):
        await until(gateway, {"d0"})
        assert (
            await gateway.place(make_query(), ANSWER_LIMIT_S)
        ).admission is not Admission.DEFERRED


def refused(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if "refused" in one.getMessage()]


@strangers
async def test_a_refused_peer_is_told_of_once(
    tmp_path: Path, stranger: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    async with planner(cluster_secret_file=secret_file(tmp_path, "ours")) as port:
        for _ in range(3):
            async with client_of(port, stranger(tmp_path), CALL_LIMIT_S) as rogue:
                with pytest.raises(PlannerUnavailable):
                    await rogue.scale()
        async with asyncio.timeout(ANSWER_LIMIT_S):
            while not refused(caplog):  # noqa: ASYNC110 - the log has no event
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.1)

    (line,) = refused(caplog)
    assert f"refused 127.0.0.1 at port {port}" in line


async def test_peers_with_the_secret_that_leave_soon_are_not_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with planner(cluster_secret_file=secret_file(tmp_path, "ours")) as port:
        for _ in range(3):
            async with client_of(port, ours(tmp_path)) as gateway:
                await gateway.scale()
        async with client_of(port, ours(tmp_path)) as gateway, attached(gateway, make_engine()):
            await asyncio.sleep(2.5)  # past the look that follows a connection

    assert not refused(caplog)


@strangers
async def test_a_rogue_engine_cannot_register(tmp_path: Path, stranger: Stranger) -> None:
    async with (
        planner(cluster_secret_file=secret_file(tmp_path, "ours")) as port,
        client_of(port, ours(tmp_path)) as gateway,
        client_of(port, stranger(tmp_path), CALL_LIMIT_S) as rogue,
    ):
        with pytest.raises(PlannerUnavailable):
            async with attached(rogue, make_engine("rogue")):
                pass
        await until(gateway, set())


@strangers
async def test_a_rogue_gateway_learns_and_changes_nothing(
    tmp_path: Path, stranger: Stranger
) -> None:
    async with (
        planner(cluster_secret_file=secret_file(tmp_path, "ours")) as port,
        client_of(port, stranger(tmp_path), CALL_LIMIT_S) as rogue,
    ):
        for call in (
            rogue.place(make_query(), CALL_LIMIT_S),
            rogue.settle([]),
            rogue.explain("d-1"),
            rogue.scale(),
        ):
            with pytest.raises(PlannerUnavailable):
                await call
        with pytest.raises(PlannerUnavailable):
            async with aclosing(rogue.watch()) as views:
                await anext(views)


@pytest.mark.parametrize("rogue", [no_secret, another_secret])
async def test_an_engine_does_not_register_with_a_rogue_planner(
    tmp_path: Path, rogue: Stranger
) -> None:
    rogue(tmp_path)
    other = "" if rogue is no_secret else secret_file(tmp_path, "theirs")
    async with (
        planner(cluster_secret_file=other) as port,
        client_of(port, ours(tmp_path)) as own,
    ):
        with pytest.raises(PlannerUnavailable):
            async with attached(own, make_engine()):
                pass


@pytest.mark.parametrize("file", ["", "theirs"])
async def test_a_stranger_cannot_drain_an_engine_and_a_peer_can(tmp_path: Path, file: str) -> None:
    async with engine(ours(tmp_path)) as address:
        theirs = DrainOptions(cluster_secret_file=file and secret_file(tmp_path, file), limit_s=0.0)
        with pytest.raises(EngineUnreachable, match="--cluster-secret-file"):
            await ask(address, theirs)
        peer = DrainOptions(cluster_secret_file=secret_file(tmp_path, "ours"), limit_s=0.0)
        assert await ask(address, peer) == 0


@dataclass(slots=True)
class Wire:
    """A proxy that keeps what the caller sends."""

    to_port: int
    sent: bytearray = field(default_factory=bytearray)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", self.to_port)
        await asyncio.gather(
            self._copy(reader, onward, self.sent), self._copy(there, writer, bytearray())
        )

    async def _copy(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: bytearray
    ) -> None:
        while data := await source.read(1 << 16):
            kept += data
            sink.write(data)
        sink.close()


async def test_copied_bytes_of_a_registration_are_of_no_use(
    tmp_path: Path,
) -> None:
    async with planner(cluster_secret_file=secret_file(tmp_path, "ours")) as port:
        wire = Wire(port)
        proxy = await asyncio.start_server(wire, "127.0.0.1", 0)
        async with client_of(port, ours(tmp_path)) as gateway:
            async with (
                client_of(proxy.sockets[0].getsockname()[1], ours(tmp_path)) as copied,
                attached(copied, make_engine("copied")),
            ):
                await until(gateway, {"copied"})
            await until(gateway, set())
            proxy.close()
            assert b"copied" not in wire.sent
            assert len(wire.sent) > 1000

            seen = asyncio.create_task(_names_seen(gateway))
            await asyncio.to_thread(_replay, port, bytes(wire.sent))
            seen.cancel()
            assert await asyncio.gather(seen, return_exceptions=True)
            await until(gateway, set())


async def _names_seen(gateway: PlannerClient) -> None:
    """Fails when any engine shows up."""
    async with aclosing(gateway.watch()) as views:
        async for view in views:
            assert not view


def _replay(port: int, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(CALL_LIMIT_S)
        connection.sendall(data)
        try:
            while connection.recv(1 << 16):  # until the planner ends it
                pass
        except (TimeoutError, ConnectionResetError):
            pass


async def test_probes_without_the_secret_learn_only_whether_a_part_serves(tmp_path: Path) -> None:
    shared = secret_file(tmp_path, "ours")
    with FreePorts() as ports:
        probe_port = ports.pick()
    async with (
        planner(cluster_secret_file=shared, health_port=probe_port) as port,
        open_channel(f"127.0.0.1:{probe_port}") as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_LIMIT_S)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await PlannerStub(channel).Scale(pb.ScaleRequest(), timeout=ANSWER_LIMIT_S)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

        address = f"127.0.0.1:{port}"
        assert await asyncio.to_thread(health, [address]) == 1
        with_secret = ["--cluster-secret-file", shared, address]
        assert await asyncio.to_thread(health, with_secret) == 0
