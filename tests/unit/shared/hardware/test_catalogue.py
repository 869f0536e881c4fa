"""Tables that ship, by name."""

import pytest

from shared.errors import ConfigError
from shared.hardware import load, names


@pytest.mark.parametrize("name", names())
def test_every_table_that_ships_loads(name: str) -> None:
    hardware = load(name)

    assert hardware.name == name
    assert hardware.source
    assert hardware.kv_tokens > hardware.max_model_len_tokens


def test_an_unknown_name_is_answered_with_all_names() -> None:
    with pytest.raises(ConfigError, match=names()[0]):
        load("no-such-gpu")
