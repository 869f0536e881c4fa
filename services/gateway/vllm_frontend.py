"""vLLM's frontend with the cluster in place of its engine core."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import fields
from http import HTTPStatus
from typing import Any, NoReturn

from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import GracefulHTTPError
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.reasoning import ReasoningParserManager
from vllm.renderers import renderer_from_config
from vllm.sampling_params import SamplingParams
from vllm.usage.usage_lib import UsageContext
from vllm.utils.collection_utils import as_list
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineGenerateError
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.engine.output_processor import OutputProcessor
from vllm.v1.metrics.loggers import StatLoggerManager

from services.gateway.adapters import fleet_wide, for_request
from services.gateway.cluster_core import Cluster, ClusterCore
from services.gateway.continuation import refuse_what_we_cannot
from services.gateway.grammars import GrammarChecks
from services.gateway.http_errors import FAULT, from_failure
from services.gateway.scope import current_scope
from services.gateway.stage_ends import THINKING_STAGES, find_stage_ends
from services.gateway.stages import StageEnds
from shared.errors import ConfigError, InvalidRequest, NoEngine, Overloaded, SlosError

_LOG = logging.getLogger(__name__)


class ClusterFailureError(GracefulHTTPError):
    """One of our errors on its way through vLLM's layers, which answer with its HTTP status."""

    def __init__(self, cause: SlosError) -> None:
        answer = from_failure(cause, current_scope.get())
        super().__init__(answer.message, HTTPStatus(answer.status))
        self.cause = cause


def _left_in_scope(failure: SlosError) -> ClusterFailureError:
    scope = current_scope.get()
    if scope is not None and scope.failure is None:
        scope.failure = failure
    return ClusterFailureError(failure)


def _failure(cause: BaseException | None) -> SlosError:
    if isinstance(cause, SlosError):
        return cause
    _LOG.error("A request failed by an internal error.", exc_info=cause)
    return SlosError(FAULT)


def frontend_config(**arguments: Any) -> VllmConfig:
    """A configuration of vLLM for a process without an engine, from vLLM's engine arguments.

    Raises ConfigError if vLLM rejects them.
    """
    try:
        return AsyncEngineArgs(**arguments).create_engine_config(
            usage_context=UsageContext.OPENAI_API_SERVER
        )
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(
            f"vLLM will not serve {arguments.get('model')} with these options: {error}"
        ) from error


def _stage_ends(config: VllmConfig, tokenizer: Any, texts: Mapping[str, str]) -> StageEnds:
    """End tokens by stage. Raises ConfigError if the model has no such tokens."""
    if tokenizer is None:
        return {}
    name = config.structured_outputs_config.reasoning_parser
    parser = ReasoningParserManager.get_reasoning_parser(name) if name else None
    ends = find_stage_ends(tokenizer, texts, parser)
    if name and not ends.keys() & THINKING_STAGES:
        _LOG.warning(
            "reasoning_parser: %s names no token of this model that ends thinking, so a stage of "
            "that name lasts to the end of the answer; stage_ends can name one",
            name,
        )
    return ends


