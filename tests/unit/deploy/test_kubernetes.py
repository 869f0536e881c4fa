"""What the manifests promise: options that are understood, probes, drains, ports, least rights."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from services.gateway.config import GatewayOptions
from services.planner.config import PlannerOptions
from services.planner.scaling.fleet_size import FleetSize
from services.planner.server.metrics import PlannerMetrics
from shared.engine.config import EngineOptions
from shared.options import load
from tests.unit.deploy.manifests import (
    COMPONENTS,
    OVERLAYS,
    ROOT,
    Manifest,
    by_key,
    component_of,
    config_file,
    connections,
    container_of,
    departures,
    deployments,
    environment,
    kustomized,
    labels_of,
    of_kind,
    pod_of,
    selects,
)

ENGINES = ("prefill", "decode")
PAGE = ROOT / "docs" / "how-to" / "kubernetes.md"
OPTIONS: Mapping[str, type[Any]] = {
    "gateway": GatewayOptions,
    "planner": PlannerOptions,
    "prefill": EngineOptions,
    "decode": EngineOptions,
}
HEALTH_SERVICES = {
    "planner": "slos.v1.Planner",
    "prefill": "slos.v1.Engine",
    "decode": "slos.v1.Engine",
}
END_S = 15  # from the last request to the end of the process
KV_PORTS = ("8400-8407/TCP", "8500/TCP", "8600-8699/TCP")


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return kustomized(request.param)


def options_of(component: str, manifests: list[Manifest], tmp_path: Any) -> Any:
    """What the process reads from its variables and its file. Unknown ones are errors."""
    deployment = deployments(manifests)[component]
    file = tmp_path / f"{component}.yaml"
    file.write_text(config_file(deployment, manifests))
    environ = environment(deployment, manifests) | {"SLOS_CONFIG": str(file)}
    return load(
        OPTIONS[component], section=component, argv=(), environ=environ, prog=f"test {component}"
    )


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_process_understands_its_options(
    component: str, manifests: list[Manifest], tmp_path: Any
) -> None:
    options = options_of(component, manifests, tmp_path)
    container = container_of(deployments(manifests)[component])
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}

    assert options.host == "0.0.0.0"
    assert ports["http" if component == "gateway" else "grpc"] == options.port
    if component in ENGINES:
        assert options.metrics_host == "0.0.0.0"
        assert (ports["metrics"], ports["kv"]) == (options.metrics_port, options.kv_port)
        assert (options.name, options.advertise_host, options.kv_host) == (
            *("a-pod", "10.0.0.7"),
            "10.0.0.7",
        )
    if component == "planner":
        assert ports["metrics"] == options.metrics_port
    assert container["args"] == [component]


def test_all_parts_serve_one_model_and_find_the_planner(
    manifests: list[Manifest], tmp_path: Any
) -> None:
    read = {one: options_of(one, manifests, tmp_path) for one in COMPONENTS}
    models = {(read[one].model, read[one].served_model_name) for one in ENGINES} | {
        (read["gateway"].model, ",".join(read["gateway"].served_model_name))
    }
    service = by_key(manifests)["Service", "slos-planner"]

    assert len(models) == 1
    assert {read[one].planner for one in ("gateway", *ENGINES)} == {
        f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    }


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_pod_may_end_as_long_as_its_process_drains(
    component: str, manifests: list[Manifest], tmp_path: Any
) -> None:
    options = options_of(component, manifests, tmp_path)
    limit_s = options.shutdown_limit_s if component == "planner" else options.drain_limit_s
    pod = pod_of(deployments(manifests)[component])
    container = container_of(deployments(manifests)[component])

    assert pod["terminationGracePeriodSeconds"] == limit_s + END_S
    assert "lifecycle" not in container  # a sleep before SIGTERM would drain nothing


def test_a_stopping_gateway_serves_until_its_endpoint_is_withdrawn(
    manifests: list[Manifest], tmp_path: Any
) -> None:
    options = options_of("gateway", manifests, tmp_path)
    assert 5 <= options.drain_quiet_s < options.drain_limit_s


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_every_probe_asks_what_the_process_answers(
    component: str, probe: str, manifests: list[Manifest], tmp_path: Any
) -> None:
    told = container_of(deployments(manifests)[component])[probe]
    if component == "gateway":
        path = "/ready" if probe == "readinessProbe" else "/live"
        assert told["httpGet"] == {"path": path, "port": "http"}
    else:
        port = options_of(component, manifests, tmp_path).health_port
        assert told["grpc"] == {"port": port, "service": HEALTH_SERVICES[component]}


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_part_has_the_secret_in_a_file(
    component: str, manifests: list[Manifest], tmp_path: Any
) -> None:
    deployment = deployments(manifests)[component]
    file = options_of(component, manifests, tmp_path).cluster_secret_file
    (mount,) = [
        one
        for one in container_of(deployment)["volumeMounts"]
        if file == f"{one['mountPath']}/secret"
    ]
    (volume,) = [one for one in pod_of(deployment)["volumes"] if one["name"] == mount["name"]]

    assert volume["secret"] == {"secretName": "slos-cluster", "defaultMode": 0o440}


@pytest.mark.parametrize("component", ENGINES)
def test_a_large_model_has_an_hour_to_start(component: str, manifests: list[Manifest]) -> None:
    deployment = deployments(manifests)[component]
    startup = container_of(deployment)["startupProbe"]
    hour_s = startup["periodSeconds"] * startup["failureThreshold"]

    assert hour_s == 3600
    assert deployment["spec"]["progressDeadlineSeconds"] > hour_s


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_process_that_hangs_is_not_waited_for(component: str, manifests: list[Manifest]) -> None:
    deployment = deployments(manifests)[component]
    liveness = container_of(deployment)["livenessProbe"]
    assert (
        liveness["terminationGracePeriodSeconds"]
        < pod_of(deployment)["terminationGracePeriodSeconds"]
    )


def test_pods_have_the_least_rights(manifests: list[Manifest]) -> None:
    """What the Pod Security Standard `restricted` asks for, and a read-only root file system."""
    for name, deployment in deployments(manifests).items():
        pod, container = pod_of(deployment), container_of(deployment)
        context = container["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["capabilities"]["drop"] == ["ALL"]
        assert not context["allowPrivilegeEscalation"]
        assert context["readOnlyRootFilesystem"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert not any("hostPath" in volume for volume in pod["volumes"])


def test_only_rdma_adds_a_capability(manifests: list[Manifest]) -> None:
    added = {
        name: container_of(one)["securityContext"]["capabilities"].get("add")
        for name, one in deployments(manifests).items()
    }
    rdma = any("rdma/ib" in str(container_of(one)) for one in deployments(manifests).values())
    assert {name for name, one in added.items() if one} == (set(ENGINES) if rdma else set())


def test_no_pod_gets_a_token_or_the_variables_of_services(manifests: list[Manifest]) -> None:
    """A Service slos-gateway would set SLOS_GATEWAY_PORT=tcp://..., which is an option."""
    accounts = by_key(manifests)
    for name, deployment in deployments(manifests).items():
        pod = pod_of(deployment)
        account = accounts["ServiceAccount", pod["serviceAccountName"]]
        assert not pod["automountServiceAccountToken"], name
        assert not account["automountServiceAccountToken"]
        assert pod["enableServiceLinks"] is False


