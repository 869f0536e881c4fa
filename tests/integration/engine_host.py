"""One real engine host under a planner that only records."""

import itertools
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from vllm import SamplingParams
from vllm.v1.engine import EngineCoreRequest

from shared.engine.wire import decode_outputs, encode_request
from shared.models.tiny import make_tiny_model
from shared.rpc import slos_pb2 as pb
from shared.rpc.slos_pb2_grpc import (
    EngineStub,
    PlannerServicer,
    add_PlannerServicer_to_server,
)
from tests.integration.node import (
    KV_CACHE_GIB,
    free_ports,
    pids_with_text,
    wait_until,
)
from tests.limits import ANSWER_LIMIT_S, START_LIMIT_S

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
        for reply in self.engine.Generate(request, timeout=ANSWER_LIMIT_S):
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
        wait_until(
            lambda: any(name in each.finished for each in self.planner.reports), ANSWER_LIMIT_S
        )
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


@contextmanager
def engine_host(folder: Path, **flags: object) -> Iterator[Host]:
    """A decode engine with a tiny model, and `flags` beside those that every trial needs."""
    ports = free_ports()[0]
    planner = RecordingPlanner()  # type: ignore[abstract] # an engine makes one of its calls
    server = grpc.server(ThreadPoolExecutor(8))
    add_PlannerServicer_to_server(planner, server)
    server.add_insecure_port(f"127.0.0.1:{ports.planner}")
    server.start()
    own = ports.engines[0]
    all_flags = {
        "served-model-name": "tiny",
        "port": own.rpc,
        "kv-port": own.kv,
        "nixl-port": own.nixl,
        "metrics-port": own.metrics,
        "planner": f"127.0.0.1:{ports.planner}",
        "kv-cache-gib": KV_CACHE_GIB,
        "run-dir": folder,
        **{name.replace("_", "-"): value for name, value in flags.items()},
    }
    if "model" not in all_flags:
        all_flags["model"] = make_tiny_model(folder / "model")
    words = [word for key, value in all_flags.items() for word in (f"--{key}", str(value))]
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
