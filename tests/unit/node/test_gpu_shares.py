from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.node.config import NodeOptions
from services.node.gpu_shares import GpuShare, share_gpus
from services.node.gpus import Gpu
from services.node.plan import NodePlan, Part, Rank, Surroundings, plan_node
from services.node.ports import EnginePorts, NodePorts
from shared.engine.config import EngineOptions
from shared.errors import ConfigError
from shared.options import load
from tests.unit.node.inventory import gpus as inventory


def made(count: int, *, free: float = 1.0) -> list[Gpu]:
    return [Gpu(index=n, memory_gib=80.0, free_gib=80.0 * free) for n in range(count)]


def plan(options: NodeOptions, found: list[Gpu]) -> NodePlan:
    shares = share_gpus(
        found, options.engines, options.gpus_of_an_engine, options.gpu_memory_utilization
    )
    around = Surroundings(
        model="m", model_is_local=False, shares=[], gpu_shares=shares, run_dir=Path("/run")
    )
    engines = tuple(EnginePorts(rpc=n, metrics=n, kv=n, nixl=n) for n in range(options.engines))
    ports = NodePorts(gateway=1, planner=2, planner_metrics=3, engines=engines)
    return plan_node(options, ports, around)


def engines(of: NodePlan) -> dict[str, Part]:
    return {one.name: one for one in of.parts if one.rank is Rank.ENGINE}


def flag(of: Part, name: str) -> str | None:
    return of.command[of.command.index(name) + 1] if name in of.command else None


# GPUs of the machine, options; for each engine its GPUs, CPUs, tensor parallelism and memory share.
TABLE: list[tuple[int, dict[str, int], dict[str, tuple[str, str, str | None, str | None]]]] = [
    (1, {}, {"prefill-0": ("0", "0-3", None, "0.46"), "decode-0": ("0", "0-3", None, "0.46")}),
    (1, {"prefill": 0}, {"decode-0": ("0", "0-3", None, None)}),
    (2, {}, {"prefill-0": ("0", "0-3", None, None), "decode-0": ("1", "4-7", None, None)}),
    (2, {"prefill": 0, "gpus_per_engine": 2}, {"decode-0": ("0,1", "0-7", "2", None)}),
    (
        4,
        {"tensor_parallel_size": 2},
        {"prefill-0": ("0,1", "0-3", "2", None), "decode-0": ("2,3", "4-7", "2", None)},
    ),
    (
        4,
        {"decode": 3},
        {
            "prefill-0": ("0", "0-3", None, None),
            "decode-0": ("1", "0-3", None, None),
            "decode-1": ("2", "4-7", None, None),
            "decode-2": ("3", "4-7", None, None),
        },
    ),
    (
        8,
        {"gpus_per_engine": 4},
        {"prefill-0": ("0,1,2,3", "0-3", "4", None), "decode-0": ("4,5,6,7", "4-7", "4", None)},
    ),
    (
        8,
        {"prefill": 2, "decode": 2, "gpus_per_engine": 2},
        {
            "prefill-0": ("0,1", "0-3", "2", None),
            "prefill-1": ("2,3", "0-3", "2", None),
            "decode-0": ("4,5", "4-7", "2", None),
            "decode-1": ("6,7", "4-7", "2", None),
        },
    ),
]


@pytest.mark.parametrize(("count", "options", "expected"), TABLE)
def test_which_engine_gets_what_on_1_2_4_and_8_gpus(
    count: int,
    options: dict[str, int],
    expected: dict[str, tuple[str, str, str | None, str | None]],
    tmp_path: Path,
) -> None:
    parts = engines(plan(NodeOptions(**options), inventory(tmp_path, count)))  # type: ignore[arg-type] # by name

    assert parts.keys() == expected.keys()
    for name, (seen, cores, size, memory) in expected.items():
        part = parts[name]
        assert part.environ["CUDA_VISIBLE_DEVICES"] == seen
        assert part.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        first, last = map(int, cores.split("-"))
        assert part.cores == tuple(range(first, last + 1))
        assert flag(part, "--tensor-parallel-size") == size
        assert flag(part, "--gpu-memory-utilization") == memory
        assert flag(part, "--cores") is None
        assert part.nice == 0


def test_every_engine_understands_what_it_gets_of_the_gpus(tmp_path: Path) -> None:
    options = NodeOptions(prefill=0, gpus_per_engine=2, gpu_memory_utilization=0.8)
    (part,) = engines(plan(options, inventory(tmp_path, 2))).values()

    read = load(EngineOptions, section="decode", argv=part.command[3:], environ={}, prog="decode")

    assert read.tensor_parallel_size == 2
    assert read.gpu_memory_utilization == 0.8


