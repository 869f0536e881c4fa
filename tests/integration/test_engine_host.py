"""One real engine host under a planner of ours: reports up, policies down, requests."""

import itertools
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from vllm import SamplingParams
from vllm.v1.engine import EngineCoreRequest

from shared.engine.wire import decode_outputs, encode_request
from shared.kv_transfer.settings import PORT_KEY, HolderPort
from shared.models.tiny import make_tiny_model
from shared.rpc import slos_pb2 as pb
from shared.rpc.slos_pb2_grpc import (
    EngineStub,
    PlannerServicer,
    add_PlannerServicer_to_server,
)
from tests.integration.node import START_LIMIT_S, free_ports, pids_with_text, wait_until

pytestmark = [pytest.mark.engines, pytest.mark.timeout(START_LIMIT_S + 120)]

SPECULATION_TOKENS = 4
GREEDY = {"temperature": 0}
_VERSIONS = itertools.count(2)  # of policies, the first of which an engine gets as it attaches
PROMPT = [7 + i % 5 for i in range(300)]  # it repeats itself, so that n-gram drafts come


@dataclass(slots=True)
class RecordingPlanner(PlannerServicer):
    """Accepts every engine, keeps what it reports, sends the policies that the test puts in."""

    registered: list[pb.EngineDescription] = field(default_factory=list)
    reports: list[pb.StepReport] = field(default_factory=list)
    policies: "queue.Queue[pb.Policy]" = field(default_factory=queue.Queue)

    def Attach(  # noqa: N802 - gRPC's name
        self, request_iterator: Iterator[pb.EngineMessage], context: grpc.ServicerContext
    ) -> Iterator[pb.PlannerMessage]:
        self.registered.append(next(request_iterator).registration)
        yield pb.PlannerMessage(verdict=pb.RegistrationVerdict(accepted=True))
        yield pb.PlannerMessage(policy=pb.Policy(version=1))
        threading.Thread(target=self._read, args=(request_iterator,), daemon=True).start()
        while context.is_active():
            try:
                yield pb.PlannerMessage(policy=self.policies.get(timeout=0.1))
            except queue.Empty:
                continue

    def _read(self, messages: Iterator[pb.EngineMessage]) -> None:
        try:
            for message in messages:
                self.reports.extend(message.reports.reports)
        except grpc.RpcError:  # the engine has gone
            return


@dataclass(frozen=True, slots=True)
class Host:
    """The running host, its planner and a client of its own."""

    planner: RecordingPlanner
    engine: EngineStub
    process: "subprocess.Popen[bytes]"

    def generate(
        self,
        name: str,
        *,
        max_tokens: int = 20,
        terms: pb.EngineTerms | None = None,
        transfer: dict[str, Any] | None = None,
        sampling: dict[str, Any] = GREEDY,
    ) -> tuple[list[int], float]:
        """The tokens, and when the first of them came."""
        params = SamplingParams(max_tokens=max_tokens, ignore_eos=True, **sampling)
        params.extra_args = {"kv_transfer_params": transfer} if transfer else None
        request = pb.GenerateRequest(
            request=encode_request(core_request(name, params)), terms=terms
        )
        tokens: list[int] = []
        first_at_s = 0.0
        for reply in self.engine.Generate(request, timeout=60):
            first_at_s = first_at_s or time.monotonic()  # noqa: TID251 - real time
            for output in decode_outputs(reply.outputs):
                tokens += output.new_token_ids
        return tokens, first_at_s

    def set_policy(self, policy: pb.Policy) -> None:
        """In force once the engine has had the time to read it."""
        policy.version = next(_VERSIONS)
        self.planner.policies.put(policy)
        time.sleep(0.5)

    def reported(self, name: str) -> list[pb.StepReport]:
        """The reports up to the one that says the request has left."""
        wait_until(lambda: any(name in each.finished for each in self.planner.reports), 5)
        taken, self.planner.reports[:] = list(self.planner.reports), []
        return taken


