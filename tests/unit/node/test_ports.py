import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.node.config import NodeOptions
from services.node.ports import Claims, NodePorts, assign_ports
from shared.errors import ConfigError
from shared.ports import FreePorts


def every(ports: NodePorts) -> list[int]:
    engines = [port for one in ports.engines for port in (one.rpc, one.metrics, one.kv, one.nixl)]
    return [ports.gateway, ports.planner, ports.planner_metrics, *engines]


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def free(**changes: Any) -> NodeOptions:
    """Options that name ports which were free a moment ago."""
    picked = assign_ports(NodeOptions(auto_ports=True))
    options = NodeOptions(
        port=picked.gateway,
        planner_port=picked.planner,
        planner_metrics_port=picked.planner_metrics,
        engine_port=picked.engines[0].rpc,
        engine_metrics_port=picked.engines[0].metrics,
        kv_port=picked.engines[0].kv,
        nixl_port=picked.engines[0].nixl,
    )
    return replace(options, **changes)


def test_picked_ports_are_all_different() -> None:
    ports = every(assign_ports(NodeOptions(auto_ports=True, prefill=2, decode=3)))

    assert len(set(ports)) == len(ports) == 3 + 4 * 5


@pytest.mark.parametrize(
    "name",
    [
        "port",
        "planner_port",
        "planner_metrics_port",
        "engine_port",
        "engine_metrics_port",
        "kv_port",
        "nixl_port",
    ],
)
def test_a_taken_port_is_named_with_the_option_that_changes_it(name: str, taken: int) -> None:
    flag = f"--{name.replace('_', '-')},"

    with pytest.raises(ConfigError, match=f"Port {taken} .*{flag}"):
        assign_ports(free(**{name: taken}))


def test_engines_that_do_not_fit_below_the_last_port_are_refused() -> None:
    with pytest.raises(ConfigError, match="--kv-port leaves no room"):
        assign_ports(free(kv_port=65535))


def test_with_free_ports_picked_a_named_port_is_kept() -> None:
    named = free().port

    ports = assign_ports(NodeOptions(auto_ports=True, port=named))

    assert ports.gateway == named
    assert ports.planner != NodeOptions().planner_port


def test_with_free_ports_picked_a_named_port_that_is_taken_is_refused(taken: int) -> None:
    with pytest.raises(ConfigError, match=f"Port {taken} .*--port,"):
        assign_ports(NodeOptions(auto_ports=True, port=taken))


def row(count: int) -> int:
    """The first of so many ports that were free a moment ago."""
    with FreePorts() as ports:
        return ports.pick("127.0.0.1", count)


@pytest.mark.parametrize("named", [True, False])
def test_workers_of_one_engine_listen_for_kv_apart_from_those_of_others(named: bool) -> None:
    kv_port: dict[str, Any] = {"kv_port": row(9)} if named else {}

    ports = assign_ports(NodeOptions(auto_ports=True, decode=2, tensor_parallel_size=3, **kv_port))

    listening = [one.kv + worker for one in ports.engines for worker in range(3)]
    assert len(set(listening)) == 9


def test_the_ports_of_all_workers_must_be_free() -> None:
    first = row(2)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", first + 1))

        with pytest.raises(ConfigError, match=f"Port {first + 1} .*--kv-port"):
            assign_ports(free(kv_port=first, tensor_parallel_size=2, prefill=0))


def test_two_nodes_never_have_the_same_port_or_folder_also_while_one_starts(tmp_path: Path) -> None:
    options = free()
    ports = assign_ports(options)
    with closing(Claims()) as first, closing(Claims()) as second:
        first.ports(ports, options)
        first.run_dir(tmp_path)

        with pytest.raises(ConfigError, match=r"another node that runs or starts .*--port"):
            second.ports(ports, options)
        with pytest.raises(ConfigError, match="--run-dir"):
            second.run_dir(tmp_path)
        second.run_dir(tmp_path / "other")

    with closing(Claims()) as later:
        later.ports(ports, options)
        later.run_dir(tmp_path)
