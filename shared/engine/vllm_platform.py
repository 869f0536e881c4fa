"""What vLLM computes on here. Importing this module imports vLLM."""

from vllm.platforms import current_platform


def device() -> str:
    """`cpu`, `cuda`, `rocm`, `xpu` and the like; empty where vLLM finds no device."""
    return str(current_platform.device_name) if current_platform.device_type else ""


if __name__ == "__main__":
    print(device())
