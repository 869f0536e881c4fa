"""Settings of an engine's KV connector: plain data that passes through vLLM's configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

SETTINGS_KEY: Final = "slos"
"""The key of the settings in vLLM's `kv_connector_extra_config`."""

PORT_KEY: Final = "slos_kv"
"""The key of the KV port and its transports in the transfer parameters of a computed prompt."""

EXPORT_KEY: Final = "slos_export"
"""The key, in transfer parameters, of a request that only exports a cached prefix."""

RESULT_KEY: Final = "slos_kv_result"
"""The key of the transfer's result in the transfer parameters of a decode engine's last output."""


class KvTransport(StrEnum):
    """The option `kv_transport`."""

    AUTO = "auto"
    NIXL = "nixl"
    ZMQ = "zmq"
    NONE = "none"

    @property
    def carriers(self) -> tuple[str, ...]:
        """The transports of an engine with this setting, the preferred one first."""
        return {"auto": ("nixl", "zmq"), "none": ()}.get(self.value, (self.value,))


@dataclass(frozen=True, slots=True, kw_only=True)
class KvSettings:
    """Worker n listens on `port + n` of `host`; other engines reach it at `reachable_host`."""

    transport: KvTransport
    host: str
    reachable_host: str
    port: int
    lease_s: float
    secret_file: str = ""

    def as_plain(self) -> dict[str, Any]:
        return {**asdict(self), "transport": self.transport.value}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "KvSettings":
        return cls(**{**plain, "transport": KvTransport(plain["transport"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderPort:
    """The KV port of a prefill engine, as its output names it to the decode engine."""

    host: str
    port: int
    carriers: tuple[str, ...]

    def as_plain(self) -> dict[str, Any]:
        return {"host": self.host, "port": self.port, "carriers": list(self.carriers)}

    @classmethod
    def from_plain(cls, plain: object) -> "HolderPort | None":
        """The port in transfer parameters; None if they are malformed."""
        if not isinstance(plain, Mapping):
            return None
        host, port, carriers = (plain.get(key) for key in ("host", "port", "carriers"))
        if not isinstance(host, str) or not isinstance(port, int) or not 0 < port < 1 << 16:
            return None
        if not isinstance(carriers, Sequence) or not all(isinstance(one, str) for one in carriers):
            return None
        return cls(host=host, port=port, carriers=tuple(carriers))


_STRINGS = ("remote_engine_id", "remote_request_id", "remote_host")
_NUMBERS = ("remote_port", "tp_size", "remote_num_tokens")


def fault_in(params: object) -> str | None:
    """What is wrong with a request's transfer parameters; None if they can be used."""
    if params is None:
        return None
    if not isinstance(params, Mapping):
        return "kv_transfer_params must be an object"
    if not params.get("do_remote_prefill"):
        return None
    if params.get("do_remote_decode"):
        return "do_remote_prefill and do_remote_decode exclude each other"
    return _fault_in_place(params)


def _fault_in_place(params: Mapping[str, Any]) -> str | None:
    """What is wrong with the address of the KV in `params`; None if nothing."""
    for name in _STRINGS:
        if not isinstance(params.get(name), str) or not params[name]:
            return f"{name} must be a text"
    for name in _NUMBERS:
        if not _is_count(params.get(name)):
            return f"{name} must be a whole number, 0 or more"
    blocks = params.get("remote_block_ids")
    if not isinstance(blocks, list | tuple) or not all(_is_ids(group) for group in blocks):
        return "remote_block_ids must be lists of block ids, one for each KV cache group"
    if HolderPort.from_plain(params.get(PORT_KEY)) is None:
        return f"{PORT_KEY} must name the KV port of the prefill engine"
    return None


def _is_ids(group: object) -> bool:
    return isinstance(group, list | tuple) and all(_is_count(one) for one in group)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31
