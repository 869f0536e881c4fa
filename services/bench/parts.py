"""The command lines of the processes that the gateway is measured with."""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from services.bench.gateway_options import GatewayBenchOptions
from services.node.plan import Part, Rank
from shared.errors import ConfigError
from shared.ports import LOOPBACK

SERVED_NAME = "bench"
STOCK = "stock"
ROUTER = "router"  # the gateway of others, before the stock server
_GIB = 1 << 30
_STOP_LIMIT_S = 20.0
_BLOCK_TOKENS, _MOST_RUNNING, _MOST_STEP_TOKENS = 32, 64, 2048  # as our engine host's defaults


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """One free port for each listener."""

    planner: int
    planner_metrics: int
    engine: int
    engine_kv: int
    gateway: int
    stock: int
    router: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Makes the parts. `model` is the resolved one: a folder or a hub name."""

    options: GatewayBenchOptions
    ports: Ports
    model: str
    run_dir: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def planner_address(self) -> str:
        return f"{LOOPBACK}:{self.ports.planner}"

    @property
    def engine_address(self) -> str:
        return f"{LOOPBACK}:{self.ports.engine}"

    @property
    def gateway_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.gateway}"

    @property
    def stock_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.stock}"

    @property
    def router_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.router}"

    def planner(self) -> Part:
        flags = {"port": self.ports.planner, "metrics-port": self.ports.planner_metrics}
        return self._part("planner", Rank.PLANNER, "services.planner", flags, self.planner_address)

    def engine(self) -> Part:
        flags = {
            "name": "bench",
            "port": self.ports.engine,
            "kv-port": self.ports.engine_kv,
            "kv-transport": self.options.kv_transport,
            "metrics-port": 0,
            "planner": self.planner_address,
            **self._engine_flags(),
        }
        return self._on_threads(
            self._part("engine", Rank.ENGINE, "services.decode", flags, self.engine_address)
        )

    def profile(self) -> Part:
        """The process that measures an engine like ours, prints its profile and ends."""
        flags = {"profile": "fresh", "json": None, **self._engine_flags()}
        return self._on_threads(
            self._part("profile", Rank.ENGINE, "services.bench.profile", flags, "")
        )

    def stub(self, step_ms: float = 0.0) -> Part:
        flags = {
            "port": self.ports.engine,
            "planner": self.planner_address,
            "model": SERVED_NAME,
            "max-model-len": self.options.max_model_len,
            "step-ms": step_ms,
        }
        module = "services.bench.stub_engine"
        return self._part("stub", Rank.ENGINE, module, flags, self.engine_address)

    def gateway(self, workers: int = 1) -> Part:
        flags = {
            "port": self.ports.gateway,
            "planner": self.planner_address,
            "workers": workers,
            **self._model_flags(),
        }
        return self._part("gateway", Rank.GATEWAY, "services.gateway", flags, self.gateway_url)

    def stock(self) -> Part:
        flags = {
            "host": LOOPBACK,
            "port": self.ports.stock,
            "disable-uvicorn-access-log": None,
            **self._stock_flags(),
            **self._model_flags(),
        }
        module = "vllm.entrypoints.openai.api_server"
        return self._on_threads(self._part(STOCK, Rank.GATEWAY, module, flags, self.stock_url))

    def stock_frontend(self) -> Part:
        """The stock server with its engine core in another process, as it runs by default."""
        stock = self.stock()
        return replace(stock, environ={**stock.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"})

    def router(self) -> Part:
        """The gateway of others. Raises ConfigError where its command cannot be read."""
        try:
            filled = self.options.router.format(port=self.ports.router, stock=self.stock_url)
            command = tuple(shlex.split(filled))
        except (ValueError, LookupError) as error:
            raise ConfigError(
                f"--router cannot be read ({error}): give a command with {{port}} and {{stock}}"
            ) from error
        return replace(self._part(ROUTER, Rank.GATEWAY, "", {}, self.router_url), command=command)

    def _on_threads(self, engine: Part) -> Part:
        """Gives both engines the same threads, unbound, with the model within the engine core.

        A worker process, vLLM's default on CPU, spins for a second after each request, and would
        slow down the next server that is asked.
        """
        if self.options.gpu_share:
            return engine
        threads = self.options.threads or max(1, len(os.sched_getaffinity(0)) - 1)
        model = {"OMP_NUM_THREADS": str(threads), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        return replace(engine, environ={**engine.environ, **model})

    def _stock_flags(self) -> dict[str, object]:
        if self.options.gpu_share:
            return {"gpu-memory-utilization": self.options.gpu_share}
        return {
            "block-size": _BLOCK_TOKENS,
            "max-num-seqs": _MOST_RUNNING,
            "max-num-batched-tokens": _MOST_STEP_TOKENS,
            "kv-cache-memory-bytes": int(self.options.kv_cache_gib * _GIB),
            "enforce-eager": None,
        }

    def _engine_flags(self) -> dict[str, object]:
        """On a GPU vLLM's defaults for the device, else the same for both engines."""
        if self.options.gpu_share:
            share = {"gpu-memory-utilization": self.options.gpu_share}
            return {**share, **self._model_flags()}
        return {
            "kv-cache-gib": self.options.kv_cache_gib,
            "block-size-tokens": _BLOCK_TOKENS,
            "max-running-requests": _MOST_RUNNING,
            "max-step-tokens": _MOST_STEP_TOKENS,
            **self._model_flags(),
        }

    def _model_flags(self) -> dict[str, object]:
        return {
            "model": self.model,
            "served-model-name": SERVED_NAME,
            "dtype": self.options.dtype,
            "max-model-len": self.options.max_model_len,
        }

    def _part(
        self, name: str, rank: Rank, module: str, flags: Mapping[str, object], address: str
    ) -> Part:
        """A process with these flags; a flag with the value None takes no value."""
        words = [
            word
            for flag, value in flags.items()
            for word in (f"--{flag}", *([] if value is None else [str(value)]))
        ]
        return Part(
            name=name,
            rank=rank,
            command=(sys.executable, "-m", module, *words),
            environ=self.environ,
            address=address,
            log=self.run_dir / f"{name}.log",
            stop_limit_s=_STOP_LIMIT_S,
        )
