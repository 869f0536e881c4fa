"""vLLM's requests and outputs to frames of bytes and back, by vLLM's own codec. No network here."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from vllm.lora.request import LoRARequest
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

# Built once: making one costs far more than using it. They hold nothing between two calls, and
# are for one thread at a time, as all of vLLM's are.
_ENCODER: Final = MsgpackEncoder()
_REQUEST_DECODER: Final = MsgpackDecoder(EngineCoreRequest)
_OUTPUTS_DECODER: Final = MsgpackDecoder(list[EngineCoreOutput])


def encode_request(request: EngineCoreRequest) -> list[bytes]:
    """The first frame is the message, the others hold the data of its large tensors.

    Raises TypeError when the request carries an object that vLLM would have to pickle.
    """
    return _encode(request)


def decode_request(frames: Sequence[bytes]) -> EngineCoreRequest:
    """Raises msgspec.MsgspecError when the frames are no request of this version of vLLM."""
    return _REQUEST_DECODER.decode(_writable(frames))


def encode_outputs(outputs: list[EngineCoreOutput]) -> list[bytes]:
    """Frames as in `encode_request`."""
    return _encode(outputs)


def decode_outputs(frames: Sequence[bytes]) -> list[EngineCoreOutput]:
    """Raises msgspec.MsgspecError when the frames are no outputs of this version of vLLM."""
    outputs: list[EngineCoreOutput] = _OUTPUTS_DECODER.decode(_writable(frames))
    return outputs


def encode_adapter(adapter: LoRARequest) -> bytes:
    return msgspec.msgpack.encode(adapter)


def decode_adapter(data: bytes) -> LoRARequest:
    """Raises msgspec.MsgspecError when the bytes are no adapter of this version of vLLM."""
    return msgspec.msgpack.decode(data, type=LoRARequest)


def _writable(frames: Sequence[bytes]) -> list[bytearray]:
    # The decoded tensors are views of these buffers, and torch knows no read-only tensor.
    return [bytearray(frame) for frame in frames]


def _encode(message: Any) -> list[bytes]:
    return [bytes(frame) for frame in _ENCODER.encode(message)]
