from dataclasses import replace
from pathlib import Path

import pytest

from services.gateway.config import GatewayOptions
from services.node.on_ray.config import FleetOptions, UpOptions, fleet_of
from services.node.on_ray.place import (
    Here,
    Service,
    first_counts,
    part_on,
    passed_on,
    planner_on,
    reached_at,
    reserved,
    secret_path,
    stop_limit_s,
)
from services.node.on_ray.up import fleet_options
from services.node.plan import Part
from services.planner.config import PlannerOptions
from shared.cluster_secret import write_secret
from shared.engine.config import EngineOptions
from shared.errors import ConfigError
from shared.options import load

HERE = Here(address="127.0.0.1", kv_cache_gib=1.5)
PLANNER = "10.0.0.1:8100"
KNOWN = {
    Service.GATEWAY: GatewayOptions,
    Service.PREFILL: EngineOptions,
    Service.DECODE: EngineOptions,
}


def fleet(**options: object) -> FleetOptions:
    return FleetOptions(up=UpOptions(on="auto", **options))  # type: ignore[arg-type] # by name


def flag(of: Part, name: str) -> str | None:
    return of.command[of.command.index(name) + 1] if name in of.command else None


@pytest.mark.parametrize("service", Service)
def test_every_part_understands_every_flag_that_it_gets(service: Service) -> None:
    made = part_on(fleet(max_model_len=512), HERE, service, "it", PLANNER)

    read: object = load(
        KNOWN[service], section=service, argv=made.command[3:], environ={}, prog=service
    )
    planner = planner_on(fleet(), HERE)
    of_planner = load(
        PlannerOptions, section="planner", argv=planner.command[3:], environ={}, prog="planner"
    )

    assert made.address.endswith(f":{getattr(read, 'port', None)}")
    assert planner.address.endswith(f":{of_planner.port}")


def test_engines_of_one_node_share_no_port_and_listen_where_others_reach_them() -> None:
    made = [part_on(fleet(), HERE, Service.DECODE, f"decode-{n}", PLANNER) for n in range(4)]

    ports = [flag(one, name) for one in made for name in ("--port", "--metrics-port", "--kv-port")]
    assert len(set(ports)) == len(ports)
    for one in made:
        assert flag(one, "--host") == flag(one, "--kv-host") == HERE.address
        assert flag(one, "--planner") == PLANNER


def test_planner_and_gateway_keep_their_ports_so_that_others_find_them_again() -> None:
    assert flag(planner_on(fleet(), HERE), "--port") == "8100"
    assert flag(part_on(fleet(), HERE, Service.GATEWAY, "g", PLANNER), "--port") == "8000"
    asked = fleet(auto_ports=True)
    assert flag(planner_on(asked, HERE), "--port") != "8100"


def test_a_gateway_listens_at_its_node_unless_it_is_told_where() -> None:
    assert part_on(fleet(), HERE, Service.GATEWAY, "g", PLANNER).address == "http://127.0.0.1:8000"
    there = replace(HERE, address="10.0.0.7")
    told = part_on(fleet(host="0.0.0.0"), there, Service.GATEWAY, "g", PLANNER)
    assert flag(told, "--host") == "0.0.0.0"
    assert reached_at(told.address, "0.0.0.0", there.address) == "http://10.0.0.7:8000"
    assert reached_at("http://10.0.0.9:8000", "10.0.0.9", "10.0.0.7") == "http://10.0.0.9:8000"


def test_all_parts_load_the_same_model_in_the_same_type() -> None:
    parts = [part_on(fleet(model="tiny"), HERE, one, "it", PLANNER) for one in Service]

    for one in parts:
        assert flag(one, "--model") == flag(one, "--served-model-name") == "tiny"
        assert flag(one, "--dtype") == "float32"


def test_on_gpus_vllm_chooses_its_cache_and_type() -> None:
    there = replace(HERE, kv_cache_gib=None)
    made = part_on(fleet(), there, Service.DECODE, "decode-0", PLANNER)

    assert flag(made, "--kv-cache-gib") is None
    assert flag(made, "--dtype") == "auto"
    assert made.nice == 0


