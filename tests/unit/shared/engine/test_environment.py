import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.engine.config import EngineOptions
from shared.engine.core_list import core_numbers
from shared.engine.environment import (
    engine_environment,
    free_threads,
    missed_by_openmp,
    set_environment,
    thread_environment,
    worker_environment,
)
from shared.errors import ConfigError
from shared.kv_transfer.settings import KvTransport


@given(st.sets(st.integers(0, 500), min_size=1))
def test_a_list_of_cores_reads_back(cores: set[int]) -> None:
    assert core_numbers(",".join(map(str, cores))) == sorted(cores)


def test_ranges_and_single_cores_mix() -> None:
    assert core_numbers("6, 0-2,2") == [0, 1, 2, 6]


@pytest.mark.parametrize("cores", ["a", "1-", "-1", "3-1", "1,,2", "0;1"])
def test_anything_else_is_refused_with_what_is_allowed(cores: str) -> None:
    with pytest.raises(ConfigError, match=r"allowed is a list like 0-3"):
        core_numbers(cores)


def test_there_is_a_thread_for_each_core_and_it_stays_there() -> None:
    environ = thread_environment("2-3", allowed_cores=16)

    assert environ["OMP_NUM_THREADS"] == "2"
    assert environ["OMP_PLACES"] == "{2,3}"
    assert environ["OMP_PROC_BIND"] == "true"


def test_without_a_list_one_core_is_left_free_and_no_thread_is_bound() -> None:
    environ = thread_environment("", allowed_cores=16)

    assert environ["OMP_NUM_THREADS"] == "15"
    assert "OMP_PLACES" not in environ
    assert thread_environment("", allowed_cores=1)["OMP_NUM_THREADS"] == "1"


def test_every_thread_gets_the_hosts_cores_back() -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})

    free_threads(cores)

    assert os.sched_getaffinity(0) == cores


def test_a_preloaded_openmp_has_missed_what_was_not_set_before() -> None:
    wanted = {"OMP_NUM_THREADS": "1", "UCX_TLS": "tcp"}
    preload = {"LD_PRELOAD": "/lib/libgomp.so.1"}

    assert missed_by_openmp(wanted, preload)
    assert not missed_by_openmp(wanted, {})
    assert not missed_by_openmp(wanted, preload | {"OMP_NUM_THREADS": "3"})


@pytest.mark.parametrize("cpu", [True, False])
@pytest.mark.parametrize("transport", list(KvTransport))
def test_process_groups_of_torch_listen_on_loopback(transport: KvTransport, cpu: bool) -> None:
    options = EngineOptions(kv_transport=transport, kv_host="127.0.0.1")

    assert engine_environment(options, cpu=cpu)["GLOO_SOCKET_IFNAME"] == "lo"


@pytest.mark.parametrize(
    ("cores", "workers", "lists"),
    [
        ("0-3", 2, "0,2|1,3"),
        ("", 2, "5|7"),
        ("", 4, "5|7|5|7"),
        ("4", 2, "4|4"),
    ],
)
def test_workers_of_tensor_parallelism_have_cores_of_their_own_while_there_are_enough(
    cores: str, workers: int, lists: str
) -> None:
    options = EngineOptions(cores=cores, tensor_parallel_size=workers)

    assert worker_environment(options, [5, 7]) == {"VLLM_CPU_OMP_THREADS_BIND": lists}


def test_without_tensor_parallelism_the_model_runs_in_the_engine_core() -> None:
    assert worker_environment(EngineOptions(), [0]) == {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def environment(*, on_cpu: bool, **own: str) -> dict[str, str]:
    """What `set_environment` makes of `own`, and what vLLM finds when it is loaded."""
    environ, at_load = dict(own), {}

    def load_vllm() -> bool:
        at_load.update(environ)
        return on_cpu

    set_environment(EngineOptions(cores="0"), environ, load_vllm)
    assert at_load["OMP_NUM_THREADS"] == own.get("OMP_NUM_THREADS", "1")
    return environ


def test_threads_are_laid_out_before_vllm_is_loaded_and_only_on_cpu() -> None:
    assert environment(on_cpu=True)["OMP_PLACES"] == "{0}"
    on_gpu = environment(on_cpu=False)
    assert not [name for name in on_gpu if name.startswith("OMP_")]


def test_kv_is_held_to_tcp_on_cpu_only() -> None:
    assert environment(on_cpu=True)["UCX_TLS"] == "tcp,sm,self"
    assert "UCX_TLS" not in environment(on_cpu=False)


def test_what_the_operator_set_stays_on_a_gpu_as_well() -> None:
    assert environment(on_cpu=False, OMP_NUM_THREADS="3")["OMP_NUM_THREADS"] == "3"
