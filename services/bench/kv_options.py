"""Options of `bench kv`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from services.bench.kv_layout import ITEM_BYTES, KvLayout
from shared.options import option

Count = Annotated[int, Field(ge=1)]
_SPARE = 4  # times the blocks of the longest prompt, so that blocks lie apart as in a used cache


class Dtype(StrEnum):
    """Data type of the KV cache."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@dataclass(frozen=True, slots=True, kw_only=True)
class KvOptions:
    """The default geometry is the embedded model's, SmolLM2-135M."""

    layers: Count = option(30, help="layers of the model")
    kv_heads: Count = option(3, help="KV heads in a layer")
    head_size: Count = option(64, help="numbers in a head")
    dtype: Dtype = option(Dtype.FLOAT32, help="type of the KV cache")
    block_tokens: Count = option(32, help="tokens in a KV block")
    prompt_tokens: tuple[Count, ...] = option(
        (1, 16, 64, 128, 256, 512, 1024, 1500), help="lengths of prompts whose KV is moved"
    )
    rounds: Count = option(50, help="times that each length is moved in each way")
    ucx_tls: str = option("tcp,sm,self", help="UCX's transports, unless UCX_TLS is set")
    nixl_threads: Count = option(4, help="threads of NIXL's UCX backend; 4 is vLLM's default")
    limit_s: Annotated[float, Field(gt=0)] = option(60.0, help="how long any one step may take")
    json: bool = option(False, help="print one JSON object instead of a table")

    @property
    def layout(self) -> KvLayout:
        longest = -(-max(self.prompt_tokens) // self.block_tokens)
        return KvLayout(
            layers=self.layers,
            kv_heads=self.kv_heads,
            head_size=self.head_size,
            block_tokens=self.block_tokens,
            item_bytes=ITEM_BYTES[self.dtype.value],
            blocks=_SPARE * longest,
        )
