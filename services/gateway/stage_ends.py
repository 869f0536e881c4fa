"""Finds the end tokens of stages in the configuration and in vLLM's reasoning parser."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from shared.errors import ConfigError

# The stage names for which vLLM's reasoning parser gives the end.
THINKING_STAGES: Final = ("thinking", "reasoning")
_THINKS: Final = {"thinking": True, "enable_thinking": True}


class Tokenizer(Protocol):
    """The methods used of the model's tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def get_added_vocab(self) -> dict[str, int]: ...


def find_stage_ends(
    tokenizer: Tokenizer,
    texts: Mapping[str, str],
    parser_class: Callable[..., Any] | None,
) -> dict[str, tuple[int, ...]]:
    """End token ids by the name of the stage.

    A text of the configuration (`texts`) overrides the reasoning parser. If neither gives an end of
    thinking, that stage has no known end.

    Raises ConfigError when a text or the parser does not fit the model.
    """
    by_parser = _of_parser(tokenizer, parser_class) if parser_class is not None else ()
    ends = dict.fromkeys(THINKING_STAGES, by_parser) if by_parser else {}
    for name, text in texts.items():
        ids = _of_text(tokenizer, text)
        if not ids:
            raise ConfigError(
                f"stage_ends.{name}: {text!r} is not one token of this model and ends in none of "
                "its special ones, so that other text would end the stage as well; give a text "
                "that is one token"
            )
        ends[name] = ids
    return ends


def _of_parser(tokenizer: Tokenizer, parser_class: Callable[..., Any]) -> tuple[int, ...]:
    """The token ids that the parser has, or those of its end text.

    Empty if no token stands for it, as in models that write their marker in ordinary text.
    """
    try:
        parser = parser_class(tokenizer, chat_template_kwargs=_THINKS)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"reasoning_parser: it does not fit this model: {error}") from error
    ids: Iterable[int] | None = getattr(parser, "reasoning_end_token_ids", None)
    if ids:
        return tuple(sorted(ids))
    end_id: int | None = getattr(parser, "end_token_id", None)
    if end_id is not None:
        return (end_id,)
    text: str | None = parser.reasoning_end_str
    return _of_text(tokenizer, text) if text else ()


def _of_text(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """The token of a text that is a single one, or a special token at its end; else empty."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    if ids and (len(ids) == 1 or ids[-1] in tokenizer.get_added_vocab().values()):
        return (ids[-1],)
    return ()
