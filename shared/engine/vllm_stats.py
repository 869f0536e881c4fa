"""vLLM's own metrics of the engine side (queue, KV cache, transfers), kept as vLLM names them."""

from typing import Any

from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.metrics.loggers import StatLoggerManager


class EngineStats:
    """Feeds vLLM's Prometheus logger.

    What needs the request's text or arrival is counted at the gateway.
    """

    def __init__(self, vllm_config: Any) -> None:
        self._loggers = StatLoggerManager(vllm_config=vllm_config, engine_idxs=[0])
        self._loggers.log_engine_initialized()

    def observe(self, outputs: EngineCoreOutputs) -> None:
        if outputs.scheduler_stats is not None:
            self._loggers.record(
                scheduler_stats=outputs.scheduler_stats, iteration_stats=None, engine_idx=0
            )
