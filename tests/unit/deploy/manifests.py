"""The manifests of deploy/kubernetes, rendered by the real tools, and what can be asked of them."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[3]
KUBERNETES: Final = ROOT / "deploy" / "kubernetes"
CHART: Final = KUBERNETES / "chart"
OVERLAYS: Final = {
    "base": KUBERNETES / "base",
    **{name: KUBERNETES / "overlays" / name for name in ("cpu", "cuda", "rdma", "example")},
}
COMPONENTS: Final = ("gateway", "planner", "prefill", "decode")
_LIMIT_S: Final = 50
_COMPONENT: Final = "app.kubernetes.io/component"

# libyaml's parser where there is one: it is ten times as fast
_Loader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Manifest = dict[str, Any]
Key = tuple[str, str]  # kind and name


def chart_script() -> ModuleType:
    """deploy/ holds scripts and is no package."""
    spec = importlib.util.spec_from_file_location("deploy_chart", ROOT / "deploy" / "chart.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tool(name: str) -> str:
    """The path of a command; skips the test where there is none."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


def kustomized(name: str) -> list[Manifest]:
    return _parsed(_kustomized(tool("kubectl"), name))


def helmed(*arguments: str) -> list[Manifest]:
    return _parsed(_helmed(tool("helm"), arguments))


@cache
def _kustomized(kubectl: str, name: str) -> str:
    return run(kubectl, "kustomize", str(OVERLAYS[name]))


@cache
def _helmed(helm: str, arguments: tuple[str, ...]) -> str:
    return run(helm, "template", "slos", str(CHART), "--namespace", "slos", *arguments)


def _parsed(text: str) -> list[Manifest]:
    return [one for one in yaml.load_all(text, Loader=_Loader) if one is not None]


def by_key(manifests: list[Manifest]) -> dict[Key, Manifest]:
    keyed = {(one["kind"], one["metadata"]["name"]): one for one in manifests}
    assert len(keyed) == len(manifests)
    return keyed


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [one for one in manifests if one["kind"] == kind]


def deployments(manifests: list[Manifest]) -> dict[str, Manifest]:
    """By component."""
    return {component_of(one): one for one in of_kind(manifests, "Deployment")}


def component_of(manifest: Manifest) -> str:
    return str(manifest["metadata"]["labels"][_COMPONENT])


def pod_of(deployment: Manifest) -> Manifest:
    pod: Manifest = deployment["spec"]["template"]["spec"]
    return pod


def container_of(deployment: Manifest) -> Manifest:
    (container,) = pod_of(deployment)["containers"]
    one: Manifest = container
    return one


def environment(deployment: Manifest, manifests: list[Manifest]) -> dict[str, str]:
    """The variables as a container of this pod would see them."""
    maps = {one["metadata"]["name"]: one["data"] for one in of_kind(manifests, "ConfigMap")}
    return {one["name"]: _value(one, maps) for one in container_of(deployment)["env"]}


def _value(variable: Manifest, maps: Mapping[str, Mapping[str, str]]) -> str:
    if "value" in variable:
        value = variable["value"]
        assert isinstance(value, str)
        return value
    ((kind, ref),) = variable["valueFrom"].items()
    if kind == "configMapKeyRef":
        return maps[ref["name"]][ref["key"]]
    if kind == "fieldRef":
        return {"metadata.name": "a-pod", "status.podIP": "10.0.0.7"}[ref["fieldPath"]]
    assert (kind, ref["resource"]) == ("resourceFieldRef", "limits.cpu")
    return "2"


def config_file(deployment: Manifest, manifests: list[Manifest]) -> str:
    """The content of the file that SLOS_CONFIG names."""
    container, pod = container_of(deployment), pod_of(deployment)
    path = Path(environment(deployment, manifests)["SLOS_CONFIG"])
    (mount,) = [one for one in container["volumeMounts"] if one["mountPath"] == str(path.parent)]
    (volume,) = [one for one in pod["volumes"] if one["name"] == mount["name"]]
    config = by_key(manifests)["ConfigMap", volume["configMap"]["name"]]
    return str(config["data"][path.name])


def selects(selector: Manifest, labels: Mapping[str, str]) -> bool:
    exact = selector.get("matchLabels", {}).items() <= labels.items()
    return exact and all(
        one["operator"] == "In" and labels.get(one["key"]) in one["values"]
        for one in selector.get("matchExpressions", ())
    )


def labels_of(deployment: Manifest) -> dict[str, str]:
    labels: dict[str, str] = deployment["spec"]["template"]["metadata"]["labels"]
    return labels


def connections(manifests: list[Manifest]) -> set[tuple[str, str, str]]:
    """From, to and port of what network policies let in; `monitoring` is a namespace."""
    pods = {name: labels_of(one) for name, one in deployments(manifests).items()}
    return {
        (source, target, port)
        for policy in of_kind(manifests, "NetworkPolicy")
        for target, labels in pods.items()
        if selects(policy["spec"]["podSelector"], labels)
        for rule in policy["spec"].get("ingress", ())
        for source in _peers(rule.get("from"), pods)
        for port in _ports(rule)
    }


def departures(manifests: list[Manifest]) -> set[tuple[str, str, str]]:
    """From, to and port of all that network policies let out; `anyone` is any address."""
    pods = {name: labels_of(one) for name, one in deployments(manifests).items()}
    return {
        (source, target, port)
        for policy in of_kind(manifests, "NetworkPolicy")
        for source, labels in pods.items()
        if selects(policy["spec"]["podSelector"], labels)
        for rule in policy["spec"].get("egress", ())
        for target in _peers(rule.get("to"), pods)
        for port in _ports(rule)
    }


def _peers(peers: list[Manifest] | None, pods: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    if peers is None:
        yield "anyone"
    for peer in peers or ():
        if "namespaceSelector" in peer:
            yield str(peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"])
        else:
            yield from (name for name, one in pods.items() if selects(peer["podSelector"], one))


def _ports(rule: Manifest) -> Iterator[str]:
    for one in rule["ports"]:
        last = f"-{one['endPort']}" if "endPort" in one else ""
        yield f"{one['port']}{last}/{one['protocol']}"


def comparable(manifests: list[Manifest]) -> dict[Key, Manifest]:
    """Without what makes pods follow their ConfigMaps (names with digests, or an annotation), and
    without an order where none is meant.
    """
    plain = re.sub(
        r"(slos-(?:model|gateway|planner|engines))-[a-z0-9]{10}\b", r"\1", yaml.safe_dump(manifests)
    )
    parsed: list[Manifest] = yaml.load(plain, Loader=_Loader)
    for one in of_kind(parsed, "Deployment"):
        one["spec"]["template"]["metadata"].pop("annotations", None)
        container = container_of(one)
        for holder, key in (
            (pod_of(one), "volumes"),
            (container, "env"),
            (container, "volumeMounts"),
        ):
            holder[key] = sorted(holder[key], key=lambda entry: str(entry["name"]))
    for one in of_kind(parsed, "ConfigMap"):
        if "config.yaml" in one["data"]:
            one["data"]["config.yaml"] = yaml.safe_load(one["data"]["config.yaml"])
    return by_key(parsed)
