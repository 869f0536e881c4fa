import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.engine.config import EngineOptions
from shared.engine.environment import (
    core_numbers,
    engine_environment,
    free_threads,
    missed_by_openmp,
    thread_environment,
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