def test_an_engine_gets_one_bundle_of_gpus_and_a_gateway_none() -> None:
    asked = replace(fleet(cpus_per_engine=4.0, gateway_resource="edge"), gpus_per_engine=2)

    assert reserved(asked, Service.PREFILL).bundle == {"CPU": 4.0, "GPU": 2.0}
    assert reserved(fleet(), Service.DECODE).bundle == {"CPU": 1.0}
    assert reserved(asked, Service.GATEWAY).bundle == {"CPU": 0.0}
    assert reserved(asked, Service.GATEWAY).others == {"edge": 1.0}


def test_an_actor_has_time_for_the_whole_drain_of_its_process() -> None:
    asked = fleet(drain_limit_s=120.0)

    for service in Service:
        assert part_on(asked, HERE, service, "it", PLANNER).stop_limit_s < stop_limit_s(asked)


def test_options_of_parts_go_to_every_node_and_folders_of_this_one_do_not() -> None:
    environ = {
        "SLOS_DECODE_PROFILE": "off",
        "SLOS_LOG_FORMAT": "json",
        "SLOS_NODE_ON": "auto",
        "SLOS_CACHE": "/here",
        "SLOS_CONFIG": "/here/config.yaml",
        "PATH": "/bin",
    }
    assert passed_on(environ) == {"SLOS_DECODE_PROFILE": "off", "SLOS_LOG_FORMAT": "json"}


def test_a_text_of_options_becomes_a_file_that_every_part_reads() -> None:
    asked = replace(fleet(run_dir="runs"), config="gateway: {}\n", environ={"A": "1"})
    made = part_on(asked, HERE, Service.GATEWAY, "gateway-x", PLANNER)

    assert Path(made.environ["SLOS_CONFIG"]).parent == Path.home() / "runs"
    assert made.environ["A"] == "1"
    assert made.log == Path.home() / "runs" / "logs" / "gateway-x.log"


def test_the_secret_goes_to_the_nodes_as_a_file_and_is_in_no_command_line() -> None:
    made = fleet_options(UpOptions(on="auto"), None, {}, gpus=False)
    parts = [part_on(made, HERE, one, "it", PLANNER) for one in Service] + [planner_on(made, HERE)]

    assert len(made.secret) == 64
    assert made.secret not in repr(made)
    assert {one.secret_file for one in parts} == {secret_path(made)}
    assert not any(made.secret in word for one in parts for word in one.command)


def test_a_fleet_has_the_secret_that_it_is_given_or_none_where_that_is_said(
    tmp_path: Path,
) -> None:
    file = tmp_path / "secret"
    write_secret(file, "s" * 40)
    given = fleet_options(UpOptions(on="auto", cluster_secret_file=str(file)), None, {}, gpus=False)
    insecure = fleet_options(UpOptions(on="auto", insecure=True), None, {}, gpus=False)
    on_nodes = fleet_of({"cluster_secret_file": "/run/secret"})

    assert given.secret == "s" * 40
    assert (insecure.secret, secret_path(insecure)) == ("", "")
    assert planner_on(insecure, HERE).environ["SLOS_INSECURE"] == "true"
    assert secret_path(on_nodes) == planner_on(on_nodes, HERE).secret_file == "/run/secret"


def test_arguments_of_a_serve_application_are_options_by_their_yaml_keys() -> None:
    classes = {"gateway": {"classes": {"chat": {"ttft_ms": 500}}}}
    made = fleet_of(
        {"model": "tiny", "decode": 3, "autoscale": True, "gpus_per_engine": 1, "config": classes}
    )

    assert first_counts(made)[Service.DECODE] == 3
    assert made.up.autoscale
    assert made.gpus_per_engine == 1
    assert "ttft_ms: 500" in made.config
    with pytest.raises(ConfigError, match="unknown flag --decod"):
        fleet_of({"decod": 3})
