"""How many tokens of KV an engine can hold: arithmetic on bytes. Measures nothing."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KvMemory:
    """KV gets what `used_share` of the memory of all GPUs leaves beside weights and activations.

    Bytes; `gpu_bytes` and `activation_bytes` are of each GPU, `weight_bytes` (with those of a draft
    model) of all together.
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
        """Raises ValueError where the model does not leave room for a single block."""
        blocks = int(self.left_bytes // (self.kv_bytes_per_token * block_size_tokens))
        if blocks < 1:
            raise ValueError(
                f"weights and activations leave {self.left_bytes / 2**30:.1f} GiB for KV"
            )
        return blocks
