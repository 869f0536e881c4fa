import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.evaluation.fleets import Fleet, fleet_of, parse_fleet
from shared.errors import ConfigError


@given(prefill=st.integers(0, 100), decode=st.integers(1, 100))
def test_a_fleet_is_written_as_it_is_read(prefill: int, decode: int) -> None:
    fleet = Fleet(prefill=prefill, decode=decode)

    assert parse_fleet(str(fleet)) == fleet
    assert fleet_of(fleet.roles) == fleet


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("", "'' is no number"),
        ("four", "'four' is no number"),
        ("0", "at least one engine must decode"),
        ("prefill=2", "at least one engine must decode"),
        ("prefill=-1,decode=2", "at least one engine must decode"),
        ("decode=1,decode=2", "unknown or given twice"),
        ("encode=1,decode=2", "'encode' is unknown"),
        ("decode=x", "'x' is no number"),
        ("5000", "more than 1024 engines"),
    ],
)
def test_a_bad_fleet_says_what_to_write(spec: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_fleet(spec)
