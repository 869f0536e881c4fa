"""Computes the KV capacity of an engine from its memory in bytes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KvMemory:
    """KV gets `used_share` of all GPUs' memory, less weights and activations.

    `gpu_bytes` and `activation_bytes` are per GPU; `weight_bytes`, a draft model's included, are
    for all together.
    """

    gpus: int
    gpu_bytes: float
    weight_bytes: float
    activation_bytes: float
    kv_bytes_per_token: float
    used_share: float = 0.9

    @property
    def left_bytes(self) -> float:
        each = self.gpu_bytes * self.used_share - self.activation_bytes
        return self.gpus * each - self.weight_bytes

    def blocks(self, block_size_tokens: int) -> int:
        """The number of KV blocks. Raises ValueError if there is no room for a single one."""
        blocks = int(self.left_bytes // (self.kv_bytes_per_token * block_size_tokens))
        if blocks < 1:
            raise ValueError(
                f"weights and activations leave {self.left_bytes / 2**30:.1f} GiB for KV"
            )
        return blocks