class ClusterClient(AsyncLLM):
    """The AsyncLLM that vLLM's OpenAI layer calls, served by many engines."""

    def __init__(
        self,
        vllm_config: VllmConfig,
        cluster: Cluster,
        *,
        stage_ends: Mapping[str, str],
        sequence_limit: int = 1024,
        grammars: GrammarChecks | None = None,
    ) -> None:
        self._sequence_limit = sequence_limit
        self._grammars = grammars
        # All that AsyncLLM.__init__ sets, but for the engine that it starts.
        self.vllm_config = vllm_config
        self.model_config = vllm_config.model_config
        self.scheduler_config = vllm_config.scheduler_config
        self.observability_config = vllm_config.observability_config
        self.log_requests = False
        self.log_stats = True
        self.renderer = renderer_from_config(vllm_config)
        self.input_processor = InputProcessor(vllm_config, self.renderer)
        if grammars is not None:  # vLLM's own check stops the event loop, and has no limits
            self.input_processor.structured_outputs_config = None
        self.admission_stats = None
        self.output_processor = OutputProcessor(
            self.renderer.tokenizer,
            log_stats=self.log_stats,
            stream_interval=vllm_config.scheduler_config.stream_interval,
        )
        self.engine_core = ClusterCore(
            cluster,
            model=self.model_config.served_model_name,
            max_model_len_tokens=self.model_config.max_model_len,
            stage_ends=_stage_ends(vllm_config, self.renderer.tokenizer, stage_ends),
            on_failed=self._fail_request,
        )
        self.logger_manager = StatLoggerManager(
            vllm_config=vllm_config, engine_idxs=self.engine_core.engine_ranks_managed
        )
        self._client_count = 1
        self.output_handler: asyncio.Task[None] | None = None
        self.profiler = None

    async def start(self) -> None:
        """Starts to follow the planner, so that the first request finds everything ready."""
        self.engine_core.start()
        self._run_output_handler()

    async def close(self) -> None:
        """Ends every request, every connection and every task."""
        await self.engine_core.close()
        self.shutdown()

    async def generate(
        self,
        prompt: Any,
        sampling_params: Any,
        request_id: str,
        *args: Any,
        priority: int = 0,
        lora_request: LoRARequest | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[RequestOutput, None]:
        """As AsyncLLM's; a failure in the cluster raises ClusterFailureError.

        The failure is also stored in the scope, for its HTTP status if no answer has begun.
        Within a client's request the gateway's own id replaces `request_id`.
        """
        scope = current_scope.get()
        own_id = request_id if scope is None else scope.next_prompt_id()
        answer = super().generate(
            prompt,
            sampling_params,
            own_id,
            *args,
            priority=priority,
            lora_request=for_request(lora_request),
            **kwargs,
        )
        try:
            refuse_what_we_cannot(sampling_params, priority)
            if scope is not None:
                scope.plan_sequences(sampling_params.n, self._sequence_limit)
            await self._check_grammar(sampling_params)
            async with aclosing(answer) as outputs:
                async for output in outputs:
                    yield output
        except (InvalidRequest, Overloaded) as error:
            raise _left_in_scope(error) from error
        except EngineGenerateError as error:
            raise _left_in_scope(_failure(error.__cause__)) from error

    async def _check_grammar(self, params: SamplingParams) -> None:
        asked = params.structured_outputs
        if asked is None or self._grammars is None:
            return
        given = {one.name: getattr(asked, one.name) for one in fields(asked) if one.init}
        for name, value in (await self._grammars.check(given)).items():
            setattr(asked, name, value)

    async def _add_request(self, request: EngineCoreRequest, *args: Any, **kwargs: Any) -> None:
        try:
            await super()._add_request(request, *args, **kwargs)
        except BaseException:  # vLLM keeps the state of a request that could not be added
            self.output_processor.abort_requests([request.request_id], internal=True)
            raise

    async def abort(self, request_id: str | Iterable[str], internal: bool = False) -> None:
        """As AsyncLLM's: the client has left or needs no more."""
        request_ids = (request_id,) if isinstance(request_id, str) else as_list(request_id)
        ended = self.output_processor.abort_requests(request_ids, internal)
        self.engine_core.end(ended, "abort")

    def _fail_request(self, request_id: str, error: Exception) -> None:
        """Raises `error` in the caller of one request; vLLM then ends its siblings (n > 1)."""
        state = self.output_processor.request_states.get(request_id)
        if state is None:
            return
        self.output_processor.abort_requests([request_id], internal=True)
        if state.queue is not None:
            state.queue.put(error)

    def check(self) -> None:
        """Raises NoEngine or PlannerUnavailable when no request could be served now."""
        if self.errored:
            raise NoEngine("This gateway can no longer hand out answers; restart it.")
        self.engine_core.planner.check()

    async def add_lora(self, lora_request: LoRARequest) -> bool:
        """Loads an adapter on every engine; one that starts later loads it with its first request.

        Raises InvalidRequest where an engine will not have it, EngineLost where one is away.
        """
        await self.engine_core.add_lora_async(fleet_wide(lora_request))
        return True

    async def check_health(self) -> None:
        """As `check`."""
        self.check()

    async def get_weight_version(self) -> str:
        """Empty: every engine has its own."""
        return ""

    def _one_engine_only(self, *args: Any, **kwargs: Any) -> NoReturn:
        del args, kwargs
        raise NotImplementedError(
            "This call is for one engine, and the gateway serves many. "
            "Ask the engine host, or restart the engine with other options."
        )

    async def _one_engine_only_async(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._one_engine_only(*args, **kwargs)

    pause_generation = _one_engine_only_async
    resume_generation = _one_engine_only_async
    encode = _one_engine_only
    start_profile = _one_engine_only_async
    stop_profile = _one_engine_only_async
    reset_prefix_cache = _one_engine_only_async
    reset_encoder_cache = _one_engine_only_async
    sleep = _one_engine_only_async
    release_kv_cache_memory = _one_engine_only_async
    wake_up = _one_engine_only_async
    compute_weight_checksums = _one_engine_only_async
    remove_lora = _one_engine_only_async
    list_loras = _one_engine_only_async
    pin_lora = _one_engine_only_async
    collective_rpc = _one_engine_only_async
    scale_elastic_ep = _one_engine_only_async
    handle_fault = _one_engine_only_async
    get_status = _one_engine_only_async
    update_weight_version = _one_engine_only_async
    notify_kv_transfer_request_rejected = _one_engine_only_async
    wait_for_requests_to_drain = _one_engine_only_async

    async def is_paused(self) -> bool:
        return False

    async def is_sleeping(self) -> bool:
        return False

    async def reset_mm_cache(self) -> None:
        """Clears the frontend's cache only: each engine keeps its own."""
        await self.renderer.clear_mm_cache_async()
