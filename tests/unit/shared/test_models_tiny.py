import hashlib
import json
from pathlib import Path

from safetensors.numpy import load_file
from tokenizers import Tokenizer

from shared.models.tiny import make_tiny_model


def content(folder: Path) -> dict[str, str]:
    files = sorted(folder.iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    first, second = make_tiny_model(tmp_path / "a", seed=3), make_tiny_model(tmp_path / "b", seed=3)

    assert content(first) == content(second)


def test_another_seed_gives_other_weights_only(tmp_path: Path) -> None:
    first, second = (
        content(make_tiny_model(tmp_path / "a")),
        content(make_tiny_model(tmp_path / "b", seed=1)),
    )

    assert [name for name in first if first[name] != second[name]] == ["model.safetensors"]


def test_every_token_of_the_tokenizer_has_an_embedding(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path)

    size = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    weights = load_file(folder / "model.safetensors")
    assert size == json.loads((folder / "config.json").read_text())["vocab_size"]
    assert weights["lm_head.weight"].shape[0] == weights["model.embed_tokens.weight"].shape[0]
    assert weights["lm_head.weight"].shape[0] == size


def test_any_text_survives_the_byte_tokenizer(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(make_tiny_model(tmp_path) / "tokenizer.json"))
    text = "def f(x):\n\treturn 'ü€😀'  "

    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode("<|im_end|>").ids == [2]


def test_words_come_from_another_model(tmp_path: Path) -> None:
    words = make_tiny_model(tmp_path / "words")
    (words / "chat_template.jinja").write_text("mine")

    folder = make_tiny_model(tmp_path / "m", words=words)

    assert (folder / "chat_template.jinja").read_text() == "mine"
