"""Published figures of GPUs and models, and arithmetic on them."""

from dataclasses import dataclass

_BYTES_OF_A_NUMBER = 2  # half precision
NVLINK_BYTES_PER_S = 2.0e11  # rate of a copy; an A100 has 300 GB/s each way


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU.

    Attributes:
        usable_bytes: Memory as a driver reports it.
        bytes_per_s: Memory bandwidth as published.
        kv_share: Share of that bandwidth that attention kernels reach.
        flops: Operations per second that they reach on causal attention.
        nic_bytes_per_s: Its share of the network, four fifths of the line rate.
    """

    name: str
    usable_bytes: float
    bytes_per_s: float
    kv_share: float
    flops: float
    nic_bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`parameters` counts all; each of `layers` has `heads` and `kv_heads` of `head_size`."""

    name: str
    parameters: float
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    max_len_tokens: int

    @property
    def weight_bytes(self) -> float:
        return self.parameters * _BYTES_OF_A_NUMBER

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes of a key and a value in each layer."""
        return 2.0 * self.layers * self.kv_heads * self.head_size * _BYTES_OF_A_NUMBER

    def context_s(self, gpu: Gpu, gpus: int) -> float:
        """Seconds to read the KV of one token, spread over the GPUs."""
        return self.kv_bytes_per_token / (gpus * gpu.bytes_per_s * gpu.kv_share)

    def pair_s(self, gpu: Gpu, gpus: int) -> float:
        """Seconds of one query on one key: two products, two operations for each number."""
        return 4.0 * self.layers * self.heads * self.head_size / (gpus * gpu.flops)


A100_40GB = Gpu(
    name="a100-40gb",
    usable_bytes=42.3e9,
    bytes_per_s=1.555e12,
    kv_share=0.83,
    flops=164e12,
    nic_bytes_per_s=2.0e10,
)
A100_80GB = Gpu(
    name="a100-80gb",
    usable_bytes=84.9e9,
    bytes_per_s=2.039e12,
    kv_share=0.83,
    flops=164e12,
    nic_bytes_per_s=2.0e10,
)
H100_80GB = Gpu(
    name="h100-80gb",
    usable_bytes=84.9e9,
    bytes_per_s=3.35e12,
    kv_share=0.96,
    flops=480e12,
    nic_bytes_per_s=4.0e10,
)
H200_141GB = Gpu(
    name="h200-141gb",
    usable_bytes=150.0e9,
    bytes_per_s=4.8e12,
    kv_share=0.96,
    flops=480e12,
    nic_bytes_per_s=4.0e10,
)


def _model(
    name: str, billions: float, layers: int, heads: tuple[int, int, int], length: int
) -> Model:
    all_heads, kv_heads, head_size = heads
    return Model(
        name=name,
        parameters=billions * 1e9,
        layers=layers,
        heads=all_heads,
        kv_heads=kv_heads,
        head_size=head_size,
        max_len_tokens=length,
    )


OPT_7B = _model("opt-7b", 6.66, 32, (32, 32, 128), 2048)
OPT_13B = _model("opt-13b", 12.85, 40, (40, 40, 128), 2048)
OPT_30B = _model("opt-30b", 29.97, 48, (56, 56, 128), 2048)
TOOLLLAMA_2_7B = _model("toolllama-2-7b", 6.74, 32, (32, 32, 128), 8192)
R1_QWEN_1_5B = _model("r1-distill-qwen-1.5b", 1.78, 28, (12, 2, 128), 16_384)
LLAMA_2_7B = _model("llama-2-7b", 6.74, 32, (32, 32, 128), 4096)
LLAMA_3_8B = _model("llama-3-8b", 8.03, 32, (32, 8, 128), 8192)
LLAMA_2_70B = _model("llama-2-70b", 68.98, 80, (64, 8, 128), 4096)
YI_34B = _model("yi-34b", 34.39, 60, (56, 8, 128), 16_384)
