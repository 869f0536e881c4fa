"""Converts a GGUF file to an ordinary checkpoint, in a process that ends with its parent."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from shared.parent import end_with_parent


def main(argv: Sequence[str]) -> int:
    source, folder = Path(argv[0]), Path(argv[1])
    end_with_parent(int(argv[2]))
    os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers reads it: all files are local
    convert(source, folder)
    return 0


def convert(source: Path, folder: Path) -> None:
    """Writes weights (bfloat16), tokenizer and chat template into `folder`."""
    # Imported here, as they take seconds to load
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    names = {"gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **names)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        **names,
    )
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.config.name_or_path = "SmolLM2-135M-Instruct"
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
