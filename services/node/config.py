"""The options of a node; `shared.options.load` fills them."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from shared.cluster_secret import IDENTITY_HELP, IDENTITY_VARIABLE
from shared.errors import ConfigError
from shared.kv_transfer.settings import KvTransport
from shared.options import option

Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=1, le=64)]
Tokens = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """Options of a machine with all parts. Other options of a part go under its YAML section."""

    model: str = option("embedded", help="embedded, tiny, a model folder or a hub name")
    served_model_name: str = option("", help="name of the model in the API; default: model")
    prefill: Annotated[int, Field(ge=0)] = option(
        1, help="number of prefill engines; 0: decode engines compute all prompts"
    )
    decode: Count = option(1, help="number of decode engines")
    host: str = option("127.0.0.1", help="address that the gateway listens on")
    port: Port = option(8000, help="port of the gateway")
    planner_port: Port = option(8100, help="port of the planner (gRPC)")
    planner_metrics_port: Port = option(8101, help="port of the planner's metrics page")
    engine_port: Port = option(8200, help="port of the first engine (gRPC); the others follow")
    engine_metrics_port: Port = option(
        8300, help="port of the first engine's metrics page; the others follow"
    )
    kv_port: Port = option(8400, help="KV port of the first engine; the others follow")
    nixl_port: Port = option(
        8500, help="port of the first engine's NIXL side channel; the others follow"
    )
    kv_transport: KvTransport | None = option(
        None, help="how KV moves between engines: auto, nixl, zmq or none; default: auto"
    )
    cluster_secret_file: str = option("", help=IDENTITY_HELP, variable=IDENTITY_VARIABLE)
    auto_ports: bool = option(False, help="pick a free port for each that is not named")
    dtype: str = option("auto", help="auto is float32 on CPU and the model's own on GPU")
    max_model_len: Tokens | None = option(
        None, help="longest prompt plus answer in tokens; default: the model's"
    )
    max_step_tokens: Tokens | None = option(None, help="most tokens in one engine step")
    max_running_requests: Tokens | None = option(None, help="most requests in one engine step")
    kv_cache_gib: Positive | None = option(
        None, help="KV cache of each engine; default on CPU: by free memory, at most 2"
    )
    gpus_per_engine: Annotated[int, Field(ge=0)] | None = option(
        None, help="GPUs of each engine; default: --tensor-parallel-size, 0 where there are no GPUs"
    )
    tensor_parallel_size: Tokens | None = option(
        None, help="GPUs of an engine that compute each layer together; default: --gpus-per-engine"
    )
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = option(
        None,
        help="share of the memory of its GPUs that each engine takes; default: 0.92, divided where"
        " engines share a GPU",
    )
    run_dir: str = option(".slos/run", help="folder for logs and sockets")
    restart: bool = option(True, help="start a part again when it dies")
    start_limit_s: Positive = option(
        300.0,
        help="how long the start may go without progress: a line in a log, or a byte from a disk;"
        " with --on: how long it may take",
    )
    drain_limit_s: Positive = option(30.0, help="how long requests may take to end at the stop")

    @property
    def api_model_name(self) -> str:
        return self.served_model_name or self.model

    @property
    def engines(self) -> int:
        return self.prefill + self.decode

    @property
    def gpus_of_an_engine(self) -> int:
        """GPUs of each engine, on a machine that has any. Raises ConfigError for options that
        contradict each other.
        """
        gpus, size = self.gpus_per_engine, self.tensor_parallel_size
        if gpus and size and gpus % size:
            raise ConfigError(
                f"--tensor-parallel-size {size} does not divide --gpus-per-engine {gpus}: leave "
                "one of them out."
            )
        return (size or 1) if gpus is None else gpus

    @property
    def tensor_parallel(self) -> int | None:
        """The tensor parallel size; None leaves it to the engine, which has one worker then."""
        return self.tensor_parallel_size or self.gpus_per_engine or None
