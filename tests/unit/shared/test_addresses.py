from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import pytest

from services.bench.stub_engine import StubOptions
from services.gateway.config import GatewayOptions
from services.node import drain
from services.node.on_ray.config import UpOptions
from services.node.on_ray.down import DownOptions
from services.node.on_ray.scale import ScaleOptions
from services.planner.config import PlannerOptions
from shared.addresses import Address, is_address
from shared.engine.config import EngineOptions
from shared.entry import exit_status
from shared.errors import ConfigError
from shared.options import load, option
from shared.rpc import health

BAD = ("", "127.0.0.1:", ":8100", "127.0.0.1", "host:0", "host:65536", "host:8k", "::1:80", "a b:1")
GOOD = ("127.0.0.1:8100", "slos-planner:8100", "[::1]:1", "a.b-c.example:65535")
TAKES_ADDRESS = [
    (GatewayOptions, "planner"),
    (PlannerOptions, "planner"),
    (EngineOptions, "planner"),
    (StubOptions, "planner"),
    (UpOptions, "on"),
    (ScaleOptions, "on"),
    (DownOptions, "on"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Needy:
    peer: Address = option("", help="a peer")


@pytest.mark.parametrize("text", GOOD)
def test_an_address_is_read_as_it_is(text: str) -> None:
    assert is_address(text)
    read = load(Needy, section="node", argv=["--peer", text], environ={}, prog="it")
    assert read.peer == text


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_address_is_an_error_that_shows_one(text: str) -> None:
    assert not is_address(text)
    with pytest.raises(ConfigError, match=r"--peer: read '.*', allowed is HOST:PORT, such as 127"):
        load(Needy, section="node", argv=["--peer", text], environ={}, prog="it")


@pytest.mark.parametrize(("options", "name"), TAKES_ADDRESS)
def test_no_option_takes_an_address_without_a_port(options: type[object], name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"--{name}: read '127\.0\.0\.1:', allowed is .*HOST:PORT"
    ):
        load(options, section="node", argv=[f"--{name}=127.0.0.1:"], environ={}, prog="it")


def test_the_options_above_are_all_that_default_to_an_address_or_name_a_cluster() -> None:
    known = {options for options, _ in TAKES_ADDRESS}
    found = {
        (options, one.name)
        for options in known
        for one in fields(options)
        if one.name == "on" or (isinstance(one.default, str) and is_address(one.default))
    }
    assert found == set(TAKES_ADDRESS)


@pytest.mark.parametrize("on", ["", "auto", "ray", "ray://head:10001", "10.0.0.1:6379"])
def test_a_ray_cluster_is_named_by_address_or_by_word(on: str) -> None:
    assert load(UpOptions, section="node", argv=[f"--on={on}"], environ={}, prog="it").on == on


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (drain.main, ["127.0.0.1:"]),
        (drain.main, ["127.0.0.1", "--undo"]),
        (health.main, ["127.0.0.1:"]),
        (health.main, ["http://127.0.0.1:/ready"]),
    ],
)
def test_a_command_that_asks_a_peer_ends_with_status_2_without_its_port(
    command: Callable[[Sequence[str]], int], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(command, words, program="it") == 2
    said = capsys.readouterr().err
    assert "allowed is HOST:PORT" in said
    assert said.count("\n") == 1
