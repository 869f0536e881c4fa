"""LoRA adapters under one number on every engine, whichever gateway named them. Pure."""

import hashlib
from typing import Final

import msgspec
from vllm.lora.request import LoRARequest

_BITS: Final = 31  # vLLM keeps the number in arrays of signed integers


def fleet_wide(adapter: LoRARequest) -> LoRARequest:
    """The same adapter, numbered by its name and path.

    vLLM counts adapters up within one process; two gateways would give one number to two adapters,
    and an engine that knows the number would not load the second one.
    """
    digest = hashlib.sha256(f"{adapter.lora_name}\n{adapter.lora_path}".encode()).digest()
    number = int.from_bytes(digest[:8]) % ((1 << _BITS) - 1) + 1
    return msgspec.structs.replace(adapter, lora_int_id=number)


def for_request(adapter: LoRARequest | None) -> LoRARequest | None:
    """As a request names it: an engine that has it does not load it anew."""
    if adapter is None:
        return None
    return msgspec.structs.replace(fleet_wide(adapter), load_inplace=False)
