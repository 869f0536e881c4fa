import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.config import GatewayOptions
from services.node.config import NodeOptions
from services.node.plan import NodePlan, Part, Rank, Surroundings, plan_node
from services.node.ports import EnginePorts, NodePorts
from services.node.shares import CpuShare, share_cpu
from services.planner.config import PlannerOptions
from shared.engine.config import EngineOptions
from shared.errors import ConfigError
from shared.options import load

KNOWN = {
    "planner": (PlannerOptions, "planner"),
    "gateway": (GatewayOptions, "gateway"),
    "prefill": (EngineOptions, "prefill"),
    "decode": (EngineOptions, "decode"),
}


def plan(
    *,
    shares: int | None = None,
    local: bool = True,
    environ: Mapping[str, str] = MappingProxyType({"SLOS_CONFIG": "/c.yaml"}),
    **changes: object,
) -> NodePlan:
    options = NodeOptions(**changes)  # type: ignore[arg-type]
    ports = NodePorts(
        gateway=1,
        planner=2,
        planner_metrics=3,
        engines=tuple(
            EnginePorts(rpc=10 + n, metrics=20 + n, kv=30 + n, nixl=40 + n) for n in range(8)
        ),
    )
    count = options.engines if shares is None else shares
    around = Surroundings(
        model="/models/m",
        model_is_local=local,
        shares=[CpuShare(cores=str(n), kv_cache_gib=1.5) for n in range(count)],
        run_dir=Path("/run/it"),
        environ=environ,
    )
    return plan_node(options, ports, around)


def part(of: NodePlan, name: str) -> Part:
    return next(one for one in of.parts if one.name == name)


def flag(of: Part, name: str) -> str | None:
    return of.command[of.command.index(name) + 1] if name in of.command else None


def test_engines_are_numbered_within_their_role() -> None:
    assert plan(prefill=2, decode=1).engine_names == {"prefill-0", "prefill-1", "decode-0"}


def test_every_part_understands_every_flag_that_it_gets() -> None:
    for one in plan(max_model_len=512, max_step_tokens=64, max_running_requests=8).parts:
        options, section = KNOWN[one.name.split("-")[0]]

        read: object = load(
            options, section=section, argv=one.command[3:], environ={}, prog=section
        )

        port = getattr(read, "port", None)
        assert one.address.endswith(f":{port}")


def test_no_two_engines_share_a_port_or_a_core() -> None:
    engines = [one for one in plan(prefill=2, decode=2).parts if one.rank is Rank.ENGINE]

    for name in ("--port", "--metrics-port", "--kv-port", "--cores"):
        assert len({flag(one, name) for one in engines}) == 4


def test_every_part_asks_for_the_secret_that_the_node_was_given() -> None:
    made = plan(environ={"SLOS_CLUSTER_SECRET_FILE": "/s"})

    assert {one.secret_file for one in made.parts} == {"/s"}
    assert {one.secret_file for one in plan().parts} == {""}


def test_all_parts_agree_on_planner_model_and_its_name() -> None:
    made = plan(model="embedded", served_model_name="small")

    for one in made.parts[1:]:
        assert flag(one, "--planner") == made.planner == "127.0.0.1:2"
        assert flag(one, "--model") == "/models/m"
        assert flag(one, "--served-model-name") == made.model_name == "small"


def test_engines_stop_before_the_planner_and_after_the_gateway() -> None:
    assert list(Rank) == [Rank.GATEWAY, Rank.ENGINE, Rank.PLANNER]


def test_auto_dtype_is_float32_on_cpu_only() -> None:
    assert flag(part(plan(), "decode-0"), "--dtype") == "float32"
    assert flag(part(plan(dtype="bfloat16"), "decode-0"), "--dtype") == "bfloat16"
    assert flag(part(plan(shares=0), "gateway"), "--dtype") == "auto"


def test_options_that_were_not_set_stay_with_the_part() -> None:
    gpu = part(plan(shares=0), "prefill-0")

    for name in ("--cores", "--kv-cache-gib", "--max-model-len", "--max-step-tokens"):
        assert flag(gpu, name) is None


def test_a_local_model_asks_no_hub() -> None:
    assert part(plan(), "decode-0").environ["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in part(plan(local=False), "decode-0").environ


def test_parts_run_with_this_python_and_read_the_same_file() -> None:
    for one in plan().parts:
        assert one.command[0] == sys.executable
        assert one.environ["SLOS_CONFIG"] == "/c.yaml"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("10.0.0.7", "http://10.0.0.7:1"),
    ],
)
def test_the_url_is_one_that_can_be_reached(host: str, url: str) -> None:
    assert plan(host=host).url == url


@given(st.sets(st.integers(0, 255), min_size=1), st.integers(1, 16))
def test_every_core_is_used_and_shared_only_when_there_are_too_few(
    cores: set[int], engines: int
) -> None:
    shares = share_cpu(list(cores), 1000.0, engines)

    given_out = [int(core) for share in shares for core in share.cores.split(",")]
    assert len(shares) == engines
    assert set(given_out) <= cores
    assert len(cores) < engines or sorted(given_out) == sorted(cores)


@given(st.floats(3.01, 1000), st.integers(1, 16))
def test_the_kv_cache_leaves_memory_for_the_engines(gib_per_engine: float, engines: int) -> None:
    memory_gib = gib_per_engine * engines

    shares = share_cpu([0], memory_gib, engines)

    assert sum(share.kv_cache_gib for share in shares) < memory_gib
    assert all(0.2 < share.kv_cache_gib <= 2 for share in shares)


@given(st.floats(0, 2.99), st.integers(1, 16))
def test_too_little_memory_is_said_with_the_cure(gib_per_engine: float, engines: int) -> None:
    with pytest.raises(ConfigError, match="start fewer engines"):
        share_cpu([0], gib_per_engine * engines, engines)


def test_a_kv_cache_of_the_operators_choice_is_taken_as_it_is() -> None:
    assert share_cpu([0], 1.0, 2, kv_cache_gib=9.0)[1].kv_cache_gib == 9.0
