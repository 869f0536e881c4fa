from dataclasses import dataclass
from typing import Any

import pytest

from services.gateway.stage_ends import find_stage_ends
from shared.errors import ConfigError

ADDED = {"</think>": 90, "<|message|>": 91}


class FakeTokenizer:
    """A token for each letter, and the added ones."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        for added, number in ADDED.items():
            if text.endswith(added):
                return [*map(ord, text.removesuffix(added)), number]
        return [ord(letter) for letter in text]

    def get_added_vocab(self) -> dict[str, int]:
        return ADDED


@dataclass
class FakeParser:
    """As vLLM's parsers of one kind or another say where thinking ends."""

    tokenizer: Any = None
    reasoning_end_str: str | None = None
    end_token_id: int | None = None
    reasoning_end_token_ids: frozenset[int] = frozenset()


def ends(texts: dict[str, str] | None = None, **parser: Any) -> dict[str, tuple[int, ...]]:
    def make(tokenizer: Any, **_: Any) -> FakeParser:
        return FakeParser(tokenizer, **parser)

    return find_stage_ends(FakeTokenizer(), texts or {}, make if parser else None)


@pytest.mark.parametrize(
    ("parser", "ids"),
    [
        ({"end_token_id": 5}, (5,)),
        ({"reasoning_end_token_ids": frozenset({4, 3}), "end_token_id": 4}, (3, 4)),
        ({"reasoning_end_str": "</think>"}, (90,)),
    ],
)
def test_the_reasoning_parser_says_where_thinking_ends(
    parser: dict[str, Any], ids: tuple[int, ...]
) -> None:
    assert ends(**parser) == {"thinking": ids, "reasoning": ids}


def test_the_configuration_goes_before_the_parser() -> None:
    found = ends({"thinking": "<|message|>", "plan": ";"}, end_token_id=5)

    assert found == {"thinking": (91,), "reasoning": (5,), "plan": (ord(";"),)}


def test_without_either_no_stage_has_an_end() -> None:
    assert ends() == {}
    assert ends(reasoning_end_str=None, end_token_id=None) == {}


def test_a_marker_that_the_model_writes_in_ordinary_text_ends_no_stage() -> None:
    assert ends(reasoning_end_str="</thoughts>") == {}


def test_a_text_may_end_in_a_token_that_only_stands_for_itself() -> None:
    assert ends({"plan": "so</think>"}) == {"plan": (90,)}


@pytest.mark.parametrize("text", ["", "two", "</think>."])
def test_a_text_that_other_text_could_end_as_well_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(ConfigError, match=r"stage_ends\.plan: .* not one token"):
        ends({"plan": text})


def test_a_parser_that_does_not_fit_the_model_is_told_at_the_start() -> None:
    def unfit(*_: Any, **__: Any) -> None:
        raise RuntimeError("no think tokens")

    with pytest.raises(ConfigError, match=r"reasoning_parser: .* no think tokens"):
        find_stage_ends(FakeTokenizer(), {}, unfit)
