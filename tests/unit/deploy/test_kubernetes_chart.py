"""The Helm chart renders what the base and the overlays render."""

from pathlib import Path

import pytest
import yaml

from tests.unit.deploy.manifests import (
    CHART,
    KUBERNETES,
    Manifest,
    chart_script,
    comparable,
    container_of,
    deployments,
    environment,
    helmed,
    kustomized,
    of_kind,
    pod_of,
    tool,
)

VALUES = {"base": (), "cpu": ("cpu",), "cuda": ("cuda",), "rdma": ("cuda", "rdma")}


def with_values(*names: str) -> list[Manifest]:
    return helmed(*(word for name in names for word in ("-f", str(CHART / f"values-{name}.yaml"))))


def example_as_values(tmp_path: Path) -> list[Manifest]:
    """What overlays/example does, said to the chart."""
    values = tmp_path / "values.yaml"
    values.write_text(
        "model: {model: Qwen/Qwen3-8B, name: qwen3-8b}\n"
        "images: {registry: registry.example.com}\n"
        "config:\n"
        + "".join(
            f"  {line}\n"
            for line in ["gateway:", *("  " + line for line in example_config().splitlines())]
        )
        + "apiKeys: {enabled: true}\n"
        "modelCache: {enabled: true}\nobservability: {enabled: true}\n"
        "autoscaling: {enabled: true, decode: {min: 1, max: 16}}\n"
    )
    return helmed("-f", str(CHART / "values-cuda.yaml"), "-f", str(values))


def example_config() -> str:
    return (CHART.parent / "overlays" / "example" / "gateway.yaml").read_text()


def without_namespace(manifests: list[Manifest]) -> list[Manifest]:
    for one in manifests:
        one["metadata"].pop("namespace", None)
    return manifests


@pytest.mark.parametrize("overlay", VALUES)
def test_the_chart_renders_what_the_overlay_does(overlay: str) -> None:
    charted = comparable(with_values(*VALUES[overlay]))
    assert charted == comparable(kustomized(overlay))


def test_the_chart_with_everything_renders_what_the_example_does(tmp_path: Path) -> None:
    charted = comparable(example_as_values(tmp_path))
    assert charted == comparable(without_namespace(kustomized("example")))


def test_the_copies_in_the_chart_are_current() -> None:
    tool("kubectl")
    written = chart_script().chart_files()
    assert {one.name for one in (CHART / "files").iterdir()} == set(written)
    for name, text in written.items():
        assert (CHART / "files" / name).read_text() == text, "run `make chart`"


def test_the_alerts_are_those_of_the_containers_and_watch_our_pods_alone() -> None:
    script = chart_script()
    path = KUBERNETES / "components" / "observability" / "alerts.yaml"
    rule = yaml.safe_load(path.read_text())
    plain = yaml.safe_load((script.OBSERVABILITY / "alerts.yml").read_text())
    down = [one["expr"] for group in plain["groups"] for one in group["rules"]].index("up == 0")

    assert path.read_text() == script.alerts(), "run `make chart`"
    assert rule["spec"]["groups"][0]["rules"][down].pop("expr") == script.OURS_DOWN
    plain["groups"][0]["rules"][down].pop("expr")
    assert rule["spec"] == plain


@pytest.mark.parametrize(
    ("values", "component", "grace_s"),
    [
        ("gateway.drainLimitSeconds=90", "gateway", 105),
        ("engines.drainLimitSeconds=60", "decode", 75),
        ("prefill.drainLimitSeconds=20", "prefill", 35),
        ("planner.shutdownLimitSeconds=1", "planner", 16),
    ],
)
def test_the_grace_period_follows_the_drain_limit(
    values: str, component: str, grace_s: int
) -> None:
    manifests = helmed("--set", values)
    deployment = deployments(manifests)[component]
    assert pod_of(deployment)["terminationGracePeriodSeconds"] == grace_s
    limits = {
        name: value
        for name, value in environment(deployment, manifests).items()
        if name.endswith("_LIMIT_S")
    }
    assert list(limits.values()) == [str(grace_s - 15)]


def test_one_role_may_differ_from_the_other() -> None:
    manifests = helmed(
        *("-f", str(CHART / "values-cuda.yaml")),
        *("--set", "decode.resources.limits.nvidia\\.com/gpu=2,decode.replicas=3"),
    )
    limits = {
        name: container_of(one)["resources"]["limits"]
        for name, one in deployments(manifests).items()
        if name in ("prefill", "decode")
    }
    assert limits["prefill"]["nvidia.com/gpu"] == "1"
    assert limits["decode"]["nvidia.com/gpu"] == 2
    assert limits["decode"]["memory"] == limits["prefill"]["memory"]
    assert deployments(manifests)["decode"]["spec"]["replicas"] == 3


def test_other_options_replace_the_pods_that_read_them_and_no_others() -> None:
    def digests(*arguments: str) -> dict[str, str]:
        return {
            name: one["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
            for name, one in deployments(helmed(*arguments)).items()
        }

    before, after = digests(), digests("--set", "config.gateway.gateway.access_log=true")
    assert {name for name in before if before[name] != after[name]} == {"gateway"}


def test_network_policies_can_be_left_out() -> None:
    assert of_kind(helmed(), "NetworkPolicy")
    assert not of_kind(helmed("--set", "networkPolicies.enabled=false"), "NetworkPolicy")


def test_a_selector_tells_installations_apart() -> None:
    manifests = helmed(
        *("--set", "autoscaling.enabled=true", "--set-string", 'autoscaling.selector=namespace="a"')
    )
    queries = [
        one["spec"]["triggers"][0]["metadata"]["query"]
        for one in of_kind(manifests, "ScaledObject")
    ]
    assert sorted(queries) == [
        'max(slos_planner_desired_engines{namespace="a",role="decode"})',
        'max(slos_planner_desired_engines{namespace="a",role="prefill"})',
    ]
