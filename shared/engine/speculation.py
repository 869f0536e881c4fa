"""How an engine drafts tokens: from our options to vLLM's `speculative_config`. Pure, but for the
header of a draft model's weights.
"""

import json
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from shared.errors import ConfigError

_LOOKUP: Final = {"prompt_lookup_max": 4, "prompt_lookup_min": 2}
_HEADER_LENGTH_BYTES: Final = 8


class Speculation(StrEnum):
    """Where drafts come from, by vLLM's names."""

    NGRAM = "ngram"
    NGRAM_GPU = "ngram_gpu"
    DRAFT_MODEL = "draft_model"
    EAGLE = "eagle"
    EAGLE3 = "eagle3"
    MTP = "mtp"
    SUFFIX = "suffix"

    @property
    def needs_model(self) -> bool:
        """Whether the drafts come from a model of its own."""
        return self in (Speculation.DRAFT_MODEL, Speculation.EAGLE, Speculation.EAGLE3)


def speculative_config(
    method: Speculation, *, tokens: int, model_path: str, cpu: bool
) -> dict[str, Any]:
    """vLLM's `speculative_config` for at most `tokens` drafted tokens a step.

    Args:
        method: where the drafts come from.
        tokens: the most drafted tokens of one request in one step, at least 1.
        model_path: folder or hub name of the draft model, resolved; empty where there is none.
        cpu: whether the engine computes on CPUs.

    Raises ConfigError where the method lacks something that can be seen without vLLM.
    """
    if method is Speculation.NGRAM_GPU and cpu:
        raise ConfigError(
            "speculation: ngram_gpu drafts on a GPU, and this engine computes on CPUs: say "
            "--speculation ngram."
        )
    check_draft_model(method, model_path)
    if method in (Speculation.EAGLE, Speculation.EAGLE3):
        _require_eagle_head(method, Path(model_path))
    config: dict[str, Any] = {"method": str(method), "num_speculative_tokens": tokens}
    if method in (Speculation.NGRAM, Speculation.NGRAM_GPU):
        config |= _LOOKUP
    return config | ({"model": model_path} if model_path else {})


def check_draft_model(method: Speculation, model: str) -> None:
    """Raises ConfigError for a draft model that the method needs and lacks, or cannot use."""
    if method.needs_model and not model:
        raise ConfigError(
            f"speculation: {method} needs a draft model: name its folder or hub name with "
            "--speculation-model."
        )
    if model and not method.needs_model:
        raise ConfigError(
            f"speculation_model: {method} drafts without a model of its own: leave it out, or say "
            "--speculation draft_model."
        )


def _require_eagle_head(method: Speculation, folder: Path) -> None:
    """Raises ConfigError for a folder with the weights of another kind of model.

    vLLM takes the weights of any model for an EAGLE head's and leaves the rest as it was in memory.
    """
    names = [name for file in folder.glob("*.safetensors") for name in _tensor_names(file)]
    if names and not any(name.split(".")[0] == "fc" or ".fc." in name for name in names):
        raise ConfigError(
            f"speculation: {folder} is no {method} head: its weights have no layer `fc`. Name a "
            "head that was trained for this model with --speculation-model."
        )


def _tensor_names(file: Path) -> list[str]:
    """Of a safetensors file: its header is JSON, behind its length as a little-endian integer."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(_HEADER_LENGTH_BYTES), "little")
        header: dict[str, Any] = json.loads(opened.read(length))
    return [name for name in header if name != "__metadata__"]
