import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.node.gpus import (
    nvidia_smi,
    parse_peers,
    rdma_devices,
    read_gpus,
    without_peer_access,
)
from tests.unit.node.inventory import gpus, smi, sysfs

# As nvidia-smi topo -p2p r writes it; CNS: the chipset does not support it.
PEERS = """
\tGPU0\tGPU1\tGPU2\t
 GPU0\tX\tOK\tCNS\t
 GPU1\tOK\tX\tOK\t
 GPU2\tCNS\tOK\tX\t

Legend:
  X    = Self
  OK   = Status Ok
  CNS  = Chipset not supported
"""


def no_driver(_arguments: Sequence[str]) -> str:
    raise FileNotFoundError("nvidia-smi")


def test_a_gpu_is_read_with_its_memory_and_the_cpus_beside_it(tmp_path: Path) -> None:
    first, last = gpus(tmp_path, 2)

    assert (first.index, first.name, first.driver) == (0, "NVIDIA H100 80GB HBM3", "580.65.06")
    assert first.memory_gib == pytest.approx(79.65, abs=0.01)
    assert first.free_gib < first.memory_gib
    assert (first.numa_node, first.cores) == (0, (0, 1, 2, 3))
    assert (last.numa_node, last.cores) == (1, (4, 5, 6, 7))


def test_a_machine_that_knows_no_numa_node_names_no_cpus(tmp_path: Path) -> None:
    (one,) = read_gpus({}, smi=smi(1), sysfs=tmp_path)

    assert one.numa_node is None
    assert one.cores == ()


@pytest.mark.parametrize(
    ("variable", "seen"),
    [
        ("0,2", [0, 2]),
        ("3,1", [3, 1]),
        ("GPU-2aaa", [2]),
        ("1,7,2", [1]),  # CUDA stops at the first that it does not know
        ("", []),
        ("-1", []),
    ],
)
def test_the_operator_s_choice_of_gpus_is_read_as_cuda_does(
    variable: str, seen: list[int], tmp_path: Path
) -> None:
    found = read_gpus({"CUDA_VISIBLE_DEVICES": variable}, smi=smi(4), sysfs=tmp_path)

    assert [one.index for one in found] == seen


def test_without_a_driver_there_are_no_gpus(tmp_path: Path) -> None:
    assert read_gpus({}, smi=no_driver, sysfs=tmp_path) == []
    assert without_peer_access(no_driver) == []


def test_a_driver_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'Driver/library version mismatch'\nexit 18\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(subprocess.SubprocessError, match="version mismatch"):
        nvidia_smi(["-L"])


def test_pairs_without_peer_access_are_named_once() -> None:
    assert parse_peers(PEERS) == ["GPU0-GPU2"]
    assert parse_peers(PEERS.replace("CNS", "OK")) == []
    assert parse_peers("") == []


def test_rdma_devices_are_told_with_their_state(tmp_path: Path) -> None:
    for name, state in (("mlx5_1", "4: ACTIVE"), ("mlx5_0", "1: DOWN")):
        port = tmp_path / "class/infiniband" / name / "ports/1"
        port.mkdir(parents=True)
        (port / "state").write_text(state)

    assert rdma_devices(tmp_path) == {"mlx5_0": False, "mlx5_1": True}
    assert rdma_devices(sysfs(tmp_path / "none", 1)) == {}
