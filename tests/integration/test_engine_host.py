"""One real engine host under a planner of ours: reports up, policies down, requests."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from vllm import SamplingParams

from shared.engine.wire import encode_request
from shared.kv_transfer.settings import PORT_KEY, HolderPort
from shared.rpc import slos_pb2 as pb
from tests.integration.engine_host import PROMPT, Host, core_request, engine_host
from tests.integration.node import free_ports, wait_until
from tests.limits import ANSWER_LIMIT_S

pytestmark = pytest.mark.engines

SPECULATION_TOKENS = 4


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("engine")
    with engine_host(folder, speculation_tokens=SPECULATION_TOKENS) as started:
        yield started


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
    """On a busy machine the second request may come when the first one has ended: tried again."""
    host.set_policy(pb.Policy(max_step_tokens=2))
    for trial in range(5):
        with ThreadPoolExecutor(2) as pool:
            patient = pool.submit(host.generate, f"patient-{trial}", max_tokens=2)
            time.sleep(0.05)
            terms = pb.EngineTerms(ttft_s=20.0)
            urgent = pool.submit(host.generate, f"urgent-{trial}", max_tokens=2, terms=terms)
            is_first = urgent.result()[1] < patient.result()[1]
        if is_first:
            break
    host.set_policy(pb.Policy())

    assert is_first


def test_a_client_that_leaves_frees_its_blocks(host: Host) -> None:
    params = SamplingParams(temperature=0, max_tokens=1500, ignore_eos=True)
    call = host.engine.Generate(
        pb.GenerateRequest(request=encode_request(core_request("leaves", params)))
    )
    next(iter(call))

    call.cancel()  # type: ignore[no-untyped-call] # the stubs lack its types

    def all_free() -> bool:
        health = host.engine.Health(pb.HealthRequest(), timeout=ANSWER_LIMIT_S)
        return health.running == 0 and health.free_kv_blocks == health.kv_blocks

    wait_until(all_free, ANSWER_LIMIT_S)


def test_an_id_that_runs_already_is_refused(host: Host) -> None:
    params = SamplingParams(temperature=0, max_tokens=1000, ignore_eos=True)
    request = pb.GenerateRequest(request=encode_request(core_request("twice", params)))
    first = host.engine.Generate(request)
    next(iter(first))

    with pytest.raises(grpc.RpcError) as refused:
        next(iter(host.engine.Generate(request, timeout=ANSWER_LIMIT_S)))

    first.cancel()  # type: ignore[no-untyped-call] # the same
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS


def test_a_request_for_an_earlier_start_of_the_engine_is_refused(host: Host) -> None:
    params = SamplingParams(temperature=0, max_tokens=2)
    request = pb.GenerateRequest(
        request=encode_request(core_request("earlier", params)), engine_id="an earlier start"
    )

    with pytest.raises(grpc.RpcError) as refused:
        next(iter(host.engine.Generate(request, timeout=ANSWER_LIMIT_S)))

    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_bytes_that_are_no_request_are_refused_with_the_likely_cause(host: Host) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        next(
            iter(
                host.engine.Generate(pb.GenerateRequest(request=[b"\x01"]), timeout=ANSWER_LIMIT_S)
            )
        )

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "same version" in str(refused.value.details())


def test_a_drained_engine_is_empty_and_takes_nothing_new(host: Host) -> None:
    left = host.engine.Drain(pb.DrainRequest(limit_s=10), timeout=ANSWER_LIMIT_S).left_over

    with pytest.raises(grpc.RpcError) as refused:
        host.generate("late")

    assert left == 0
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert not host.engine.Health(pb.HealthRequest(), timeout=ANSWER_LIMIT_S).serving
