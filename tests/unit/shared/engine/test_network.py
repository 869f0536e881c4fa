from pathlib import Path

import pytest

from shared.engine.config import AUTO_HOST, EngineOptions, own_address
from shared.engine.network import devices_for, rdma_beside
from shared.errors import ConfigError
from shared.kv_transfer.settings import KvTransport

DEVICES = {"127.0.0.1": "lo", "::1": "lo", "10.0.0.7": "eth0", "10.1.0.7": "eth1"}
RDMA = ["mlx5_0:1"]


def test_loopback_keeps_kv_off_every_other_device() -> None:
    assert devices_for("127.0.0.1", DEVICES, RDMA) == ["lo"]
    assert devices_for("127.0.0.9", DEVICES, RDMA) == ["lo"]
    assert devices_for("localhost", DEVICES, RDMA) == ["lo"]


def test_an_address_names_its_device_beside_rdma() -> None:
    assert devices_for("10.0.0.7", DEVICES, RDMA) == ["mlx5_0:1", "eth0"]


def test_an_address_of_another_machine_is_an_error_that_lists_ours() -> None:
    with pytest.raises(ConfigError, match=r"10\.9\.9\.9.*10\.0\.0\.7"):
        devices_for("10.9.9.9", DEVICES, RDMA)


def test_auto_is_the_address_of_this_machine() -> None:
    assert own_address(AUTO_HOST).count(".") == 3
    assert own_address("") == ""
    assert EngineOptions(advertise_host=AUTO_HOST).settled().advertise_host != AUTO_HOST


def test_with_a_secret_kv_moves_by_the_encrypted_transport_unless_another_is_named() -> None:
    assert EngineOptions(cluster_secret_file="k").settled().kv_transport is KvTransport.ZMQ
    named = EngineOptions(cluster_secret_file="k", kv_transport=KvTransport.NIXL)
    assert named.settled().kv_transport is KvTransport.NIXL


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"host": "10.0.0.7"}, "host"),
        ({"kv_host": "10.0.0.7"}, "kv_host"),
        ({"metrics_host": "0.0.0.0"}, "metrics_host"),
        (
            {"kv_host": "10.0.0.7", "kv_transport": KvTransport.NIXL, "cluster_secret_file": "k"},
            "NIXL",
        ),
    ],
)
def test_an_engine_that_strangers_could_reach_starts_only_when_that_is_said(
    options: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{named}.*--insecure"):
        EngineOptions(**options).settled()  # type: ignore[arg-type] # options by name
    EngineOptions(insecure=True, **options).settled()  # type: ignore[arg-type] # the same


def test_a_secret_lets_an_engine_listen_anywhere() -> None:
    options = EngineOptions(host="10.0.0.7", metrics_host="0.0.0.0", cluster_secret_file="k")
    assert options.settled().kv_host == "10.0.0.7"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_an_address_of_every_machine_is_never_told_to_others(host: str) -> None:
    with pytest.raises(ConfigError, match="--advertise-host auto"):
        EngineOptions(host=host, insecure=True).settled()
    with pytest.raises(ConfigError, match="--kv-host auto"):
        EngineOptions(host=host, advertise_host="10.0.0.7", insecure=True).settled()
    without_kv = EngineOptions(
        host=host, advertise_host="10.0.0.7", insecure=True, kv_transport=KvTransport.NONE
    )
    assert without_kv.settled().advertise_host == "10.0.0.7"


def test_a_kv_port_may_be_found_elsewhere_than_where_it_listens() -> None:
    options = EngineOptions(
        host="0.0.0.0",
        advertise_host="10.0.0.7",
        kv_advertise_host="10.0.0.7",
        kv_transport=KvTransport.ZMQ,
        cluster_secret_file="k",
    ).settled()

    assert (options.kv_listen_host, options.kv_reachable_host) == ("0.0.0.0", "10.0.0.7")


def test_nixl_is_found_only_where_it_listens() -> None:
    with pytest.raises(ConfigError, match=r"kv_advertise_host.*--kv-transport zmq"):
        EngineOptions(kv_advertise_host="10.0.0.7", kv_transport=KvTransport.NIXL).settled()


def machine(folder: Path, devices: dict[str, int]) -> Path:
    """Two NUMA nodes of two CPUs each, and RDMA devices by their node (-1: unknown)."""
    for core in range(4):
        (folder / f"devices/system/cpu/cpu{core}/node{core // 2}").mkdir(parents=True)
    for name, node in devices.items():
        device = folder / "class/infiniband" / name / "device"
        device.mkdir(parents=True)
        (device / "numa_node").write_text(f"{node}\n")
    return folder


@pytest.mark.parametrize(
    ("cores", "devices", "chosen"),
    [
        ({0, 1}, {"mlx5_0": 0, "mlx5_1": 1}, ["mlx5_0:1"]),
        ({2}, {"mlx5_0": 0, "mlx5_1": 1}, ["mlx5_1:1"]),
        ({1, 2}, {"mlx5_1": 1, "mlx5_0": 0}, ["mlx5_0:1", "mlx5_1:1"]),
        ({2}, {"mlx5_0": 0}, ["mlx5_0:1"]),  # far is better than none
        ({2}, {"mlx5_0": -1, "mlx5_1": -1}, ["mlx5_0:1", "mlx5_1:1"]),
        ({2}, {}, []),
    ],
)
def test_a_bound_engine_uses_the_rdma_devices_of_its_numa_node(
    cores: set[int], devices: dict[str, int], chosen: list[str], tmp_path: Path
) -> None:
    assert rdma_beside(cores, machine(tmp_path, devices)) == chosen
