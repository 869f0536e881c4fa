"""Addresses as an operator writes them: HOST:PORT."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator

from shared.errors import ConfigError
from shared.option_values import Form, unfit

_WORDS: Final = "HOST:PORT, such as 127.0.0.1:8100 or [::1]:8100"
_ADDRESS: Final = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):([0-9]{1,5})")


def is_address(text: str) -> bool:
    """Whether it is a host or an IPv6 address in brackets, and a port from 1 to 65535."""
    match = _ADDRESS.fullmatch(text)
    return match is not None and 1 <= int(match[1]) <= 65535


def require_address(text: str, where: str) -> str:
    """The address as it is. Raises ConfigError that names `where` it was read."""
    if not is_address(text):
        raise ConfigError(f"{where}: read {text!r}, allowed is {_WORDS}")
    return text


def _valid(text: str) -> str:
    if not is_address(text):
        raise unfit()
    return text


Address = Annotated[str, AfterValidator(_valid), Form(_WORDS)]
"""The type of an option that takes an address."""
