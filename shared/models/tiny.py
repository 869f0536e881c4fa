"""Makes a small Llama with random weights for tests; its answers are always the same.

It uses numpy alone, so that no test has to import torch for it.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

_LAYERS: Final = 2
_HIDDEN: Final = 64
_INTERMEDIATE: Final = 128
_HEADS: Final = 2
_KV_HEADS: Final = 1
_HEAD_DIM: Final = 32  # the least that vLLM's CPU attention takes
_MAX_LEN_TOKENS: Final = 8192
_SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_tiny_model(folder: Path, seed: int = 0, *, words: Path | None = None) -> Path:
    """Writes the model into `folder` (made if missing) and returns it.

    Tokenizer and chat template are those of the model in `words`; without it, a token is a byte.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if words is None:
        _write_byte_tokenizer(folder)
    else:
        for name in _TOKENIZER_FILES:
            shutil.copy(words / name, folder / name)
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    _write_json(folder / "config.json", _config(vocabulary))
    _write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    save_file(_weights(vocabulary, seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _config(vocabulary: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_size": _HIDDEN,
        "intermediate_size": _INTERMEDIATE,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _KV_HEADS,
        "head_dim": _HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": _MAX_LEN_TOKENS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "vocab_size": vocabulary,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }


def _weights(vocabulary: int, seed: int) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Random weights, large enough that every earlier token, and so lost KV, changes the answer."""
    shapes = {
        "model.embed_tokens.weight": (vocabulary, _HIDDEN),
        "lm_head.weight": (vocabulary, _HIDDEN),
    }
    for layer in range(_LAYERS):
        shapes |= _layer_shapes(f"model.layers.{layer}")
    random = np.random.default_rng(seed)
    weights = {
        name: random.standard_normal(shape, dtype=np.float32) * np.float32(shape[1] ** -0.5)
        for name, shape in shapes.items()
    }
    weights["lm_head.weight"] *= 4  # logits far enough apart that rounding never picks the token
    norms = ["model.norm.weight"]
    for layer in range(_LAYERS):
        norms += [
            f"model.layers.{layer}.{kind}_layernorm.weight" for kind in ("input", "post_attention")
        ]
    return weights | {name: np.ones(_HIDDEN, dtype=np.float32) for name in norms}


def _layer_shapes(name: str) -> dict[str, tuple[int, int]]:
    queries, keys = _HEADS * _HEAD_DIM, _KV_HEADS * _HEAD_DIM
    return {
        f"{name}.self_attn.q_proj.weight": (queries, _HIDDEN),
        f"{name}.self_attn.k_proj.weight": (keys, _HIDDEN),
        f"{name}.self_attn.v_proj.weight": (keys, _HIDDEN),
        f"{name}.self_attn.o_proj.weight": (_HIDDEN, queries),
        f"{name}.mlp.gate_proj.weight": (_INTERMEDIATE, _HIDDEN),
        f"{name}.mlp.up_proj.weight": (_INTERMEDIATE, _HIDDEN),
        f"{name}.mlp.down_proj.weight": (_HIDDEN, _INTERMEDIATE),
    }


def _write_byte_tokenizer(folder: Path) -> None:
    """The special tokens first, with their ids in the embedded model, then the bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*_SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config())
    (folder / "chat_template.jinja").write_text(_TEMPLATE)


def _tokenizer_config() -> dict[str, Any]:
    unknown, start, end = _SPECIAL
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": unknown,
        "bos_token": start,
        "eos_token": end,
        "pad_token": end,
        "model_max_length": _MAX_LEN_TOKENS,
        "clean_up_tokenization_spaces": False,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1))
