"""Switches off work that vLLM's frontend does for each request or token without a use here.

None of it changes an answer.
"""

import gc
from typing import Any, Final

from vllm.entrypoints.generate.base.protocol import DeltaMessage
from vllm.entrypoints.openai.chat_completion import protocol as chat
from vllm.entrypoints.openai.completion import protocol as completion
from vllm.envs import enable_envs_cache

# New container objects between two collections of the youngest generation; Python's own is 700.
# A streamed request makes a few thousand, nearly all of which end without the collector.
_YOUNG_OBJECTS: Final = 20_000
_FIELD_LOG: Final = "__log_extra_fields__"
# Made once or more for each token. Their fields are vLLM's own, so none is ever unknown.
_CHUNKS: Final = (
    DeltaMessage,
    completion.CompletionResponseStreamChoice,
    completion.CompletionStreamResponse,
    chat.ChatCompletionResponseStreamChoice,
    chat.ChatCompletionStreamResponse,
)


def spare_overheads() -> None:
    """Call it once the environment is read and before the first request."""
    enable_envs_cache()  # vLLM reads a variable anew at each use otherwise
    gc.set_threshold(_YOUNG_OBJECTS)
    for chunk in _CHUNKS:
        _drop_field_log(chunk)


def _drop_field_log(model: Any) -> None:
    """Removes vLLM's debug log of unknown fields, a Python call around each validation."""
    if model.__pydantic_decorators__.model_validators.pop(_FIELD_LOG, None) is not None:
        model.model_rebuild(force=True)
