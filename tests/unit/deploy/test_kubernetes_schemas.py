"""What the validators say: Kubernetes' own schemas, strictly, and those of the CRDs in use."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.unit.deploy.manifests import CHART, OVERLAYS, Manifest, helmed, kustomized, run, tool

SCHEMAS = Path(__file__).parent / "schemas"
OLDEST = "1.28"
EVERYTHING = (
    *("--values", str(CHART / "values-cuda.yaml"), "--values", str(CHART / "values-rdma.yaml")),
    *("--set", "apiKeys.enabled=true,clusterSecret.enabled=false,modelCache.enabled=true"),
    *("--set", "observability.enabled=true,autoscaling.enabled=true"),
)
CUSTOM = {
    ("monitoring.coreos.com/v1", "PodMonitor"): "podmonitor-monitoring.coreos.com-v1",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "prometheusrule-monitoring.coreos.com-v1",
    ("keda.sh/v1alpha1", "ScaledObject"): "scaledobject-keda.sh-v1alpha1",
}


def rendered(name: str) -> list[Manifest]:
    if name == "chart":
        return helmed()
    return helmed(*EVERYTHING) if name == "chart with everything" else kustomized(name)


@cache
def custom_schema(name: str) -> Any:
    return json.loads((SCHEMAS / f"{name}.json").read_text())


@pytest.mark.parametrize("version", [OLDEST, "newest"])
@pytest.mark.parametrize("name", [*OVERLAYS, "chart", "chart with everything"])
def test_every_object_is_strictly_valid(name: str, version: str) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    wanted = validator.latest_version() if version == "newest" else version
    for one in rendered(name):
        if (one["apiVersion"], one["kind"]) not in CUSTOM:
            assert validator.validate(one, wanted, strict=True) == ".".join(wanted.split(".")[:2])


@pytest.mark.parametrize("name", ["example", "chart with everything"])
def test_custom_objects_fit_their_definitions(name: str) -> None:
    custom = [one for one in rendered(name) if (one["apiVersion"], one["kind"]) in CUSTOM]
    kinds = [*["PodMonitor"] * 3, "PrometheusRule", *["ScaledObject"] * 2]
    assert sorted(one["kind"] for one in custom) == kinds
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    for one in custom:
        schema = custom_schema(CUSTOM[one["apiVersion"], one["kind"]])
        validator(schema).validate(one)


def test_helm_finds_no_fault_in_the_chart() -> None:
    assert "0 chart(s) failed" in run(tool("helm"), "lint", "--strict", str(CHART))


@pytest.mark.parametrize("wrong", ["gatway.replicas=2", "prefill.replicas=many", "planner.env=1"])
def test_a_value_that_the_chart_does_not_know_is_refused(wrong: str) -> None:
    with pytest.raises(AssertionError, match="values don't meet the specifications"):
        helmed("--set", wrong)
