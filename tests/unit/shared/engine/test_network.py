import pytest

from shared.engine.config import AUTO_HOST, EngineOptions, own_address
from shared.engine.network import devices_for
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


def test_every_address_is_every_device_but_loopback() -> None:
    assert devices_for("0.0.0.0", DEVICES, []) == ["eth0", "eth1"]


def test_an_address_of_another_machine_is_an_error_that_lists_ours() -> None:
    with pytest.raises(ConfigError, match=r"10\.9\.9\.9.*10\.0\.0\.7"):
        devices_for("10.9.9.9", DEVICES, RDMA)


def test_auto_is_the_address_of_this_machine() -> None:
    assert own_address(AUTO_HOST).count(".") == 3
    assert own_address("") == ""
    assert EngineOptions(advertise_host=AUTO_HOST).settled().advertise_host != AUTO_HOST


def test_a_key_moves_kv_by_the_encrypted_transport_alone() -> None:
    assert EngineOptions(kv_key_file="k").settled().kv_transport is KvTransport.ZMQ
    with pytest.raises(ConfigError, match="kv_key_file"):
        EngineOptions(kv_key_file="k", kv_transport=KvTransport.NIXL).settled()
