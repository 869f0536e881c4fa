"""Turns exceptions of vLLM's frontend that malformed input causes into InvalidRequest."""

import logging
import traceback
from typing import Any, Final

import orjson

from shared.errors import InvalidRequest

_LOG = logging.getLogger(__name__)
_LONGEST: Final = 200
_SERVER_FAULTS: Final = frozenset({500, 501})
# What Python raises on a value of an unexpected type or shape.
OF_BAD_INPUT: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)


def as_invalid(error: Exception) -> InvalidRequest:
    """The client's error. The log gets the place in the code, in case the fault is ours."""
    why = f"{type(error).__name__}: {error}"
    places = traceback.extract_tb(error.__traceback__)
    place = f"{places[-1].filename}:{places[-1].lineno}" if places else "no place"
    _LOG.warning("A request could not be read: %s (%s)", why[:_LONGEST], place)
    return _unreadable(why)


def of_answer(status: int, body: bytes) -> InvalidRequest | None:
    """The same for a 500 or 501 that vLLM has answered already; None for any other status."""
    if status not in _SERVER_FAULTS:
        return None
    try:
        answer: Any = orjson.loads(body)
        why = str(answer["error"]["message"])
    except (orjson.JSONDecodeError, LookupError, TypeError):
        why = "vLLM's frontend failed on it"
    _LOG.warning("A request could not be read: %s", why[:_LONGEST])
    return _unreadable(why)


def _unreadable(why: str) -> InvalidRequest:
    return InvalidRequest(f"the request could not be read: {why[:_LONGEST]}", param="body")