def core_request(name: str, params: SamplingParams) -> EngineCoreRequest:
    return EngineCoreRequest(
        request_id=name,
        prompt_token_ids=[11 + sum(name.encode()) % 200, *PROMPT],
        mm_features=None,
        sampling_params=params,
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=f"{name} {time.monotonic()}",  # noqa: TID251 - no prefix is to be found cached
        data_parallel_rank=None,
    )


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("engine")
    ports = free_ports()[0]
    planner = RecordingPlanner()  # type: ignore[abstract] # an engine makes one of its calls
    server = grpc.server(ThreadPoolExecutor(8))
    add_PlannerServicer_to_server(planner, server)
    server.add_insecure_port(f"127.0.0.1:{ports.planner}")
    server.start()
    own = ports.engines[0]
    flags = {
        "model": make_tiny_model(folder / "model"),
        "served-model-name": "tiny",
        "port": own.rpc,
        "kv-port": own.kv,
        "nixl-port": own.nixl,
        "metrics-port": own.metrics,
        "planner": f"127.0.0.1:{ports.planner}",
        "kv-cache-gib": 0.2,
        "speculation-tokens": SPECULATION_TOKENS,
        "run-dir": folder,
    }
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.decode", *words], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: _attached(planner, process, folder / "log"), START_LIMIT_S)
        with grpc.insecure_channel(f"127.0.0.1:{own.rpc}") as channel:
            yield Host(planner, EngineStub(channel), process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        server.stop(0)
    assert pids_with_text(str(folder)) == []


def _attached(planner: RecordingPlanner, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    return bool(planner.registered)


def test_a_registration_says_all_that_placement_needs(host: Host) -> None:
    (engine,) = host.planner.registered

    assert engine.role == pb.ROLE_DECODE
    assert engine.model == "tiny"
    assert engine.vllm_version
    assert engine.block_size_tokens == 32
    assert engine.kv_blocks > 100
    assert engine.kv_bytes_per_token > 0
    assert engine.max_speculation_tokens == SPECULATION_TOKENS
    assert engine.kv_address.transport == "nixl"
    assert engine.kv_address.port > 0


def test_step_reports_account_for_every_token(host: Host) -> None:
    tokens, _ = host.generate("account")

    reports = host.reported("account")
    # The step that ends the prompt samples the first token; each decode token gives one more.
    assert sum(each.prefill_tokens for each in reports) == len(PROMPT) + 1
    given = 1 + sum(each.decode_tokens + each.accepted_tokens for each in reports)
    assert len(tokens) == 20
    assert 20 <= given <= 20 + SPECULATION_TOKENS  # the last draft may reach past the end
    assert all(each.duration_s > 0 for each in reports if each.prefill_tokens)
    assert reports[-1].running == reports[-1].waiting == 0


def test_a_policy_bounds_every_step_and_changes_no_token(host: Host) -> None:
    free, _ = host.generate("bound")
    host.reported("bound")
    host.set_policy(pb.Policy(max_step_tokens=64))

    bounded, _ = host.generate("bound")

    reports = host.reported("bound")
    host.set_policy(pb.Policy())
    assert bounded == free
    assert max(each.prefill_tokens + each.decode_tokens for each in reports) <= 64
    assert sum(each.prefill_tokens > 0 for each in reports) >= 5


def test_a_seeded_answer_is_the_same_in_however_many_steps_its_prompt_is_computed(
    host: Host,
) -> None:
    """Without drafts: what is drawn for those depends on their number."""
    seeded = {"temperature": 0.8, "seed": 7}
    host.set_policy(pb.Policy(speculation_tokens=0))
    at_once, _ = host.generate("seeded", sampling=seeded)
    host.reported("seeded")
    host.set_policy(pb.Policy(speculation_tokens=0, max_step_tokens=64))

    in_steps, _ = host.generate("seeded", sampling=seeded)

    reports = host.reported("seeded")
    host.set_policy(pb.Policy())
    assert sum(each.prefill_tokens > 0 for each in reports) >= 5
    assert in_steps == at_once


def test_a_policy_cuts_speculation_and_changes_no_token(host: Host) -> None:
    free, _ = host.generate("speculate", max_tokens=40)
    drafted = sum(each.speculated_tokens for each in host.reported("speculate"))
    host.set_policy(pb.Policy(speculation_tokens=0))

    plain, _ = host.generate("speculate", max_tokens=40)

    cut = sum(each.speculated_tokens for each in host.reported("speculate"))
    host.set_policy(pb.Policy())
    assert plain == free
    assert drafted > 0
    assert cut == 0


def test_kv_that_cannot_be_fetched_is_computed_here_and_counted(host: Host) -> None:
    expected, _ = host.generate("fetch")
    host.reported("fetch")
    nobody = free_ports()[0].gateway  # nothing listens there
    transfer = {
        "do_remote_prefill": True,
        "do_remote_decode": False,
        "remote_engine_id": "gone",
        "remote_request_id": "gone-1",
        "remote_host": "127.0.0.1",
        "remote_port": nobody,
        "remote_block_ids": [list(range(1, 11))],
        "remote_num_tokens": len(PROMPT) + 1,
        "tp_size": 1,
        PORT_KEY: HolderPort(host="127.0.0.1", port=nobody, carriers=("nixl",)).as_plain(),
    }

    got, _ = host.generate("fetch", transfer=transfer)

    reports = host.reported("fetch")
    assert got == expected
    assert sum(each.kv_transfers_failed for each in reports) == 1
    (told,) = [one for each in reports for one in each.kv_transfers]
    assert (told.request_id, told.peer_engine_id, told.transport) == ("fetch", "gone", "nixl")
    assert told.outcome not in ("", "used")
    assert sum(each.prefill_tokens for each in reports) == len(PROMPT) + 1


@pytest.mark.parametrize("transfer", [{"do_remote_prefill": True}, {"do_remote_prefill": "yes"}])
def test_transfer_parameters_that_name_nothing_are_refused_and_the_engine_goes_on(
    host: Host, transfer: dict[str, Any]
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        host.generate("nowhere", transfer=transfer)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "remote_engine_id" in str(refused.value.details())
    assert host.generate("goes on")[0]


def test_the_earlier_deadline_is_served_first(host: Host) -> None:
    host.set_policy(pb.Policy(max_step_tokens=2))
    with ThreadPoolExecutor(2) as pool:
        patient = pool.submit(host.generate, "patient", max_tokens=2)
        time.sleep(0.05)
        urgent = pool.submit(
            host.generate, "urgent", max_tokens=2, terms=pb.EngineTerms(ttft_s=20.0)
        )
        patient_at_s, urgent_at_s = patient.result()[1], urgent.result()[1]
    host.set_policy(pb.Policy())

    assert urgent_at_s < patient_at_s


def test_a_client_that_leaves_frees_its_blocks(host: Host) -> None:
    params = SamplingParams(temperature=0, max_tokens=1500, ignore_eos=True)
    call = host.engine.Generate(
        pb.GenerateRequest(request=encode_request(core_request("leaves", params)))
    )
    next(iter(call))

    call.cancel()  # type: ignore[no-untyped-call] # the stubs lack its types

    def all_free() -> bool:
        health = host.engine.Health(pb.HealthRequest(), timeout=5)
        return health.running == 0 and health.free_kv_blocks == health.kv_blocks

    assert wait_until(all_free, 5) < 1


def test_an_id_that_runs_already_is_refused(host: Host) -> None:
    params = SamplingParams(temperature=0, max_tokens=1000, ignore_eos=True)
    request = pb.GenerateRequest(request=encode_request(core_request("twice", params)))
    first = host.engine.Generate(request)
    next(iter(first))

    with pytest.raises(grpc.RpcError) as refused:
        next(iter(host.engine.Generate(request, timeout=10)))

    first.cancel()  # type: ignore[no-untyped-call] # the same
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS


def test_a_request_for_an_earlier_start_of_the_engine_is_refused(host: Host) -> None:
    params = SamplingParams(temperature=0, max_tokens=2)
    request = pb.GenerateRequest(
        request=encode_request(core_request("earlier", params)), engine_id="an earlier start"
    )

    with pytest.raises(grpc.RpcError) as refused:
        next(iter(host.engine.Generate(request, timeout=10)))

    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_bytes_that_are_no_request_are_refused_with_the_likely_cause(host: Host) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        next(iter(host.engine.Generate(pb.GenerateRequest(request=[b"\x01"]), timeout=10)))

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "same version" in str(refused.value.details())


def test_a_drained_engine_is_empty_and_takes_nothing_new(host: Host) -> None:
    left = host.engine.Drain(pb.DrainRequest(limit_s=10), timeout=20).left_over

    with pytest.raises(grpc.RpcError) as refused:
        host.generate("late")

    assert left == 0
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert not host.engine.Health(pb.HealthRequest(), timeout=5).serving