def test_engines_that_share_a_gpu_start_one_after_the_other(tmp_path: Path) -> None:
    shared = engines(plan(NodeOptions(decode=2), inventory(tmp_path / "one", 1)))
    apart = engines(plan(NodeOptions(), inventory(tmp_path / "two", 2)))

    assert [one.after for one in shared.values()] == ["", "prefill-0", "decode-0"]
    assert [one.after for one in apart.values()] == ["", ""]


@given(each=st.integers(1, 8), wanted=st.integers(1, 8), spare=st.integers(0, 8))
def test_no_gpu_is_given_twice(each: int, wanted: int, spare: int) -> None:
    shares = share_gpus(made(wanted * each + spare), wanted, each)

    given_out = [number for share in shares for number in share.gpus]
    assert len(given_out) == len(set(given_out)) == wanted * each


@given(each=st.integers(2, 8), wanted=st.integers(1, 8), lacking=st.integers(1, 8))
def test_fewer_gpus_than_all_engines_need_are_refused(each: int, wanted: int, lacking: int) -> None:
    there = max(1, wanted * each - lacking)

    with pytest.raises(ConfigError, match=f"need {wanted * each} GPUs, {there} "):
        share_gpus(made(there), wanted, each)


@given(sharers=st.integers(1, 6), free=st.floats(0.35, 1.0))
def test_engines_on_one_gpu_never_take_more_than_is_free(sharers: int, free: float) -> None:
    shares = share_gpus(made(1, free=free), sharers, 1)

    taken = sum(share.memory_utilization or 0.92 for share in shares)
    assert len(shares) == sharers
    assert taken <= min(free, 0.92) + 1e-9


def test_a_gpu_that_is_full_is_said_with_the_cure() -> None:
    with pytest.raises(ConfigError, match=r"GPU 0 has 8\.0 of 80\.0 GiB free.*end what holds"):
        share_gpus(made(1, free=0.1), 2, 1)


@pytest.mark.parametrize(
    ("count", "engine_count", "each", "cure"),
    [
        (2, 3, 1, "start 2 at most"),
        (4, 2, 4, "start 1 at most"),
        (1, 1, 2, "--gpus-per-engine 1"),
        (1, 2, 0, "--gpus-per-engine 1"),
    ],
)
def test_too_few_gpus_are_said_with_the_cure(
    count: int, engine_count: int, each: int, cure: str
) -> None:
    with pytest.raises(ConfigError, match=cure):
        share_gpus(made(count), engine_count, each)


def test_an_engine_takes_less_of_a_gpu_that_others_use() -> None:
    assert share_gpus(made(1), 1, 1) == [GpuShare(gpus=(0,))]
    assert share_gpus(made(1, free=0.5), 1, 1)[0].memory_utilization == pytest.approx(0.48)


def test_the_operator_s_share_is_taken_as_it_is_while_it_fits() -> None:
    assert share_gpus(made(1), 2, 1, 0.5)[1].memory_utilization == 0.5
    with pytest.raises(ConfigError, match=r"0\.33 at most"):
        share_gpus(made(1), 3, 1, 0.5)


def test_an_engine_s_gpus_are_of_one_numa_node_while_one_has_enough() -> None:
    nodes = (0, 0, 0, 1, 1, 1)
    found = [
        Gpu(index=n, memory_gib=80.0, free_gib=80.0, numa_node=node) for n, node in enumerate(nodes)
    ]

    shares = share_gpus(found, 3, 2)

    assert [share.gpus for share in shares] == [(0, 1), (3, 4), (2, 5)]


def test_cpus_are_left_open_where_one_gpu_s_are_unknown() -> None:
    known = Gpu(index=0, memory_gib=80.0, free_gib=80.0, cores=(0, 1))

    assert share_gpus([known, made(2)[1]], 1, 2)[0].cores == ()


@pytest.mark.parametrize(
    ("options", "gpus", "size"),
    [
        ({}, 1, None),
        ({"tensor_parallel_size": 2}, 2, 2),
        ({"gpus_per_engine": 2}, 2, 2),
        ({"gpus_per_engine": 4, "tensor_parallel_size": 2}, 4, 2),
        ({"gpus_per_engine": 0}, 0, None),
    ],
)
def test_gpus_of_an_engine_and_tensor_parallelism_agree(
    options: dict[str, int], gpus: int, size: int | None
) -> None:
    node = NodeOptions(**options)  # type: ignore[arg-type] # options by name

    assert node.gpus_of_an_engine == gpus
    assert node.tensor_parallel == size


def test_sizes_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="leave one of them out"):
        _ = NodeOptions(gpus_per_engine=3, tensor_parallel_size=2).gpus_of_an_engine