def test_every_mount_has_its_volume_and_every_volume_its_mount(manifests: list[Manifest]) -> None:
    for deployment in deployments(manifests).values():
        mounts = {one["name"] for one in container_of(deployment)["volumeMounts"]}
        assert mounts == {one["name"] for one in pod_of(deployment)["volumes"]}


def test_shared_memory_is_memory_within_the_limit_of_the_container(
    manifests: list[Manifest],
) -> None:
    for component in ENGINES:
        deployment = deployments(manifests)[component]
        (shm,) = [one for one in pod_of(deployment)["volumes"] if one["name"] == "shm"]
        limit = container_of(deployment)["resources"].get("limits", {}).get("memory", "1000Gi")
        assert shm["emptyDir"]["medium"] == "Memory"
        assert gib(shm["emptyDir"]["sizeLimit"]) < gib(limit)


def gib(quantity: str) -> int:
    assert quantity.endswith("Gi")
    return int(quantity.removesuffix("Gi"))


@pytest.mark.parametrize("component", COMPONENTS)
def test_selectors_select_their_own_pods_and_no_others(
    component: str, manifests: list[Manifest]
) -> None:
    pods = {name: labels_of(one) for name, one in deployments(manifests).items()}
    for kind in ("Deployment", "PodDisruptionBudget"):
        (one,) = [found for found in of_kind(manifests, kind) if component_of(found) == component]
        chosen = {name for name, labels in pods.items() if selects(one["spec"]["selector"], labels)}
        assert chosen == {component}
    for service in of_kind(manifests, "Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        chosen = {name for name, labels in pods.items() if selects(selector, labels)}
        assert chosen == {component_of(service)}


def test_pod_monitors_scrape_every_pod_once_by_a_port_that_it_has() -> None:
    manifests = kustomized("example")
    pods = deployments(manifests)
    scraped = [
        (name, endpoint["port"])
        for monitor in of_kind(manifests, "PodMonitor")
        for name, pod in pods.items()
        if selects(monitor["spec"]["selector"], labels_of(pod))
        for endpoint in monitor["spec"]["podMetricsEndpoints"]
    ]
    assert sorted(scraped) == [
        ("decode", "metrics"),
        ("gateway", "http"),
        ("planner", "metrics"),
        ("prefill", "metrics"),
    ]
    for name, port in scraped:
        assert port in {one["name"] for one in container_of(pods[name])["ports"]}


def test_what_is_scaled_has_no_fixed_number_of_replicas() -> None:
    manifests = kustomized("example")
    targets = {
        one["spec"]["scaleTargetRef"]["name"]
        for kind in ("ScaledObject", "HorizontalPodAutoscaler")
        for one in of_kind(manifests, kind)
    }
    fixed = {
        one["metadata"]["name"]
        for one in deployments(manifests).values()
        if "replicas" in one["spec"]
    }
    assert targets == {"slos-gateway", "slos-prefill", "slos-decode"}
    assert fixed == {"slos-planner"}


def test_engines_scale_on_the_planners_number_of_their_role() -> None:
    for one in of_kind(kustomized("example"), "ScaledObject"):
        (trigger,) = one["spec"]["triggers"]
        query = f'max(slos_planner_desired_engines{{role="{component_of(one)}"}})'
        assert trigger["metadata"]["query"] == query
        assert (trigger["metricType"], trigger["metadata"]["threshold"]) == ("AverageValue", "1")


def test_the_planner_shows_that_number_by_role() -> None:
    metrics = PlannerMetrics()
    metrics.desires(FleetSize(prefill=2, decode=3))
    shown = [
        metrics.registry.get_sample_value("slos_planner_desired_engines", {"role": role})
        for role in ENGINES
    ]
    assert shown == [2, 3]


def test_images_and_their_cache_are_those_that_the_dockerfile_makes() -> None:
    dockerfile = (ROOT / "deploy" / "images" / "Dockerfile").read_text()
    for overlay in ("cpu", "cuda"):
        for deployment in deployments(kustomized(overlay)).values():
            container = container_of(deployment)
            target = container["image"].partition("/")[2].partition(":")[0]
            (cache,) = [one for one in container["volumeMounts"] if one["name"] == "cache"]
            assert re.search(rf"^FROM \S+ AS {target}$", dockerfile, re.MULTILINE)
            assert f"SLOS_CACHE={cache['mountPath']} " in dockerfile


def test_connections_are_those_that_the_parts_need_and_no_others(
    manifests: list[Manifest],
) -> None:
    to_engines = {
        (source, engine, port)
        for engine in ENGINES
        for source, ports in (
            ("gateway", ("8200/TCP",)),
            ("monitoring", ("8300/TCP",)),
            *((other, KV_PORTS) for other in ENGINES),
        )
        for port in ports
    }
    to_planner = {(one, "planner", "8100/TCP") for one in ("gateway", *ENGINES)}
    assert connections(manifests) == to_engines | to_planner | {
        ("monitoring", "planner", "8101/TCP"),
        ("anyone", "gateway", "8000/TCP"),
    }


def test_what_may_come_in_may_go_out(manifests: list[Manifest]) -> None:
    between = {one for one in connections(manifests) if one[0] in COMPONENTS}
    outside = {
        *(
            (one, "anyone", f"{port}/{kind}")
            for one in COMPONENTS
            for port in (53, 5353)
            for kind in ("TCP", "UDP")
        ),
        *((one, "anyone", "443/TCP") for one in ("gateway", *ENGINES)),
    }
    assert departures(manifests) == between | outside


def test_every_port_that_a_process_listens_on_is_let_in(
    manifests: list[Manifest], tmp_path: Any
) -> None:
    let_in = {(target, port.split("/")[0]) for _, target, port in connections(manifests)}
    for name, deployment in deployments(manifests).items():
        named = {str(one["containerPort"]) for one in container_of(deployment)["ports"]}
        first = {port.split("-")[0] for target, port in let_in if target == name}
        assert named <= first
        assert first - named == ({"8600"} if name in ENGINES else set())
    for name in ENGINES:
        options = options_of(name, manifests, tmp_path)
        assert (name, str(options.nixl_port)) in let_in
        assert (name, options.nixl_data_ports) in let_in


def test_the_page_shows_probes_and_grace_periods_as_they_are() -> None:
    assert_on_page(probes_table(kustomized("base")))


def test_the_page_shows_connections_as_they_are() -> None:
    assert_on_page(connections_table(kustomized("base")))


def assert_on_page(rows: list[str]) -> None:
    assert "\n".join(rows) in PAGE.read_text(), "\n".join(["the page should show:", *rows])


def probes_table(manifests: list[Manifest]) -> list[str]:
    rows = ["| | startup | readiness | liveness | grace period |", "|---|---|---|---|---|"]
    found = deployments(manifests)
    for name in COMPONENTS:
        container, pod = container_of(found[name]), pod_of(found[name])
        probes = " | ".join(
            shown(container[f"{kind}Probe"]) for kind in ("startup", "readiness", "liveness")
        )
        rows.append(f"| {name} | {probes} | {pod['terminationGracePeriodSeconds']} s |")
    return rows


def shown(probe: Manifest) -> str:
    how = (
        f"gRPC {probe['grpc']['port']}" if "grpc" in probe else f"HTTP `{probe['httpGet']['path']}`"
    )
    return f"{how}, {probe['failureThreshold']} x {probe['periodSeconds']} s"


def connections_table(manifests: list[Manifest]) -> list[str]:
    rows = ["| to | port | from |", "|---|---|---|"]
    by_port: dict[tuple[str, str], list[str]] = {}
    for source, target, port in sorted(connections(manifests)):
        by_port.setdefault((target, port), []).append(source)
    for name in COMPONENTS:
        rows += [
            f"| {name} | {port.removesuffix('/TCP')} | {', '.join(sources)} |"
            for (target, port), sources in sorted(by_port.items())
            if target == name
        ]
    return rows
