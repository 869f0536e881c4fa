"""Options of an engine host, the same for both roles. No vLLM here, so that `--help` is quick."""

import socket
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field

from shared.addresses import Address
from shared.cluster_secret import IDENTITY_HELP, IDENTITY_VARIABLE
from shared.engine.speculation import Speculation
from shared.errors import ConfigError
from shared.kv_transfer.settings import KvTransport
from shared.listening import (
    HEALTH_PORT_HELP,
    INSECURE_HELP,
    INSECURE_VARIABLE,
    is_loopback,
    require_protection,
)
from shared.options import option
from shared.ports import FreePorts

AUTO_HOST: Final = "auto"
Positive = Annotated[int, Field(ge=1)]


class ProfileWhen(StrEnum):
    """Whether an engine measures its step times before it serves."""

    AUTO = "auto"
    FRESH = "fresh"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What an engine host can be told.

    `vllm` passes anything else on to vLLM under vLLM's own names.
    """

    name: str = option("", help="stable name of this engine; default: role, host and port")
    host: str = option("127.0.0.1", help="address to listen on for requests")
    port: int = option(8200, help="port for requests (gRPC); 0 picks a free one")
    advertise_host: str = option(
        "",
        help="address that others reach this engine at; auto: that of this machine's name; default:"
        " host, unless that is 0.0.0.0",
    )
    planner: Address = option("127.0.0.1:8100", help="the planner's address")
    cluster_secret_file: str = option("", help=IDENTITY_HELP, variable=IDENTITY_VARIABLE)
    insecure: bool = option(False, help=INSECURE_HELP, variable=INSECURE_VARIABLE)
    health_port: int = option(0, help=HEALTH_PORT_HELP)
    model: str = option(
        "embedded", help="folder or hub name of the model; `embedded` for the packaged one"
    )
    served_model_name: str = option("", help="name of the model in the API; default: model")
    dtype: str = option("auto", help="weights and activations: auto, float32, bfloat16, float16")
    max_model_len: int | None = option(
        None, help="longest prompt plus output, tokens; default: the model's"
    )
    max_running_requests: Positive | None = option(
        None, help="most requests in one step; default: vLLM's for the GPU, 64 on CPU"
    )
    max_step_tokens: Positive | None = option(
        None, help="most tokens computed in one step; default: vLLM's for the GPU, 2048 on CPU"
    )
    tensor_parallel_size: Positive = option(
        1,
        help="GPUs that compute each layer together; on CPU processes, each with cores of its own",
    )
    block_size_tokens: int | None = option(
        None, help="tokens in a KV block; default: vLLM's for the device (32 on CPU)"
    )
    kv_cache_gib: float | None = option(None, help="KV cache, GiB; default: vLLM's choice")
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = option(
        None, help="share of the memory of its GPUs that this engine takes; default: vLLM's (0.92)"
    )
    kv_transport: KvTransport = option(
        KvTransport.AUTO,
        help="how KV moves between engines: auto (NIXL where both engines have it and it works,"
        " ZMQ otherwise and with a cluster secret, unless insecure), nixl, zmq, or none",
    )
    kv_host: str = option(
        "",
        help="address that KV ports listen on; auto: that of this machine's name; default: host",
    )
    kv_advertise_host: str = option(
        "",
        help="address that other engines fetch KV at, with kv_transport zmq alone; default:"
        " kv_host, unless that is 0.0.0.0",
    )
    kv_port: int = option(
        8400, help="KV port: blocks over ZMQ, and leases; 0 picks a free one; worker n adds n"
    )
    nixl_port: int = option(8500, help="port of NIXL's side channel; 0 picks a free one")
    nixl_data_ports: str = option(
        "", help="ports that NIXL (UCX over TCP) may listen on, e.g. 8600-8699; default: any"
    )
    kv_lease_s: int = option(
        30, help="how long KV waits for a decode engine that does not say it is coming"
    )
    speculation_tokens: Annotated[int, Field(ge=0)] = option(
        0, help="most drafted tokens of a request per step; 0: no speculation"
    )
    speculation: Speculation = option(
        Speculation.NGRAM, help="how tokens are drafted, where speculation_tokens is above 0"
    )
    speculation_model: str = option(
        "", help="folder or hub name of the model that drafts: draft_model, eagle, eagle3"
    )
    cores: str = option(
        "", help="CPU cores of the engine, e.g. 0-3; CPU only; default: vLLM's choice"
    )
    eager: bool | None = option(None, help="no graph compilation; default: yes on CPU")
    metrics_host: str = option("127.0.0.1", help="address of the metrics page")
    metrics_port: int = option(8300, help="port of the metrics page (/metrics); 0: none")
    run_dir: str = option(
        "", help="folder for the socket to the engine core; default: a temporary one"
    )
    drain_limit_s: float = option(
        30.0, help="how long running requests may take to end after SIGTERM"
    )
    stall_limit_s: Annotated[float, Field(ge=2)] = option(
        4.0,
        help="an engine core that makes no progress for so long while it holds work, and for four"
        " of its longest steps, is ended",
    )
    report_every_s: float = option(
        0.02, help="step reports are sent to the planner at least this far apart"
    )
    profile: ProfileWhen = option(
        ProfileWhen.AUTO,
        help="measure step times at the start: auto (what was kept from an earlier start, if it"
        " fits), fresh, or off (learn from requests alone)",
    )
    profile_limit_s: Annotated[float, Field(gt=0)] = option(
        15.0, help="how long the measurement may take; small batches take 0.3 of it more"
    )
    vllm: dict[str, Any] = option(
        {}, help="further vLLM engine arguments by vLLM's names, e.g. {'seed': 1}"
    )

    @property
    def api_model_name(self) -> str:
        return self.served_model_name or self.model

    @property
    def kv_listen_host(self) -> str:
        """Where the KV port and NIXL's side channel listen."""
        return self.kv_host or self.host

    @property
    def kv_reachable_host(self) -> str:
        """Where other engines find the KV port."""
        return self.kv_advertise_host or self.kv_listen_host

    @property
    def kv_carriers(self) -> tuple[str, ...]:
        """The transports of this engine's KV, the preferred one first."""
        return self.kv_transport.carriers

    def settled(self) -> "EngineOptions":
        """Hosts of `auto` and ports of 0 become real ones. Raises ConfigError, too where strangers
        could reach this engine.

        The ports were free a moment ago.
        """
        transport = self.kv_transport
        protected = self.cluster_secret_file and not self.insecure
        if protected and transport is KvTransport.AUTO:
            transport = KvTransport.ZMQ  # NIXL neither encrypts nor asks for a secret
        host = own_address(self.host)
        kv_host = own_address(self.kv_host) or host
        settled = replace(
            self,
            host=host,
            advertise_host=reachable(own_address(self.advertise_host) or host, "advertise_host"),
            kv_host=kv_host,
            kv_advertise_host=own_address(self.kv_advertise_host),
            kv_transport=transport,
        )
        settled._check_hosts()
        settled._check_kv_hosts()
        with FreePorts() as ports:
            return replace(
                settled,
                port=self.port or ports.pick(host),
                kv_port=self.kv_port or ports.pick(kv_host, self.tensor_parallel_size),
                nixl_port=self.nixl_port or ports.pick(kv_host),
            )

    def _check_kv_hosts(self) -> None:
        """Raises ConfigError where other engines would not find the KV ports."""
        if not self.kv_carriers:
            return
        reachable(self.kv_reachable_host, "kv_host")
        if self.kv_advertise_host and self.kv_transport is not KvTransport.ZMQ:
            raise ConfigError(
                "kv_advertise_host: NIXL tells others the address that it listens on: name that "
                "with --kv-host, or say --kv-transport zmq."
            )

    def _check_hosts(self) -> None:
        """Raises ConfigError where strangers could reach this engine."""
        if not self.cluster_secret_file:
            open_hosts = {"host": self.host}
            if self.kv_carriers:
                open_hosts["kv_host"] = self.kv_host
            if self.metrics_port:
                open_hosts["metrics_host"] = self.metrics_host
            require_protection(open_hosts, insecure=self.insecure)
        elif self.kv_transport is KvTransport.NIXL and not self.insecure:
            if is_loopback(self.kv_host):
                return
            raise ConfigError(
                "kv_transport: NIXL neither encrypts nor asks peers for the cluster's secret, and "
                f"kv_host {self.kv_host} is open to other machines: say --kv-transport zmq, or "
                "--insecure where the network keeps strangers out."
            )


def own_address(host: str) -> str:
    """The address of this machine's own name for `auto`, anything else as it is.

    In a container or a pod that is its address in the network of the others. Raises ConfigError.
    """
    if host != AUTO_HOST:
        return host
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError as error:
        raise ConfigError(
            f"The name of this machine has no address ({error.strerror}): "
            "name one in place of `auto`."
        ) from error


def reachable(host: str, option: str) -> str:
    """Raises ConfigError for an address that means all of this machine's: others cannot use it."""
    if host not in ("", "0.0.0.0", "::"):
        return host
    raise ConfigError(
        f"{option}: other machines cannot reach an engine at {host or 'an empty address'}: name "
        f"one of this machine's addresses, or auto (--{option.replace('_', '-')} auto)."
    )


def hold_port(host: str, port: int) -> socket.socket:
    """Keeps a port for us through a long start; we may listen there while it is held.

    Raises ConfigError when it is taken.
    """
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind((host, port))
    except OSError as error:
        held.close()
        raise port_taken(host, port) from error
    return held


def port_taken(host: str, port: int) -> ConfigError:
    return ConfigError(
        f"Port {port} on {host} is taken; free it or give this engine another with --port."
    )
