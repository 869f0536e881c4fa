"""The services for Ray Serve's configuration files: `import_path: ...:gateway`."""

from collections.abc import Mapping
from typing import Any

from services.node.on_ray.config import fleet_of
from services.node.on_ray.place import Service
from services.node.on_ray.ray_cluster import application


def gateway(arguments: Mapping[str, Any]) -> Any:
    """The application of gateways; all three take the same arguments. Raises ConfigError."""
    return application(fleet_of(arguments), Service.GATEWAY)


def prefill(arguments: Mapping[str, Any]) -> Any:
    """The application of prefill engines. Raises ConfigError."""
    return application(fleet_of(arguments), Service.PREFILL)


def decode(arguments: Mapping[str, Any]) -> Any:
    """The application of decode engines. Raises ConfigError."""
    return application(fleet_of(arguments), Service.DECODE)
