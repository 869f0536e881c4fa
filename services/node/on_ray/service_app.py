"""The services as Ray Serve's configuration files import them: `import_path: ...:gateway`."""

from collections.abc import Mapping
from typing import Any

from services.node.on_ray.config import fleet_of
from services.node.on_ray.place import Service
from services.node.on_ray.ray_cluster import application


def gateway(arguments: Mapping[str, Any]) -> Any:
    """A Serve application; all three get the same arguments. Raises ConfigError."""
    return application(fleet_of(arguments), Service.GATEWAY)


def prefill(arguments: Mapping[str, Any]) -> Any:
    """The same for prefill engines."""
    return application(fleet_of(arguments), Service.PREFILL)


def decode(arguments: Mapping[str, Any]) -> Any:
    """The same for decode engines."""
    return application(fleet_of(arguments), Service.DECODE)
