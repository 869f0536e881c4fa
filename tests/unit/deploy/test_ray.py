"""deploy/ray against the schemas of what reads it: Ray Serve, its cluster launcher, Kubernetes."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.node.on_ray.config import fleet_of
from services.node.on_ray.place import Service, first_counts, stop_limit_s
from tests.unit.deploy.manifests import ROOT, Manifest

RAY = ROOT / "deploy" / "ray"
SCHEMAS = Path(__file__).parent / "schemas"
SKIP = "Ray is not installed: make env-test"


@cache
def manifests() -> list[Manifest]:
    return list(yaml.safe_load_all((RAY / "rayservice.yaml").read_text()))


def spec() -> Any:
    return manifests()[0]["spec"]


def serve_config() -> Any:
    return yaml.safe_load(spec()["serveConfigV2"])


def groups() -> dict[str, Any]:
    config = spec()["rayClusterConfig"]
    return {"head": config["headGroupSpec"]} | {
        one["groupName"]: one for one in config["workerGroupSpecs"]
    }


def test_the_service_has_only_fields_that_kuberay_knows() -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    validator(json.loads((SCHEMAS / "rayservice-ray.io-v1.json").read_text())).validate(
        manifests()[0]
    )


@pytest.mark.parametrize("version", ["1.28", "newest"])
def test_pods_and_service_are_strictly_valid(version: str) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    wanted = validator.latest_version() if version == "newest" else version
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": one["template"]["spec"],
        }
        for name, one in groups().items()
    ]
    for one in [*pods, manifests()[1]]:
        assert validator.validate(one, wanted, strict=True) == ".".join(wanted.split(".")[:2])


def test_ray_serve_accepts_the_configuration_and_finds_the_applications() -> None:
    schema = pytest.importorskip("ray.serve.schema", reason=SKIP)
    from services.node.on_ray import service_app

    parsed = schema.ServeDeploySchema.model_validate(serve_config())

    assert [one.name for one in parsed.applications] == [one.application for one in Service]
    for one, service in zip(parsed.applications, Service, strict=True):
        assert one.import_path == f"{service_app.__name__}:{service.value}"
        assert getattr(service_app, service.value)(one.args) is not None


def test_all_services_get_the_same_arguments_and_gateways_have_a_pod_each() -> None:
    arguments = [one["args"] for one in serve_config()["applications"]]
    assert arguments[0] == arguments[1] == arguments[2]

    fleet = fleet_of(arguments[0])
    gateways = groups()["gateway"]
    assert first_counts(fleet)[Service.GATEWAY] == gateways["replicas"] == gateways["maxReplicas"]
    assert fleet.up.gateway_resource in gateways["rayStartParams"]["resources"]
    assert fleet.up.prefill + fleet.up.decode == groups()["engine"]["replicas"]


def test_the_services_port_leads_to_the_gateways_and_not_to_rays_proxy() -> None:
    fleet = fleet_of(serve_config()["applications"][0]["args"])
    (container,) = groups()["gateway"]["template"]["spec"]["containers"]
    named = {one["name"]: one["containerPort"] for one in container["ports"]}
    service = manifests()[1]["spec"]

    assert fleet.up.port == named[service["ports"][0]["targetPort"]]
    assert fleet.up.port != serve_config()["http_options"]["port"]
    assert (
        service["selector"].items() <= groups()["gateway"]["template"]["metadata"]["labels"].items()
    )


def test_a_pod_has_time_for_the_whole_drain() -> None:
    limit_s = stop_limit_s(fleet_of(serve_config()["applications"][0]["args"]))
    for one in groups().values():
        assert one["template"]["spec"]["terminationGracePeriodSeconds"] >= limit_s


def test_the_image_and_the_manifest_name_the_ray_of_the_lock() -> None:
    lock = (ROOT / "deploy" / "locks" / "ray.txt").read_text()
    assert f"\nray=={spec()['rayClusterConfig']['rayVersion']}\n" in lock


def test_rays_cluster_launcher_accepts_the_example() -> None:
    ray = pytest.importorskip("ray", reason=SKIP)
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    example = yaml.safe_load((RAY / "cluster.yaml").read_text())
    pytest.importorskip("jsonschema").validate(example, schema)
